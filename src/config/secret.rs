//! Secrets, and the four ways to give one.

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

/// Reads the secret `x` from the one that is given of `x` (the value itself), `x_file` (a file, less the line
/// break at its end), `x_from_env` (a variable of the environment) and `x_credential` (a file under
/// `$CREDENTIALS_DIRECTORY`). None when a problem was reported, `Some(None)` when there is no secret.
pub fn read(keys: &mut Keys, name: &str) -> Option<Option<Secret>> {
    let [file_key, env_key, credential_key] =
        ["file", "from_env", "credential"].map(|suffix| format!("{name}_{suffix}"));
    let value = keys.read_extra(name, "", &SECRET).map(|text| Some(text).filter(|text| !text.is_empty()));
    let file = keys.read_extra(&file_key, "", &FILE);
    let variable = keys.read_extra(&env_key, "", &NAME);
    let credential = keys.read_extra(&credential_key, "", &NAME);
    let (key, found) = match (value?, file?, variable?, credential?) {
        (None, None, None, None) => return Some(None),
        (Some(text), None, None, None) => (name, Ok(text)),
        (None, Some(path), None, None) => {
            if fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
                keys.warn(&file_key, &format!("{}: can be read by every user of this host", path.display()));
            }
            (&*file_key, from_file(&path))
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
        text if text.is_empty() => Err("is empty".to_owned()),
        text if text.contains(char::is_control) => {
            Err("has a line break or control character in it".to_owned())
        }
        text => Ok(Secret(text)),
    });
    match checked {
        Ok(secret) => {
            keys.note_hidden(key, secret.reveal().as_bytes());
            Some(Some(secret))
        }
        Err(what) => {
            keys.refuse(key, &format!("the secret {what}"));
            None
        }
    }
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

fn from_environment(variable: &str) -> Result<String, String> {
    std::env::var(variable).map_err(|e| match e {
        std::env::VarError::NotPresent => format!("is missing: no variable {variable:?} in the environment"),
        std::env::VarError::NotUnicode(_) => format!("in the variable {variable:?} is not UTF-8"),
    })
}

fn from_credential(name: &str) -> Result<String, String> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) => from_file(&Path::new(&folder).join(name)),
        None => {
            Err("is missing: $CREDENTIALS_DIRECTORY is not set, systemd sets it for its services".to_owned())
        }
    }
}
