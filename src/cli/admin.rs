//! How our own commands find the daemon, and what they do where there is none.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;

use super::{Error, GlobalOptions};
use crate::admin::command::{Cache, Command};
use crate::admin::{AdminError, Client, FILE_NAME};
use crate::daemon::become_owner;
use crate::store::care::Pace;
use crate::store::{Holder, Store, StoreError};

/// Where the packaged service takes commands.
const SERVICE: &str = "/run/ociregistry";

/// For commands that talk to the daemon.
#[derive(Args, Debug)]
pub struct AdminOptions {
    /// The daemon's admin socket [default: the one that the lock file in the image cache names]
    #[arg(long, value_name = "FILE")]
    admin_socket: Option<PathBuf>,
}

impl AdminOptions {
    /// The daemon that writes to the image cache. Only the cache's folder is read in the configuration: a command is
    /// not kept from the daemon by an error in the rest of it.
    pub fn client(&self, global: &GlobalOptions) -> Result<Client, Error> {
        if let Some(path) = &self.admin_socket {
            return Ok(Client::new(path));
        }
        // When it cannot be found by the configuration or the cache, it is most likely the service.
        let service = || Some(PathBuf::from(SERVICE).join(FILE_NAME)).filter(|path| path.exists());
        let folder = match global.source(Vec::new()).image_path() {
            Ok(folder) => folder,
            Err(error) => return service().map(|path| Client::new(&path)).ok_or_else(|| error.into()),
        };
        let found = match Holder::of(&folder) {
            Ok(found) => found,
            Err(error) if error.source.kind() == ErrorKind::PermissionDenied => {
                return service_of(&folder, error);
            }
            Err(error) => {
                let error = Error::NoDaemon(error.to_string());
                return service().map(|path| Client::new(&path)).ok_or(error);
            }
        };
        match found {
            Some(Holder { admin_socket: Some(path), folder, .. }) => Ok(Client::new(&path).of(folder)),
            Some(Holder { pid, admin_socket: None, .. }) if Holder::is_there(&folder) => {
                Err(Error::NoDaemon(format!(
                    "process {pid} writes to {}, and takes no commands: it is a command that will end, or a daemon \
                     whose log says why",
                    folder.display()
                )))
            }
            _ => Err(Error::NoDaemon(format!(
                "no daemon serves from {} (another folder is named by --image-path)",
                folder.display()
            ))),
        }
    }

    /// The daemon that writes to the image cache, if there is one, for commands that can do without.
    pub fn running(&self, global: &GlobalOptions) -> Result<Option<Client>, Error> {
        if let Some(path) = &self.admin_socket {
            let daemon = Client::new(path);
            return Ok(daemon.reach().map(|()| Some(daemon))?);
        }
        let Some(daemon) = daemon_of(&global.image_path()?)? else { return Ok(None) };
        match daemon.reach() {
            Ok(()) => Ok(Some(daemon)),
            Err(error) if error.is_nobody() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has a command done: by the daemon that writes to the image cache, or where there is none by this process, on
    /// what `open` opens of the cache's folder. `each` hears of each item as it comes, and may end it.
    pub fn command<C: Command>(
        &self,
        global: &GlobalOptions,
        command: &C,
        open: impl FnOnce(&Path) -> Result<C::On, Error>,
        each: &mut dyn FnMut(C::Item) -> Result<(), Error>,
    ) -> Result<C::Done, Error> {
        let note = &mut |text: &str| {
            // Nobody may be listening any more.
            let _ = writeln!(io::stderr(), "{text}");
        };
        if let Some(path) = &self.admin_socket {
            return Client::new(path).command(command, note, each);
        }
        let folder = global.image_path()?;
        if let Some(daemon) = daemon_of(&folder)? {
            match daemon.command(command, note, each) {
                // It ended without a word; whoever writes now has the lock.
                Err(Error::Admin(error)) if error.is_nobody() => {}
                result => return result,
            }
        }
        let cache = open(&folder)?;
        let mut failed = None;
        let done = command.run(&cache, &Pace::free(), &mut |item| match each(item) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        cache.release();
        failed.map_or(Ok(()), Err)?;
        Ok(done?)
    }
}

/// A cache's store, for a command that changes it.
pub fn open_store(folder: &Path) -> Result<Store, Error> {
    become_owner(folder)?;
    Ok(Store::open_existing(folder)?)
}

/// The one that a cache's lock file names; it may have ended since.
fn daemon_of(folder: &Path) -> Result<Option<Client>, Error> {
    match Holder::of(folder) {
        Ok(Some(Holder { admin_socket: Some(path), folder, .. })) => Ok(Some(Client::new(&path).of(folder))),
        Ok(_) => Ok(None),
        Err(error) if error.source.kind() == ErrorKind::PermissionDenied => {
            service_of(folder, error).map(Some)
        }
        // What is wrong with the folder is told when it is opened.
        Err(_) => Ok(None),
    }
}

/// Who may not look into the folder may be allowed to give commands all the same: where it is the service's.
fn service_of(folder: &Path, denied: StoreError) -> Result<Client, Error> {
    let service = Client::new(&Path::new(SERVICE).join(FILE_NAME));
    match service.ask::<serde_json::Value>(Method::GET, "/status") {
        Ok(status) if status["image_path"].as_str().map(Path::new) == Some(folder) => Ok(service),
        _ => Err(AdminError::NotAllowed { path: denied.path, source: denied.source }.into()),
    }
}
