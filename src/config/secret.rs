//! Secrets, and the four ways to give one.

use std::env::VarError;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fmt, fs};

use super::keys::Keys;
use super::kind::{FILE, NAME, SECRET};
use super::{Access, drop_in};

/// A value that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who reads a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// It needs every secret.
    #[default]
    Daemon,
    /// It can do without those that only the service is given: by systemd, or in its environment.
    Command,
}

/// A secret that the configuration names.
pub enum Given {
    Here(Secret),
    /// To the service, and not to the command that reads this.
    Withheld,
}

/// Why there is no secret, in words that follow "the secret".
enum Lack {
    /// Only the service need have it.
    Withheld(String),
    Wrong(String),
}

/// Reads the secret `x` from the one that is given of `x` (the value itself), `x_file` (a file, less the line
/// break at its end), `x_from_env` (a variable of the environment) and `x_credential` (a file under
/// `$CREDENTIALS_DIRECTORY`). None when a problem was reported, `Some(None)` when there is no secret.
pub fn read(keys: &mut Keys, name: &str) -> Option<Option<Given>> {
    let [file_key, env_key, credential_key] =
        ["file", "from_env", "credential"].map(|suffix| format!("{name}_{suffix}"));
    let value = keys.read_extra(name, "", &SECRET).map(|text| Some(text).filter(|text| !text.is_empty()));
    let file = keys.read_extra(&file_key, "", &FILE);
    let variable = keys.read_extra(&env_key, "", &NAME);
    let credential = keys.read_extra(&credential_key, "", &NAME);
    let (key, found) = match (value?, file?, variable?, credential?) {
        (None, None, None, None) => return Some(None),
        (Some(text), None, None, None) => {
            warn_if_in_the_open(keys, name);
            (name, Ok(text))
        }
        (None, Some(path), None, None) => {
            if can_be_read_by_all(&path) {
                keys.warn(&file_key, &format!("{}: can be read by every user of this host", path.display()));
            }
            (&*file_key, from_file(&path).map_err(Lack::Wrong))
        }
        (None, None, Some(variable), None) => (&*env_key, from_environment(&variable)),
        (None, None, None, Some(credential)) => (&*credential_key, from_credential(&credential)),
        _ => {
            let what =
                format!("given more than once, want one of {name}, {file_key}, {env_key}, {credential_key}");
            let last = [&*credential_key, &env_key, &file_key].into_iter().find(|key| keys.is_given(key));
            keys.refuse(last.unwrap_or(name), &what);
            return None;
        }
    };
    let checked = found.and_then(|text| match text {
        text if text.is_empty() => Err(Lack::Wrong("is empty".to_owned())),
        text if text.contains(char::is_control) => {
            Err(Lack::Wrong("has a line break or control character in it".to_owned()))
        }
        text => Ok(Secret(text)),
    });
    match checked {
        Ok(secret) => {
            keys.note_hidden(key, secret.reveal().as_bytes());
            Some(Some(Given::Here(secret)))
        }
        Err(Lack::Withheld(what)) if keys.reader() == Reader::Command => {
            keys.warn(key, &format!("the secret {what}: this command goes without it"));
            Some(Some(Given::Withheld))
        }
        Err(Lack::Withheld(what) | Lack::Wrong(what)) => {
            keys.refuse(key, &format!("the secret {what}"));
            None
        }
    }
}

/// A key's value is a secret: the file that it stands in should be the daemon's only.
pub fn warn_if_in_the_open(keys: &mut Keys, key: &str) {
    let open = keys.file().filter(|path| can_be_read_by_all(path)).map(|path| path.display().to_string());
    if let Some(path) = open {
        keys.warn(
            key,
            &format!("a secret, and every user of this host can read {path}: chmod o-r (the daemon's group has to read it)"),
        );
    }
}

fn can_be_read_by_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

fn from_file(path: &Path) -> Result<String, String> {
    let mut text = fs::read_to_string(path).map_err(|error| {
        format!("in {} cannot be read: {error}{}", path.display(), drop_in(path, Access::Read, &error))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn from_environment(variable: &str) -> Result<String, Lack> {
    std::env::var(variable).map_err(|e| match e {
        VarError::NotPresent => {
            Lack::Withheld(format!("is missing: no variable {variable:?} in the environment"))
        }
        VarError::NotUnicode(_) => Lack::Wrong(format!("in the variable {variable:?} is not UTF-8")),
    })
}

fn from_credential(name: &str) -> Result<String, Lack> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) => from_file(&Path::new(&folder).join(name)).map_err(Lack::Wrong),
        None => Err(Lack::Withheld(
            "is missing: $CREDENTIALS_DIRECTORY is not set, systemd sets it for its services".to_owned(),
        )),
    }
}
