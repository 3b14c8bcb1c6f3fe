//! Reads tables key by key. What is asked for is what is known: from it come the values, the errors, the
//! nearest name for a key that nobody asked for, and the list of what is in force.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::Override;
use super::error::Problem;
use super::kind::{Kind, Shown};
use super::origin::{InForce, Line, Origin};
use super::secret::Reader;
use super::value::{Item, Table, Value};

/// What was found while reading.
#[derive(Default)]
pub struct Findings {
    problems: Vec<(Origin, Problem)>,
    pub warnings: Vec<Problem>,
    pub in_force: InForce,
    reader: Reader,
}

impl Findings {
    pub fn new(path: Option<PathBuf>, reader: Reader) -> Self {
        let in_force = InForce { path, lines: Vec::new() };
        Self { in_force, reader, problems: Vec::new(), warnings: Vec::new() }
    }

    pub fn problem(&mut self, origin: Origin, key: String, what: String) {
        let problem = self.at(origin, key, what);
        self.problems.push((origin, problem));
    }

    fn at(&self, origin: Origin, key: String, what: String) -> Problem {
        let place = origin.place(self.in_force.path.as_deref());
        // The option's name says it already.
        let key = if matches!(origin, Origin::Option(_)) { String::new() } else { key };
        Problem { place, key, what }
    }

    /// In the order of the file's lines, then those of the command line.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|(origin, _)| *origin);
        self.problems.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// One table being read.
///
/// Each reading method gives `None` when it has reported a problem, and only then.
pub struct Keys<'a> {
    table: &'a Table,
    /// Set for the top level only.
    overrides: &'a [Override],
    /// In front of a key in a message: `registries[0].auth.`
    path: String,
    /// In front of a key in what is in force, below the entry's header: `auth.`
    prefix: String,
    known: Vec<String>,
    findings: &'a mut Findings,
}

impl<'a> Keys<'a> {
    /// Reads a whole document with `read`, then reports the keys that it did not ask for.
    pub fn document<R>(
        table: &'a Table,
        overrides: &'a [Override],
        findings: &'a mut Findings,
        read: impl FnOnce(&mut Keys) -> R,
    ) -> R {
        let keys = Keys {
            table,
            overrides,
            path: String::new(),
            prefix: String::new(),
            known: Vec::new(),
            findings,
        };
        keys.run(read)
    }

    fn run<R>(mut self, read: impl FnOnce(&mut Keys) -> R) -> R {
        let result = read(&mut self);
        self.report_unknown();
        result
    }

    /// A key that has a default.
    pub fn read<T>(&mut self, key: &str, default: impl Into<Value>, kind: &Kind<T>) -> Option<T> {
        self.read_and_show(key, Some((default.into(), Origin::Default)), kind)
    }

    /// The same for one that is worth showing only where it is given.
    pub fn read_extra<T>(&mut self, key: &str, default: impl Into<Value>, kind: &Kind<T>) -> Option<T> {
        if self.is_given(key) {
            self.read(key, default, kind)
        } else {
            self.value(key, Some((default.into(), Origin::Default)), kind).map(|(value, ..)| value)
        }
    }

    /// A key whose default is what the top level says under the same name.
    pub fn inherit<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<T> {
        let inherited = self.findings.in_force.top(key);
        self.read_and_show(key, inherited, kind)
    }

    /// A key that has to be there.
    pub fn require<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<T> {
        if self.table.get(key).is_none() {
            let what = format!("missing, want {}", kind.want);
            self.findings.problem(Origin::File(self.table.line), format!("{}{key}", self.path), what);
        }
        self.read_and_show(key, None, kind)
    }

    /// A list, each item of the same kind; empty by default.
    pub fn list<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<Vec<T>> {
        let (values, shown, origin) = self.items(key, kind)?;
        self.show(key, shown, origin);
        Some(values)
    }

    /// A key that is checked but whose capability is not built: only its default is taken.
    pub fn not_yet<T: PartialEq>(&mut self, key: &str, default: impl Into<Value>, kind: &Kind<T>) {
        let default = default.into();
        let off = (kind.read)(&default);
        let read = self.value(key, Some((default.clone(), Origin::Default)), kind);
        if read.is_some_and(|(value, ..)| Some(value) != off) {
            self.refuse(key, &format!("not supported yet, leave it at {}", default.to_toml()));
        }
    }

