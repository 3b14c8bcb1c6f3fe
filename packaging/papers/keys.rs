//! ociregistry.toml(5), from etc/ociregistry.toml, which a test of the configuration holds against the code.

use clap_mangen::roff::{Roff, bold, italic, roman};

/// What a line of the sample is.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Blank,
    /// A title, and what it says of all below.
    Section(&'a str, &'a str),
    Prose(&'a str),
    /// `[table]` or `[[table]]`
    Table(&'a str),
    Key {
        name: &'a str,
        value: &'a str,
        set: bool,
    },
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        if line.is_empty() {
            return Self::Blank;
        }
        if let Some(title) = line.strip_prefix("## ") {
            let (title, rest) = title.split_once(": ").unwrap_or((title, ""));
            return Self::Section(title, rest);
        }
        if line == "#" || line.starts_with("# ") {
            return Self::Prose(line[1..].trim_start());
        }
        let toml = line.trim_start_matches('#');
        match toml.split_once(" = ") {
            Some((name, value)) => Self::Key { name, value, set: toml == line },
            None => Self::Table(toml),
        }
    }
}

/// The manual page that says the same as `sample`.
pub fn page(sample: &str) -> Vec<u8> {
    let mut roff = Roff::default();
    let source = concat!("ociregistry ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["ociregistry.toml", "5", "", source, "ociregistry"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("ociregistry.toml - configuration of ociregistry")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("/etc/ociregistry.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "One file in TOML. An unknown key or a value that will not do keeps ociregistry from starting, with the \
         line, what was found and what is wanted.",
    )]);
    roff.control("PP", []);

    for block in sample.split("\n\n").skip(1) {
        let lines: Vec<_> = block.lines().map(Line::of).collect();
        section(&mut roff, &lines);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("ociregistry"), roman("(8), "), bold("ociregistry-config"), roman("(8)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page).expect("writing to memory does not fail");
    page
}

/// Lines without a blank one between them: keys, and the prose that is about them.
fn section(roff: &mut Roff, lines: &[Line]) {
    let mut keys = 0;
    for line in lines {
        match line {
            Line::Section(title, rest) => {
                roff.control("SH", [title.to_uppercase().as_str()]).text([roman(*rest)])
            }
            Line::Table(name) => roff.control("SS", [*name]),
            Line::Key { name, value, set } => {
                roff.control(if keys == 0 { "TP" } else { "TQ" }, []);
                keys += 1;
                let packaged = if *set { " (as packaged)" } else { "" };
                roff.text([bold(*name), roman(format!(" = {value}{packaged}"))])
            }
            Line::Prose(_) | Line::Blank => roff,
        };
    }
    if keys == 0 {
        roff.control("PP", []);
    }
    for line in lines {
        if let Line::Prose(text) = line {
            match text.is_empty() {
                true => roff.control("IP", []),
                false => roff.text([roman(*text)]),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SAMPLE;

    #[test]
    fn every_key_of_the_sample_is_in_the_page_with_its_value_and_words() {
        let page = String::from_utf8(page(SAMPLE)).unwrap().replace("\\fB", "").replace("\\fR", "");
        let page = page.replace("\\(ga", "`").replace("\\*(Aq", "'").replace('\\', "");
        let (head, body) = SAMPLE.split_once("\n\n").unwrap();
        assert!(head.lines().all(|line| line.starts_with('#')), "the first block is about the file itself");
        let mut keys = 0;
        for line in body.lines() {
            match Line::of(line) {
                Line::Key { name, value, .. } => {
                    assert!(page.contains(&format!("{name} = {value}")), "no {line:?} in\n{page}");
                    keys += 1;
                }
                Line::Prose(text) => assert!(page.contains(text), "no {text:?} in\n{page}"),
                Line::Section(title, rest) => {
                    assert!(page.contains(&title.to_uppercase()) && page.contains(rest), "no {line:?}");
                }
                Line::Table(text) => assert!(page.contains(text), "no {text:?}"),
                Line::Blank => {}
            }
        }
        assert!(keys > 20, "{keys} keys only");
    }
}
