//! What came of reading the configuration anew.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a reload did, or why it did nothing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reloaded {
    pub at: Timestamp,
    /// All that is wrong with the configuration, a line each; the one before it stays in force then.
    pub refused: Option<String>,
    /// What is in force now and was not before, a key each.
    pub changed: Vec<String>,
    /// What differs from what holds since the start, and holds until the next one.
    pub needs_restart: Vec<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.refused {
            write!(f, "the configuration is refused, the one before it stays in force:\n{reason}")?;
            return self.notes.iter().try_for_each(|note| write!(f, "\n{note}"));
        }
        let mut lines = self.changed.clone();
        if lines.is_empty() {
            lines.push("nothing to put in force has changed".to_owned());
        }
        lines.extend(self.needs_restart.iter().map(|what| format!("needs a restart: {what}")));
        lines.extend(self.notes.iter().cloned());
        f.write_str(&lines.join("\n"))
    }
}
