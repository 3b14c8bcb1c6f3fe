//! Pointing container runtimes at the daemon: what their configuration has to say, written, shown and taken back.
//!
//! - `containerd`, `podman`, `docker`, `k3s`: one runtime each: from what is wanted and what is there to a [`Plan`]
//! - `config_path`: whether containerd's CRI reads the folder at all; `registries_yaml`: lines of ours in k3s's file
//! - `address`: where runtimes reach the daemon; `probe`: whether it answers there
//! - `mark`: how we know again what we wrote; `members`: places in a JSON text; `root`: reading, and where
//!   links lead; `files`: replacing
//!
//! Rules of the room: a plan is made without changing anything. What somebody else wrote is not touched: where it
//! is in the way the plan is an error that says what to add by hand. Taking back gives the former bytes.

mod address;
mod config_path;
mod containerd;
mod docker;
mod error;
mod files;
mod k3s;
mod mark;
mod members;
mod podman;
mod probe;
mod registries_yaml;
mod root;

pub use address::{Address, InvalidAddress};
pub use error::MirrorError;
pub use files::Change;
pub use probe::{Unanswered, probe};
pub use root::Root;

use mark::Author;

use crate::config::Settings;
use crate::oci::Registry;

/// What pulls images on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Containerd,
    /// And skopeo, buildah, CRI-O.
    Podman,
    Docker,
    K3s,
    Rke2,
}

impl Runtime {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// What makes this runtime pull as wanted, and nothing else that we wrote.
    pub fn enable(self, wanted: &Wanted, root: &Root) -> Result<Plan, MirrorError> {
        match self {
            Self::Containerd => containerd::enable(wanted, root),
            Self::Podman => podman::enable(wanted, root),
            Self::Docker => docker::enable(wanted, root),
            Self::K3s | Self::Rke2 => k3s::enable(self, wanted, root),
        }
    }

    /// What takes back all that we wrote for it. `address` is how docker's is known again, whose file has no
    /// comments.
    pub fn disable(self, address: &Address, root: &Root) -> Result<Plan, MirrorError> {
        match self {
            Self::Containerd => containerd::disable(root),
            Self::Podman => podman::disable(root),
            Self::Docker => docker::disable(address, root),
            Self::K3s | Self::Rke2 => k3s::disable(self, root),
        }
    }
}

/// How a runtime shall pull.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub address: Address,
    /// Through the daemon; none of them means all that the runtime can.
    pub registries: Vec<Registry>,
    /// Whether it turns to the registry itself when the daemon fails.
    pub fallback: bool,
    pub settings: &'a Settings,
}

/// What is to be done, and what else is to be known.
#[derive(Debug, Default)]
pub struct Plan {
    /// Every file that has to do with it, also those that are as they should be.
    pub changes: Vec<Change>,
    /// What is left out, and why.
    pub notes: Vec<String>,
    /// Why the runtime would not pull as wanted though the files are in place, and what mends it.
    pub obstacles: Vec<String>,
    /// What makes the runtime see a change.
    pub afterwards: &'static str,
}

impl Plan {
    /// Whether anything is left to do.
    pub fn is_done(&self) -> bool {
        self.changes.iter().all(Change::is_done)
    }

    /// Does it, file by file. An error leaves those before it changed.
    pub fn apply(&self) -> Result<(), MirrorError> {
        self.changes.iter().try_for_each(Change::apply)
    }
}

/// A TOML file that is all ours, or not there. Anybody else's in its place will do if it says the same, and is an
/// error otherwise, with `body` as the advice.
fn own_file(runtime: Runtime, root: &Root, path: &str, body: &str) -> Result<Change, MirrorError> {
    let (place, before) = (root.place(path), root.read(path)?);
    match before.as_deref().map(|text| mark::author(runtime, text)) {
        Some(Author::Changed) => Err(MirrorError::Changed { path: place }),
        Some(Author::Others) if before.as_deref().is_some_and(|text| is_same(text, body)) => {
            Change::new(root, path, before.clone(), before)
        }
        Some(Author::Others) => Err(MirrorError::Foreign {
            path: place,
            what: "was not written by ociregistry".to_owned(),
            advice: indent(body),
        }),
        Some(Author::Us) | None => Change::new(root, path, before, Some(mark::file(runtime, body))),
    }
}

fn is_same(text: &str, body: &str) -> bool {
    let read = |text| toml::from_str::<toml::Table>(text).ok();
    read(text).is_some_and(|table| Some(table) == read(body))
}

/// Takes it away; None where it is not ours.
fn take_back_file(runtime: Runtime, root: &Root, path: &str) -> Result<Option<Change>, MirrorError> {
    let (place, before) = (root.place(path), root.read(path)?);
    match before.as_deref().map(|text| mark::author(runtime, text)) {
        Some(Author::Changed) => Err(MirrorError::Changed { path: place }),
        Some(Author::Us) => Change::new(root, path, before, None).map(Some),
        Some(Author::Others) | None => Ok(None),
    }
}

/// For a text inside a message.
fn indent(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
