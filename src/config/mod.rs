//! Configuration: the file, under the command line, to [`Settings`] that are valid by construction.
//!
//! - `value`: a TOML document with the line of everything in it
//! - `kind`, `address`, `units`, `pattern`, `name_pattern`: what a value can be, and the words for it
//! - `keys`: reads a table key by key; errors, suggestions and provenance come from here
//! - `document`, `access`, `registry`, `secret`, `users`, `server_tls`, `later`: which keys there are, and what has to hold between them
//! - `origin`: what is in force and where it came from
//!
//! Rule of the room: a key is accepted only if it has an effect. No message holds a secret.

mod access;
mod address;
mod document;
mod error;
mod keys;
mod kind;
mod later;
mod name_pattern;
mod origin;
mod pattern;
mod registry;
mod secret;
mod server_tls;
mod settings;
mod units;
mod users;
mod value;

use std::io;
use std::path::{Path, PathBuf};

pub use address::Listen;
pub use error::{ConfigError, Problem};
use keys::{Findings, Keys};
pub use name_pattern::{InvalidNamePattern, NamePattern};
pub use origin::{InForce, Origin};
pub use pattern::{InvalidPattern, RegistryPattern};
pub use secret::Secret;
pub use server_tls::ServerTls;
pub use settings::{
    Abandoned, AccessSettings, Age, ClientTls, Credentials, Log, LogFormat, Prefetch, Proxy,
    RegistryDefaults, RegistrySettings, Scheme, Settings, Unlisted,
};
pub use users::Users;
use value::Table;

/// Read when it is there and no other file is named.
pub const DEFAULT_FILE: &str = "/etc/ociregistry.toml";

/// What an option of the command line says about a key of the top level.
#[derive(Clone, Debug)]
pub struct Override {
    pub key: &'static str,
    /// `--port`
    pub option: &'static str,
    pub text: String,
}

/// What is in force.
#[derive(Debug)]
pub struct Configuration {
    pub settings: Settings,
    pub in_force: InForce,
    /// What works, but is hardly wanted.
    pub warnings: Vec<Problem>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Configuration {
    /// Command line over file over defaults. A file that is named has to be there, the default one has not.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(Some((path, &text)), overrides),
            Err(e) if e.kind() == io::ErrorKind::NotFound && file.is_none() => Self::read(None, overrides),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    fn read(file: Option<(&Path, &str)>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let path = file.map(|(path, _)| path.to_owned());
        let mut findings = Findings::new(path.clone());
        let table = match file.map_or(Ok(Table::default()), |(_, text)| Table::parse(text)) {
            Ok(table) => table,
            Err(faults) => {
                for (line, what) in faults {
                    findings.problem(Origin::File(line), String::new(), what);
                }
                return Err(ConfigError::Invalid(findings.into_problems()));
            }
        };
        let settings = Keys::document(&table, overrides, &mut findings, document::read);
        let in_force = findings.in_force.clone();
        let warnings = std::mem::take(&mut findings.warnings);
        let problems = findings.into_problems();
        match settings {
            Some(settings) if problems.is_empty() => Ok(Self { settings, in_force, warnings, file: path }),
            _ => Err(ConfigError::Invalid(problems)),
        }
    }
}

#[cfg(test)]
mod tests;
