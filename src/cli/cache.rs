//! The cache that images are brought into: a running daemon's, or a folder that no daemon has open.

use std::fmt;

use tokio::sync::{mpsc, oneshot};

use super::admin::AdminOptions;
use super::{Error, GlobalOptions};
use crate::admin::{AdminError, Cause, Client, PullRequest, RefreshRequest, not_refreshed};
use crate::daemon::Alone;
use crate::oci::Image;
use crate::pull::{Platforms, Refreshed, Step, Warmed};

/// Steps that wait to be shown.
const WAITING: usize = 64;

/// Either way it is done as the daemon does it.
pub enum Cache {
    Daemon(Client),
    Folder(Alone),
}

impl Cache {
    /// The daemon's where one runs. Otherwise the folder's, with all that the configuration says of registries. To be
    /// called before there is another thread.
    pub fn open(admin: &AdminOptions, global: &GlobalOptions) -> Result<Self, Error> {
        Ok(match admin.running(global)? {
            Some(client) => Self::Daemon(client),
            None => Self::Folder(Alone::open(&global.load(Vec::new())?.settings)?),
        })
    }

    /// Fetches what is missing of an image; `each` sees how it goes. Blocks. The error says why.
    pub fn pull(&self, request: &PullRequest, mut each: impl FnMut(Step)) -> Result<Warmed, Failure> {
        match self {
            Self::Daemon(client) => {
                let done = client.lines(PullRequest::PATH, request, &mut |_| {}, &mut |step| {
                    each(step);
                    Ok::<_, AdminError>(())
                });
                done.map_err(|error| Failure::by_daemon(&request.image, error))
            }
            Self::Folder(alone) => {
                let (pull, image) = (alone.pull.clone(), request.image.clone());
                let platforms = request.platforms.clone().unwrap_or_else(|| Platforms::Only(pull.platform()));
                let (steps, mut taken) = mpsc::channel(WAITING);
                let (done, end) = oneshot::channel();
                alone.handle().spawn(async move {
                    let _ = done.send(pull.warm(&image, &platforms, &steps).await);
                });
                while let Some(step) = taken.blocking_recv() {
                    each(step);
                }
                match end.blocking_recv() {
                    Ok(warmed) => warmed.map_err(|error| Failure::of(error.to_string())),
                    Err(_) => Err(Failure::of("stopped before the end".to_owned())),
                }
            }
        }
    }

    /// Asks upstream now. Blocks. The error says why it did not say.
    pub fn refresh(&self, image: &Image) -> Result<Refreshed, Failure> {
        match self {
            Self::Daemon(client) => {
                let request = RefreshRequest { image: image.clone() };
                let none = &mut |()| Ok::<_, AdminError>(());
                let done = client.lines(RefreshRequest::PATH, &request, &mut |_| {}, none);
                done.map_err(|error| Failure::by_daemon(image, error))
            }
            Self::Folder(alone) => {
                let done = alone.handle().block_on(alone.pull.refresh(image));
                done.map_err(|error| Failure::of(not_refreshed(&error)))
            }
        }
    }

    /// When this returns, all that is whole is on disk, or the daemon's affair. Blocks.
    pub fn close(&self) {
        if let Self::Folder(alone) = self {
            alone.close();
        }
    }
}

/// Why an image is not there.
pub struct Failure {
    pub reason: String,
    /// The daemon has ended meanwhile: no fault of the image.
    pub ended: bool,
}

impl Failure {
    fn of(reason: String) -> Self {
        Self { reason, ended: false }
    }

    fn by_daemon(image: &Image, error: AdminError) -> Self {
        match error {
            AdminError::Refused(complaint) => {
                // Which image it is of is said by us.
                let reason =
                    complaint.message.strip_prefix(&format!("{image}: ")).unwrap_or(&complaint.message);
                Self { reason: reason.to_owned(), ended: complaint.kind == Cause::Ending }
            }
            error => {
                let ended = matches!(error, AdminError::Broken(_) | AdminError::NoDaemon { .. });
                Self { reason: error.to_string(), ended }
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