    /// A table in this one; empty when it is not given.
    pub fn table<R>(&mut self, key: &'static str, read: impl FnOnce(&mut Keys) -> R) -> R {
        self.known.push(key.to_owned());
        let empty = Table { line: self.table.line, entries: Vec::new() };
        let table = match self.table.get(key) {
            Some(entry) => match &entry.value {
                Value::Table(table) => table,
                other => {
                    self.refuse(key, &format!("found {}, want a table", other.type_name()));
                    &empty
                }
            },
            None => &empty,
        };
        let keys = Keys {
            table,
            overrides: &[],
            path: format!("{}{key}.", self.path),
            prefix: format!("{}{key}.", self.prefix),
            known: Vec::new(),
            findings: self.findings,
        };
        keys.run(read)
    }

    /// A list of tables.
    pub fn tables<R>(&mut self, key: &'static str, mut read: impl FnMut(&mut Keys) -> R) -> Vec<R> {
        self.known.push(key.to_owned());
        let Some(entry) = self.table.get(key) else {
            return Vec::new();
        };
        let Value::List(items) = &entry.value else {
            self.refuse(key, &format!("found {}, want a list of tables: [[{key}]]", entry.value.type_name()));
            return Vec::new();
        };
        let mut results = Vec::new();
        for (index, Item { line, value }) in items.iter().enumerate() {
            let path = format!("{}{key}[{index}]", self.path);
            let Value::Table(table) = value else {
                let what = format!("found {}, want a table", value.type_name());
                self.findings.problem(Origin::File(*line), path, what);
                continue;
            };
            self.findings.in_force.lines.push(Line::Entry { table: key });
            let keys = Keys {
                table,
                overrides: &[],
                path: format!("{path}."),
                prefix: String::new(),
                known: Vec::new(),
                findings: self.findings,
            };
            results.push(keys.run(&mut read));
        }
        results
    }

