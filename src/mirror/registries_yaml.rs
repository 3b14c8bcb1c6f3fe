//! `mirrors` in a registries.yaml that is somebody else's in part.
//!
//! Lines of ours go where the text says they can; it is read again with them, and they are written only if it then
//! says all it said, and what we want, and if they can be cut out again.

use std::path::Path;

use saphyr::{LoadableYamlNode, MarkedYaml};

use super::{MirrorError, Runtime, indent, mark};

/// What we want to be said.
pub struct Mirrors<'a> {
    pub url: String,
    pub names: Vec<&'a str>,
}

/// The file as it should be.
pub struct Merged {
    pub text: String,
    /// Registries with mirrors that do not begin with ours.
    pub elsewhere: Vec<String>,
}

/// Why our lines cannot be put in.
pub enum Refusal {
    Malformed(String),
    InTheWay(String),
}

impl Refusal {
    pub fn on(self, path: &Path, lines: &str) -> MirrorError {
        let path = path.to_owned();
        match self {
            Self::Malformed(what) => MirrorError::Malformed { path, what },
            Self::InTheWay(what) => MirrorError::Foreign { path, what, advice: indent(lines) },
        }
    }
}

impl Mirrors<'_> {
    /// Below `mirrors:`, behind `margin`, each level deeper by `step`.
    pub fn lines(&self, margin: &str, step: &str) -> String {
        let one = |name: &&str| {
            format!("{margin}\"{name}\":\n{margin}{step}endpoint:\n{margin}{step}{step}- \"{}\"\n", self.url)
        };
        self.names.iter().map(one).collect()
    }

    /// `text` with them, in a block of ours.
    pub fn add(&self, runtime: Runtime, text: &str, makes_file: bool) -> Result<Merged, Refusal> {
        let document = load(text)?;
        let root = document.as_ref().filter(|document| !document.data.is_null());
        let mapping = match root {
            Some(root) => root.data.as_mapping().ok_or(unusual()).map(Some)?,
            None => None,
        };
        let mirrors = mapping.into_iter().flatten().find(|(key, _)| key.data.as_str() == Some("mirrors"));
        let theirs = mirrors.and_then(|(_, value)| value.data.as_mapping());
        let said = |name: &str| {
            let theirs = theirs.and_then(|theirs| theirs.get(&MarkedYaml::value_from_str(name)));
            let endpoints = theirs.and_then(|entry| entry.data.as_mapping_get("endpoint"));
            endpoints.and_then(|list| list.data.as_sequence_get(0)?.data.as_str()) == Some(&*self.url)
        };
        let own = theirs.into_iter().flatten().filter_map(|(name, _)| name.data.as_str());
        let elsewhere: Vec<String> = own.filter(|name| !said(name)).map(str::to_owned).collect();
        let names: Vec<&str> = self.names.iter().copied().filter(|name| !said(name)).collect();
        if names.is_empty() {
            return Ok(Merged { text: text.to_owned(), elsewhere });
        }
        if let Some(name) = names.iter().find(|name| elsewhere.iter().any(|other| other == *name)) {
            return Err(Refusal::InTheWay(format!("has mirrors for {name} already")));
        }
        let missing = Mirrors { url: self.url.clone(), names };
        let block = |body: &str, margin: &str| mark::block(runtime, body, margin, makes_file);
        let (line, block) = if let Some((name, _)) = theirs.and_then(|theirs| theirs.iter().next()) {
            let margin = " ".repeat(name.span.start.col());
            (name.span.start.line(), block(&missing.lines(&margin, "  "), &margin))
        } else if let Some((key, _)) = mirrors {
            let margin = " ".repeat(key.span.start.col() + 2);
            (key.span.start.line() + 1, block(&missing.lines(&margin, "  "), &margin))
        } else {
            let first = mapping.and_then(|mapping| mapping.iter().next());
            let (line, margin) =
                first.map_or((empty_line(text), 0), |(key, _)| (key.span.start.line(), key.span.start.col()));
            let margin = " ".repeat(margin);
            let body = format!("{margin}mirrors:\n{}", missing.lines(&format!("{margin}  "), "  "));
            (line, block(&body, &margin))
        };
        let merged = insert(text, line, &block);
        let said = matches!(load(&merged), Ok(Some(read)) if missing.is_all_there(&read, document.as_ref()));
        let taken_back = mark::cut(runtime, &merged).is_some_and(|cut| cut.rest == text);
        if said && taken_back { Ok(Merged { text: merged, elsewhere }) } else { Err(unusual()) }
    }

    /// Whether `merged` says what `before` said, and what we want.
    fn is_all_there(&self, merged: &MarkedYaml, before: Option<&MarkedYaml>) -> bool {
        let mut rest = merged.clone();
        let Some(mapping) = rest.data.as_mapping_mut() else {
            return false;
        };
        let key = MarkedYaml::value_from_str("mirrors");
        let Some(mirrors) = mapping.get_mut(&key).and_then(|value| value.data.as_mapping_mut()) else {
            return false;
        };
        for name in &self.names {
            let Some(entry) = mirrors.remove(&MarkedYaml::value_from_str(name)) else {
                return false;
            };
            let endpoints = entry.data.as_mapping_get("endpoint").and_then(|list| list.data.as_vec());
            if !endpoints.is_some_and(|list| list.len() == 1 && list[0].data.as_str() == Some(&self.url)) {
                return false;
            }
        }
        if mirrors.is_empty() {
            let former = before.and_then(|before| before.data.as_mapping_get("mirrors"));
            match (former, mapping.get_mut(&key)) {
                (Some(former), Some(value)) => *value = former.clone(),
                _ => drop(mapping.remove(&key)),
            }
        }
        match before.filter(|before| !before.data.is_null()) {
            Some(before) => rest == *before,
            None => rest.data.as_mapping().is_some_and(|rest| rest.is_empty()),
        }
    }
}

fn unusual() -> Refusal {
    Refusal::InTheWay("is written in a way that lines cannot be added to safely".to_owned())
}

/// The one document of a file; None where it is empty.
fn load(text: &str) -> Result<Option<MarkedYaml<'_>>, Refusal> {
    let mut documents = MarkedYaml::load_from_str(text)
        .map_err(|error| Refusal::Malformed(format!("is no YAML: {error}")))?;
    match documents.len() {
        0 | 1 => Ok(documents.pop()),
        _ => Err(Refusal::InTheWay("holds several documents".to_owned())),
    }
}

/// Where in a file without content a mapping can begin: behind `---`, or at once.
fn empty_line(text: &str) -> usize {
    text.lines().position(|line| line.trim_end() == "---").map_or(1, |line| line + 2)
}

/// Puts whole lines before a line, which are counted from 1.
fn insert(text: &str, line: usize, lines: &str) -> String {
    let at: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let (before, after) = text.split_at(at);
    format!("{before}{lines}{after}")
}
