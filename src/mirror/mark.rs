//! How we know again what we wrote: a comment on its first line, with a sum of the text after it.

use sha2::{Digest, Sha256};

use super::Runtime;

/// Whose a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    Us,
    /// We wrote it, and it was changed since.
    Changed,
    Others,
}

/// A whole file of ours.
pub fn file(runtime: Runtime, body: &str) -> String {
    format!("{}.\n{body}", comment(runtime, body))
}

/// Who wrote this file.
pub fn author(runtime: Runtime, text: &str) -> Author {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    if !first.starts_with(&opening(runtime)) {
        Author::Others
    } else if first == format!("{}.", comment(runtime, body)) {
        Author::Us
    } else {
        Author::Changed
    }
}

const END: &str = "# End of what ociregistry wrote.";
const AND_FILE: &str = " It made this file too.";

/// Lines of ours in a file, from a comment to a comment, all behind `indent`.
pub fn block(runtime: Runtime, body: &str, indent: &str, makes_file: bool) -> String {
    let file = if makes_file { AND_FILE } else { "" };
    format!("{indent}{}.{file}\n{body}{indent}{END}\n", comment(runtime, body))
}

/// A file around its block of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file without it.
    pub rest: String,
    /// Whether it was we who made the file.
    pub made_file: bool,
    /// `Us` or `Changed`.
    pub author: Author,
}

/// None where no line is ours.
pub fn cut(runtime: Runtime, text: &str) -> Option<Cut> {
    let opening = opening(runtime);
    let mut rest = String::new();
    let mut body = String::new();
    let (mut first, mut last) = (None, false);
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        match first {
            None if bare.starts_with(&opening) => first = Some(bare),
            Some(_) if !last && bare == END => last = true,
            Some(_) if !last => body.push_str(line),
            _ => rest.push_str(line),
        }
    }
    let first = first?;
    let made_file = first.ends_with(AND_FILE);
    let told = first.strip_suffix(AND_FILE).unwrap_or(first);
    let ours = last && told == format!("{}.", comment(runtime, &body));
    Some(Cut { rest, made_file, author: if ours { Author::Us } else { Author::Changed } })
}

fn opening(runtime: Runtime) -> String {
    format!("# Written by ociregistry mirror {} ", runtime.name())
}

fn comment(runtime: Runtime, body: &str) -> String {
    let sum: String = Sha256::digest(body).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = runtime.name();
    format!("{}({sum}); taken back by ociregistry mirror {name} --disable", opening(runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ours_is_known_again() {
        let text = file(Runtime::Podman, "a = 1\n");
        assert_eq!(author(Runtime::Podman, &text), Author::Us);
        assert_eq!(author(Runtime::Containerd, &text), Author::Others);
        assert_eq!(author(Runtime::Podman, &text.replace('1', "2")), Author::Changed);
        assert_eq!(author(Runtime::Podman, &(text + "# mine\n")), Author::Changed);
        assert_eq!(author(Runtime::Podman, "a = 1\n"), Author::Others);
        assert_eq!(author(Runtime::Podman, ""), Author::Others);
    }

    #[test]
    fn a_block_is_cut_out_to_the_byte() {
        let ours = block(Runtime::K3s, "  a: 1\n", "  ", false);
        let cut = |text: &str| cut(Runtime::K3s, text);
        let found = cut(&format!("b:\n{ours}  c: 2")).unwrap();
        assert_eq!(found, Cut { rest: "b:\n  c: 2".into(), made_file: false, author: Author::Us });
        let ours = block(Runtime::K3s, "a: 1\n", "", true);
        assert!(cut(&ours).unwrap().made_file);
        assert_eq!(cut(&ours.replace('1', "2")).unwrap().author, Author::Changed);
        assert_eq!(cut(ours.strip_suffix(&format!("{END}\n")).unwrap()).unwrap().author, Author::Changed);
        assert_eq!(cut("b: 1\n"), None);
    }
}
