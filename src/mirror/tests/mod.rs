//! Each runtime on the root of a file system of its own.

mod containerd;
mod docker;
mod k3s;
mod podman;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config::Configuration;

/// A host's files.
struct Host {
    dir: TempDir,
    settings: Settings,
}

/// What a test asks for.
#[derive(Clone, Copy)]
struct Ask<'a> {
    registries: &'a [&'a str],
    fallback: bool,
    address: &'a str,
}

const ALL: Ask = Ask { registries: &[], fallback: true, address: "http://127.0.0.1:8080" };

fn of<'a>(registries: &'a [&'a str]) -> Ask<'a> {
    Ask { registries, ..ALL }
}

impl Host {
    fn new() -> Self {
        Self::configured("")
    }

    fn configured(config: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        let settings = Configuration::load(Some(file.path()), &[]).unwrap().settings;
        Self { dir: tempfile::tempdir().unwrap(), settings }
    }

    fn root(&self) -> Root {
        Root::new(self.dir.path().to_owned())
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.root().place(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn read(&self, path: &str) -> String {
        self.root().read(path).unwrap().unwrap_or_else(|| panic!("{path}: {:?}", self.tree().keys()))
    }

    /// Every file and its text, and every folder.
    fn tree(&self) -> BTreeMap<String, String> {
        fn walk(folder: &Path, from: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = format!("/{}", path.strip_prefix(from).unwrap().display());
                if path.is_dir() {
                    found.insert(format!("{name}/"), String::new());
                    walk(&path, from, found);
                } else {
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.dir.path(), self.dir.path(), &mut found);
        found
    }

    fn plan(&self, runtime: Runtime, ask: Ask) -> Result<Plan, MirrorError> {
        let wanted = Wanted {
            address: ask.address.parse().unwrap(),
            registries: ask.registries.iter().map(|name| name.parse().unwrap()).collect(),
            fallback: ask.fallback,
            settings: &self.settings,
        };
        runtime.enable(&wanted, &self.root())
    }

    /// Twice, of which the second time has nothing to do.
    fn enable(&self, runtime: Runtime, ask: Ask) -> Plan {
        let plan = self.plan(runtime, ask).unwrap();
        assert!(!plan.is_done());
        plan.apply().unwrap();
        let (again, tree) = (self.plan(runtime, ask).unwrap(), self.tree());
        assert!(again.is_done(), "{again:?}");
        again.apply().unwrap();
        assert_eq!(self.tree(), tree);
        plan
    }

    fn disable(&self, runtime: Runtime) -> Plan {
        let plan = runtime.disable(&ALL.address.parse().unwrap(), &self.root()).unwrap();
        plan.apply().unwrap();
        plan
    }

    /// Refused, with nothing changed and a text that names all of these.
    #[track_caller]
    fn refuses(&self, runtime: Runtime, ask: Ask, says: &[&str]) {
        let tree = self.tree();
        let error = self.plan(runtime, ask).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert_eq!(self.tree(), tree);
    }
}
