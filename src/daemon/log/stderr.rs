//! What is said on the standard error past the log: before there is one, and by commands.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use tracing::Level;

use super::line::priority;

/// Says it, in one write. To the journal, each line says how grave it is (sd-daemon(3)): what does not is information.
pub fn say(level: Level, text: &str) {
    let text = said(level, text, is_journal());
    // Nobody may be listening any more.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn said(level: Level, text: &str, to_journal: bool) -> String {
    let mark = if to_journal { format!("<{}>", priority(level)) } else { String::new() };
    text.lines().map(|line| format!("{mark}{line}\n")).collect()
}

/// `JOURNAL_STREAM` holds device and inode of what systemd has connected to the journal.
pub fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream.to_str() == Some(&format!("{}:{}", stderr.dev(), stderr.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_the_journal_every_line_says_how_grave_it_is() {
        assert_eq!(said(Level::ERROR, "one\ntwo", true), "<3>one\n<3>two\n");
        assert_eq!(said(Level::WARN, "one", true), "<4>one\n");
        assert_eq!(said(Level::ERROR, "one\ntwo", false), "one\ntwo\n");
    }
}
