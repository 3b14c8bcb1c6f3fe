//! What may need root, and so comes before the daemon becomes an account of its own: sockets, keys, the log file, and
//! the folder of the cache.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;

use super::account::Account;
use super::sockets::Sockets;
use super::{ServeError, log};
use crate::config::{Access, Settings, drop_in};
use crate::serve::server_config;

/// What is open, and who goes on with it.
pub struct Privileged {
    pub account: Account,
    pub sockets: Sockets,
    pub tls: Option<Arc<ServerConfig>>,
}

impl Privileged {
    /// Opens it, and becomes the account, for good. To be called before there is another thread.
    pub fn open(settings: &Settings, account: Account) -> Result<Self, ServeError> {
        let sockets = Sockets::open(settings, &account)?;
        let tls = settings.server_tls.as_ref().map(server_config).transpose()?;
        make_folder(&settings.image_path, &account)?;
        account.assume()?;
        Ok(Self { account, sockets, tls })
    }
}

pub fn open_log(settings: &Settings, account: &Account) -> Result<log::Output, ServeError> {
    let path = settings.log.file.as_deref();
    let is_new = path.is_some_and(|path| !path.exists());
    let failed = |source| {
        let hint = path.map(|path| drop_in(path, Access::Append, &source)).unwrap_or_default();
        let path = path.map_or_else(|| "of the journal".to_owned(), |path| path.display().to_string());
        ServeError::Log { path, source, hint }
    };
    let output = log::Output::open(&settings.log).map_err(failed)?;
    match path {
        Some(path) if is_new => account.give(path).map_err(failed)?,
        _ => {}
    }
    Ok(output)
}

/// What only root can do for the store; it makes all else itself.
pub fn make_folder(path: &Path, account: &Account) -> Result<(), ServeError> {
    account.make_folder(path).map_err(|source| {
        let source = crate::store::StoreError { operation: "create folder", path: path.to_owned(), source };
        ServeError::Store { source: source.into(), hint: String::new() }
    })
}