    /// The file that is read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.findings.in_force.path.as_deref()
    }

    pub fn reader(&self) -> Reader {
        self.findings.reader
    }

    /// Whether the file or the command line says anything about a key.
    pub fn is_given(&self, key: &str) -> bool {
        self.origin(key) != Origin::Default
    }

    /// Reports that a key's value will not do, where it was given.
    pub fn refuse(&mut self, key: &str, what: &str) {
        let origin = match self.origin(key) {
            Origin::Default => Origin::File(self.table.line),
            given => given,
        };
        self.findings.problem(origin, format!("{}{key}", self.path), what.to_owned());
    }

    /// Reports that a key's value will do, but should be looked at.
    pub fn warn(&mut self, key: &str, what: &str) {
        let warning = self.findings.at(self.origin(key), format!("{}{key}", self.path), what.to_owned());
        self.findings.warnings.push(warning);
    }

    fn origin(&self, key: &str) -> Origin {
        let option = self.overrides.iter().find(|o| o.key == key).map(|o| Origin::Option(o.option));
        let line = self.table.get(key).map(|entry| Origin::File(entry.line));
        option.or(line).unwrap_or(Origin::Default)
    }

    fn read_and_show<T>(&mut self, key: &str, default: Option<(Value, Origin)>, kind: &Kind<T>) -> Option<T> {
        let (value, raw, origin) = self.value(key, default, kind)?;
        self.show(key, kind.shown.of(&raw), origin);
        if kind.shown != Shown::All
            && let Value::Text(text) = &raw
        {
            self.note_hidden(key, text.as_bytes());
        }
        Some(value)
    }

    /// Remembers what a key stands for but does not show, so that a change of it is noticed.
    pub fn note_hidden(&mut self, key: &str, content: &[u8]) {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let key = format!("{}{key}", self.prefix);
        self.findings.in_force.lines.push(Line::Hidden { key, fingerprint: hasher.finish() });
    }

    fn show(&mut self, key: &str, value: Value, origin: Origin) {
        let key = format!("{}{key}", self.prefix);
        self.findings.in_force.lines.push(Line::Key { key, value, origin });
    }

    /// Default, file and command line are all checked; the last of them counts.
    fn value<T>(
        &mut self,
        key: &str,
        default: Option<(Value, Origin)>,
        kind: &Kind<T>,
    ) -> Option<(T, Value, Origin)> {
        self.known.push(key.to_owned());
        let file = self.table.get(key).map(|entry| (entry.value.clone(), Origin::File(entry.line)));
        let like = default.as_ref().map_or_else(|| "".into(), |(value, _)| value.clone());
        let option = self
            .overrides
            .iter()
            .filter(|o| o.key == key)
            .map(|o| (Value::from_argument(&o.text, &like), Origin::Option(o.option)));
        let layers: Vec<_> = default.into_iter().chain(file).chain(option).collect();
        let mut last = None;
        let mut sound = true;
        for (raw, origin) in layers {
            last = (kind.read)(&raw).map(|value| (value, raw.clone(), origin));
            if last.is_none() {
                sound = false;
                self.findings.problem(origin, format!("{}{key}", self.path), mismatch(&raw, kind));
            }
        }
        last.filter(|_| sound)
    }

    fn items<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<(Vec<T>, Value, Origin)> {
        self.known.push(key.to_owned());
        let Some(entry) = self.table.get(key) else {
            return Some((Vec::new(), Value::List(Vec::new()), Origin::Default));
        };
        let Value::List(items) = &entry.value else {
            self.refuse(
                key,
                &format!("found {}, want a list, each item {}", entry.value.type_name(), kind.want),
            );
            return None;
        };
        let mut values = Vec::new();
        for (index, Item { line, value }) in items.iter().enumerate() {
            match (kind.read)(value) {
                Some(value) => values.push(value),
                None => {
                    let path = format!("{}{key}[{index}]", self.path);
                    self.findings.problem(Origin::File(*line), path, mismatch(value, kind));
                }
            }
        }
        let shown = |item: &Item| Item { line: item.line, value: kind.shown.of(&item.value) };
        let shown = Value::List(items.iter().map(shown).collect());
        (values.len() == items.len()).then_some((values, shown, Origin::File(entry.line)))
    }

    fn report_unknown(self) {
        for entry in &self.table.entries {
            if self.known.contains(&entry.key) {
                continue;
            }
            let near = nearest(&entry.key, &self.known);
            let what = if near.is_none() && self.findings.in_force.top(&entry.key).is_some() {
                "unknown key here; it belongs above the first [table] of the file".to_owned()
            } else {
                let hint = near.map(|key| format!("; did you mean `{key}`?"));
                format!("unknown key{}", hint.unwrap_or_default())
            };
            // A key is free text: quoted where it is not a plain word.
            let plain = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            let key = if plain { entry.key.clone() } else { format!("{:?}", entry.key) };
            self.findings.problem(Origin::File(entry.line), format!("{}{key}", self.path), what);
        }
    }
}

fn mismatch<T>(value: &Value, kind: &Kind<T>) -> String {
    let name = value.type_name();
    let found = match kind.shown.of(value) {
        _ if kind.shown == Shown::Nothing => name.to_owned(),
        Value::Text(text) if text.is_empty() => "an empty string".to_owned(),
        Value::Text(text) => format!("{:?}", text.chars().take(200).collect::<String>()),
        Value::Integer(integer) => integer.to_string(),
        Value::Bool(bool) => bool.to_string(),
        _ => name.to_owned(),
    };
    format!("found {found}, want {}", kind.want)
}

/// The known key that was most likely meant, whatever its case and underscores.
fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let letters = |key: &str| key.replace(['_', '-'], "").to_lowercase();
    let close = |candidate: &String| strsim::jaro_winkler(&letters(key), &letters(candidate));
    known
        .iter()
        .map(|candidate| (candidate, close(candidate)))
        .filter(|(_, closeness)| *closeness > 0.75)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant() {
        let known = ["image_path", "port", "os", "always_pull_latest", "tag_ttl"].map(str::to_owned);
        for (typed, meant) in [
            ("imagePath", Some("image_path")),
            ("prot", Some("port")),
            ("tagttl", Some("tag_ttl")),
            ("always-pull-latest", Some("always_pull_latest")),
            ("frobnicate", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }
}
