//! How our own commands find the daemon.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;

use super::{Error, GlobalOptions};
use crate::admin::{AdminError, Client, FILE_NAME};
use crate::store::Holder;

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
                return Err(AdminError::NotAllowed { path: error.path, source: error.source }.into());
            }
            Err(error) => {
                let error = Error::NoDaemon(error.to_string());
                return service().map(|path| Client::new(&path)).ok_or(error);
            }
        };
        match found {
            Some(Holder { admin_socket: Some(path), .. }) => Ok(Client::new(&path)),
            Some(Holder { pid, admin_socket: None }) => Err(Error::NoDaemon(format!(
                "process {pid} serves from {}, and takes no commands: its log says why",
                folder.display()
            ))),
            None => Err(Error::NoDaemon(format!(
                "no daemon serves from {} (another folder is named by --image-path)",
                folder.display()
            ))),
        }
    }
}
