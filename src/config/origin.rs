//! Where values come from, and what is in force because of it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::value::Value;

/// A later one counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    /// The file's line.
    File(usize),
    /// An option of the command line: `--port`.
    Option(&'static str),
}

impl Origin {
    /// In words, for a file at `path`.
    pub fn place(self, path: Option<&Path>) -> String {
        match (self, path) {
            (Self::Default, _) => "default".to_owned(),
            (Self::File(line), Some(path)) => format!("{}:{line}", path.display()),
            (Self::File(line), None) => format!("line {line}"),
            (Self::Option(option), _) => option.to_owned(),
        }
    }
}

/// Every value that counts and where it came from, secrets left out. Prints as a configuration file.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    pub(super) path: Option<PathBuf>,
    pub(super) lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub(super) enum Line {
    /// What follows belongs to a new entry of this list of tables.
    Entry {
        table: &'static str,
    },
    Key {
        key: String,
        value: Value,
        origin: Origin,
    },
    /// Of what a value above hides: a secret, or what is in a file. Tells only whether it changed.
    Hidden {
        key: String,
        fingerprint: u64,
    },
}

impl InForce {
    /// Keys, by their full names, that name a credential which systemd handed over at the start.
    pub fn credential_keys(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Key { key, value, .. }
                if key.ends_with("_credential") && value.text().is_some_and(|name| !name.is_empty()) =>
            {
                Some(key.as_str())
            }
            _ => None,
        })
    }

    /// The value of a top-level key.
    pub(super) fn top(&self, wanted: &str) -> Option<(Value, Origin)> {
        self.lines.iter().take_while(|line| !matches!(line, Line::Entry { .. })).find_map(|line| match line {
            Line::Key { key, value, origin } if key == wanted => Some((value.clone(), *origin)),
            _ => None,
        })
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Entry { table } => writeln!(f, "\n[[{table}]]")?,
                Line::Key { key, value, origin } => {
                    let place = origin.place(self.path.as_deref());
                    writeln!(f, "{key} = {}  # {}", value.to_toml(), place.replace(char::is_control, "?"))?;
                }
                Line::Hidden { .. } => {}
            }
        }
        Ok(())
    }
}
