//! Why there are no settings.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// At least one, in the order of the file's lines, then those of the command line.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// One thing that is wrong: where, which key, what was found and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `/etc/ociregistry.toml:12`, `--port`
    pub place: String,
    /// Its dotted path; empty where no key is to blame.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.what)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.what)
        }
    }
}
