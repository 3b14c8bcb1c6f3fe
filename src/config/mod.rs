//! Configuration: the file, under the command line, to [`Settings`] that are valid by construction.
//!
//! - `value`: a TOML document with the line of everything in it
//! - `kind`, `address`, `units`, `pattern`, `name_pattern`: what a value can be, and the words for it
//! - `keys`: reads a table key by key; errors, suggestions and provenance come from here
//! - `document`, `access`, `admin`, `registry`, `care`, `preload`, `secret`, `users`, `server_tls`, `later`: which keys there are, and what
//!   has to hold between them
//! - `image_list`: lists of images in files
//! - `confined`: what a hardened unit keeps from us, and what mends that
//! - `origin`, `changes`: what is in force and where it came from, and what a reload changes
//!
//! Rule of the room: a key is accepted only if it has an effect. No message holds a secret.

mod access;
mod address;
mod admin;
mod care;
mod changes;
mod confined;
mod document;
mod error;
mod image_list;
mod keys;
mod kind;
mod later;
mod name_pattern;
mod origin;
mod pattern;
mod pem;
mod preload;
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
pub use changes::Change;
pub use confined::{Access, drop_in};
pub use error::{ConfigError, Problem};
pub use image_list::{images_in, read_images};
use keys::{Findings, Keys};
pub use name_pattern::{InvalidNamePattern, NamePattern};
pub use origin::{InForce, Origin};
pub use pattern::{InvalidPattern, RegistryPattern};
pub use pem::PemFile;
pub use secret::{Reader, Secret};
pub use server_tls::ServerTls;
pub use settings::{
    Abandoned, AccessSettings, Account, AdminSettings, Age, CheckSettings, ClientTls, Credentials, Log,
    LogFormat, Prefetch, Preload, PreloadSettings, Proxy, PruneBy, PruneSettings, RegistryDefaults,
    RegistrySettings, Scheme, Settings, Share, Unlisted,
};
pub use units::{duration, size};
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

/// Where a configuration is read, and read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that is named; none is the default one, where there is one.
    pub file: Option<PathBuf>,
    pub overrides: Vec<Override>,
    pub reader: Reader,
}

impl Source {
    /// Command line over file over defaults. A file that is named has to be there, the default one has not.
    pub fn load(&self) -> Result<Configuration, ConfigError> {
        let file = self.text()?;
        let file = file.as_ref().map(|(path, text)| (*path, text.as_str()));
        Configuration::read(file, &self.overrides, self.reader)
    }

    /// The folder of the image cache, whatever else is wrong, and without a look at the files that are named.
    pub fn image_path(&self) -> Result<PathBuf, ConfigError> {
        let file = self.text()?;
        let file = file.as_ref().map(|(path, text)| (*path, text.as_str()));
        match parse(file, &self.overrides, self.reader, document::image_path)? {
            (Some(path), _) => Ok(path),
            (None, findings) => Err(ConfigError::Invalid(findings.into_problems())),
        }
    }

    fn text(&self) -> Result<Option<(&Path, String)>, ConfigError> {
        let path = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.file.is_none() => Ok(None),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub settings: Settings,
    pub in_force: InForce,
    /// What works, but is hardly wanted.
    pub warnings: Vec<Problem>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Configuration {
    /// See [`Source::load`].
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let (file, overrides) = (file.map(Path::to_owned), overrides.to_vec());
        Source { file, overrides, reader: Reader::Daemon }.load()
    }

    /// What is different in a newer one, in the order of the keys. No secret is in it.
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        changes::between(&self.in_force, &newer.in_force)
    }

    fn read(
        file: Option<(&Path, &str)>,
        overrides: &[Override],
        reader: Reader,
    ) -> Result<Self, ConfigError> {
        let (settings, mut findings) = parse(file, overrides, reader, document::read)?;
        let in_force = findings.in_force.clone();
        let warnings = std::mem::take(&mut findings.warnings);
        let problems = findings.into_problems();
        match settings {
            Some(settings) if problems.is_empty() => {
                let file = file.map(|(path, _)| path.to_owned());
                Ok(Self { settings, in_force, warnings, file })
            }
            _ => Err(ConfigError::Invalid(problems)),
        }
    }
}

/// Reads a document that is TOML; whether it is right is in the findings.
fn parse<R>(
    file: Option<(&Path, &str)>,
    overrides: &[Override],
    reader: Reader,
    read: impl FnOnce(&mut Keys) -> Option<R>,
) -> Result<(Option<R>, Findings), ConfigError> {
    let mut findings = Findings::new(file.map(|(path, _)| path.to_owned()), reader);
    match file.map_or(Ok(Table::default()), |(_, text)| Table::parse(text)) {
        Ok(table) => {
            let read = Keys::document(&table, overrides, &mut findings, read);
            Ok((read, findings))
        }
        Err(faults) => {
            for (line, what) in faults {
                findings.problem(Origin::File(line), String::new(), what);
            }
            Err(ConfigError::Invalid(findings.into_problems()))
        }
    }
}

#[cfg(test)]
mod tests;
