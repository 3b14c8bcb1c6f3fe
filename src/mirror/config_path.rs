//! Whether containerd's CRI, which pulls for Kubernetes, reads a folder of `hosts.toml`: `config_path` in its
//! config.toml, a file that comes in three versions and may import others.

use std::path::{Component, Path, PathBuf};

use globset::Glob;
use toml::{Table, Value};

use super::{MirrorError, Root, indent};

const FILE: &str = "/etc/containerd/config.toml";
/// The folder that everybody uses, and nerdctl without being told to.
pub const CERTS_D: &str = "/etc/containerd/certs.d";

/// What counts for the CRI, after imports.
#[derive(Debug)]
pub struct Config {
    /// None where there is no file.
    version: Option<i64>,
    config_path: Option<String>,
    /// The older ways to say the same, with which the CRI does not start when there is a `config_path`.
    older: Vec<&'static str>,
    disabled: bool,
}

pub fn read(root: &Root) -> Result<Config, MirrorError> {
    let mut config = Config { version: None, config_path: None, older: Vec::new(), disabled: false };
    let mut paths = vec![FILE.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let Some(text) = root.read(&path)? else {
            continue;
        };
        let table: Table = toml::from_str(&text).map_err(|error| MirrorError::Malformed {
            path: root.place(&path),
            what: error.to_string().trim_end().to_owned(),
        })?;
        config.add(&table);
        for import in imports(root, &path, &table)? {
            if !paths.contains(&import) {
                paths.push(import);
            }
        }
    }
    Ok(config)
}

impl Config {
    /// A later file counts more. Before version 3 it replaces all that was said of a plugin.
    fn add(&mut self, table: &Table) {
        let said = table.get("version").and_then(Value::as_integer);
        let version = said.or(self.version).unwrap_or(1);
        self.version = self.version.or(Some(version));
        let strings = table.get("disabled_plugins").and_then(Value::as_array).into_iter().flatten();
        self.disabled |= strings
            .filter_map(Value::as_str)
            .any(|name| matches!(name, "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.images"));
        let Some(cri) = table
            .get("plugins")
            .and_then(|plugins| plugins.get(plugin(version)))
            .filter(|cri| version < 3 || cri.get("registry").is_some())
        else {
            return;
        };
        let registry = |key: &str| cri.get("registry").and_then(|registry| registry.get(key));
        let path = registry("config_path").and_then(Value::as_str).filter(|path| !path.is_empty());
        if path.is_some() || version < 3 {
            self.config_path = path.map(str::to_owned);
        }
        if version < 3 {
            self.older.clear();
        }
        let filled = |value: Option<&Value>| value.and_then(Value::as_table).is_some_and(|t| !t.is_empty());
        if filled(registry("mirrors")) {
            self.older.push("registry.mirrors");
        }
        let configs = registry("configs").and_then(Value::as_table).into_iter().flatten();
        if configs.into_iter().any(|(_, config)| filled(config.get("tls"))) {
            self.older.push("registry.configs.….tls");
        }
    }

    /// Where `hosts.toml` belongs.
    pub fn folder(&self) -> &str {
        let first =
            self.config_path.as_deref().and_then(|list| list.split(':').find(|path| !path.is_empty()));
        first.unwrap_or(CERTS_D)
    }

    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.disabled {
            notes.push(format!(
                "{FILE} disables containerd's CRI: this holds for nerdctl, and for ctr with --hosts-dir"
            ));
        }
        if self.is_list() && self.version < Some(3) {
            notes.push(format!(
                "config_path in {FILE} is a list of folders: containerd 2.1 and later take one folder only"
            ));
        }
        notes
    }

    /// Why the CRI would not read that folder, and how it does.
    pub fn obstacles(&self, root: &Root) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.disabled {
            return obstacles;
        }
        let file = root.place(FILE);
        let (file, folder) = (file.display(), self.folder());
        if self.config_path.is_none() {
            obstacles.push(format!(
                "containerd's CRI (Kubernetes) does not read {folder}: config_path is not set. In {file} want\n{}\n\
                 and then: systemctl restart containerd (containers go on running)",
                self.wanted(folder)
            ));
        } else if self.is_list() && self.version >= Some(3) {
            obstacles.push(format!(
                "containerd's CRI takes a config_path of several folders for the name of one, and reads none. In \
                 {file} want\n{}\nand then: systemctl restart containerd (containers go on running)",
                self.wanted(folder)
            ));
        }
        for older in &self.older {
            obstacles.push(format!(
                "{file} has {older} too, and containerd's CRI does not start with both: remove it, and say in \
                 {folder}/…/hosts.toml what it said"
            ));
        }
        obstacles
    }

    fn is_list(&self) -> bool {
        self.config_path.as_deref().is_some_and(|path| path.contains(':'))
    }

    fn wanted(&self, folder: &str) -> String {
        let lines = |version: i64| {
            format!("[plugins.\"{}\".registry]\n  config_path = \"{folder}\"", plugin(version))
        };
        match self.version {
            Some(1) => indent(&format!("[plugins.cri.registry]\n  config_path = \"{folder}\"")),
            Some(version) => indent(&lines(version)),
            None => indent(&format!(
                "# containerd 2.x:\nversion = 3\n{}\n\n# containerd 1.x:\nversion = 2\n{}",
                lines(3),
                lines(2)
            )),
        }
    }
}

/// What the CRI's pulling is called in this version of the file.
fn plugin(version: i64) -> &'static str {
    match version {
        ..=1 => "cri",
        2 => "io.containerd.grpc.v1.cri",
        3.. => "io.containerd.cri.v1.images",
    }
}

/// The files that a file imports; relative to it, with `*` in the last segment.
fn imports(root: &Root, from: &str, table: &Table) -> Result<Vec<String>, MirrorError> {
    let mut found = Vec::new();
    let patterns = table.get("imports").and_then(Value::as_array).into_iter().flatten();
    for pattern in patterns.filter_map(Value::as_str) {
        let path = clean(&Path::new(from).parent().unwrap_or(Path::new("/")).join(pattern));
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let (folder, name) = (folder.to_string_lossy(), name.to_string_lossy());
        match Glob::new(&name) {
            Ok(glob) if name.contains(['*', '?', '[']) => {
                let glob = glob.compile_matcher();
                let names = root.list(&folder)?;
                found.extend(
                    names.iter().filter(|name| glob.is_match(name)).map(|name| format!("{folder}/{name}")),
                );
            }
            _ => found.push(format!("{folder}/{name}")),
        }
    }
    Ok(found)
}

/// Without `..`, so that a file has one name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}
