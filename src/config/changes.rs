//! What one configuration has that another has not.

use std::collections::BTreeMap;
use std::fmt;

use super::origin::{InForce, Line};
use super::value::Value;

/// Keys whose values hold from the start to the end of a run. What is not named here
/// a reload puts in force.
const AT_START: [&str; 12] = [
    "image_path",
    "host",
    "port",
    "listen",
    "health",
    "log_file",
    "log_format",
    "user",
    "group",
    "admin.listen",
    "preload_images",
    "preload",
];

/// One key, or one entry of a list of tables, that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `tag_ttl`, `registries."quay.io".tag_ttl`
    pub key: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// As they may be shown.
    Value(String, String),
    /// A secret, or what is in a file.
    Hidden,
    Added,
    Removed,
}

impl Change {
    /// Whether it has no effect before the next start.
    pub fn needs_restart(&self) -> bool {
        AT_START.contains(&self.key.as_str())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, what } = self;
        match what {
            What::Value(from, to) => write!(f, "{key}: {from} → {to}"),
            What::Hidden => write!(f, "{key}: changed"),
            What::Added => write!(f, "{key}: added"),
            What::Removed => write!(f, "{key}: removed"),
        }
    }
}

/// The lines of a configuration by where they belong.
#[derive(Default)]
struct Flat {
    /// By path, in order of the paths.
    values: BTreeMap<String, Value>,
    hidden: BTreeMap<String, u64>,
    /// Entries of lists, by path.
    entries: Vec<String>,
}

impl Flat {
    fn new(in_force: &InForce) -> Self {
        let mut flat = Self::default();
        let mut lines = in_force.lines.iter().peekable();
        let mut entry = String::new();
        while let Some(line) = lines.next() {
            match line {
                Line::Entry { table } => {
                    // The first key of an entry tells it from others.
                    let label = match lines.peek() {
                        Some(Line::Key { value, .. }) => value.to_toml(),
                        _ => String::new(),
                    };
                    // `registries.mirrors` belongs to the entry of `registries` before it.
                    let parent = table.rsplit_once('.').and_then(|(above, _)| {
                        flat.entries.iter().rev().find(|path| path.starts_with(above))
                    });
                    let name = table.rsplit('.').next().unwrap_or(table);
                    let parent = parent.map(|parent| format!("{parent}.")).unwrap_or_default();
                    entry = format!("{parent}{name}.{label}");
                    flat.entries.push(entry.clone());
                    entry.push('.');
                }
                Line::Key { key, value, .. } => {
                    flat.values.insert(format!("{entry}{key}"), value.clone());
                }
                Line::Hidden { key, fingerprint } => {
                    flat.hidden.insert(format!("{entry}{key}"), *fingerprint);
                }
            }
        }
        flat
    }

    fn entry_of(&self, path: &str) -> Option<&String> {
        self.entries.iter().find(|entry| path.strip_prefix(*entry).is_some_and(|rest| rest.starts_with('.')))
    }
}

/// In the order of the keys.
pub fn between(old: &InForce, new: &InForce) -> Vec<Change> {
    let (old, new) = (Flat::new(old), Flat::new(new));
    let mut changes = Vec::new();
    let mut add = |key: &str, what| changes.push(Change { key: key.to_owned(), what });
    let mut paths: Vec<_> = old.values.keys().chain(new.values.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let is_of_one =
            |one: &Flat, other: &Flat| one.entry_of(path).is_some_and(|entry| !other.entries.contains(entry));
        if is_of_one(&old, &new) || is_of_one(&new, &old) {
            continue;
        }
        let (from, to) = (old.values.get(path), new.values.get(path));
        if from != to {
            // What an entry takes over from the top level is told there.
            let key = path.rsplit('.').next().unwrap_or(path);
            let inherited = key != path && (old.values.get(key), new.values.get(key)) == (from, to);
            if !inherited {
                add(path, What::Value(shown(from), shown(to)));
            }
        } else if let (Some(from), Some(to)) = (old.hidden.get(path), new.hidden.get(path))
            && from != to
        {
            add(path, What::Hidden);
        }
    }
    for entry in old.entries.iter().filter(|entry| !new.entries.contains(entry)) {
        add(entry, What::Removed);
    }
    for entry in new.entries.iter().filter(|entry| !old.entries.contains(entry)) {
        add(entry, What::Added);
    }
    changes
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "(not set)".to_owned(),
        Some(Value::Text(text)) if !text.is_empty() && !text.contains(char::is_control) => text.clone(),
        Some(value) => value.to_toml(),
    }
}
