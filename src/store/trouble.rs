//! A disk that takes nothing: full, read-only, failing. Said once when it begins and once when it ends; meanwhile
//! pulls go on without it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::StoreError;

/// Between two tries while the disk takes nothing.
pub const TRY_EVERY: Duration = Duration::from_secs(5);

/// Room that there has to be for a full disk to count as mended, in bytes.
const ROOM: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    Full,
    ReadOnly,
    Failing,
}

impl TroubleKind {
    /// None for an error that says nothing of the disk as a whole.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => return Some(Self::ReadOnly),
            _ => {}
        }
        match Errno::from_raw(error.raw_os_error()?) {
            Errno::EIO | Errno::ENXIO | Errno::ENODEV | Errno::ESTALE | Errno::EUCLEAN | Errno::ENOTCONN => {
                Some(Self::Failing)
            }
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Failing => "failing",
        }
    }
}

/// What is wrong with the disk, and since when.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub kind: TroubleKind,
    pub since: Instant,
    /// What was tried, on what, and what the system said.
    pub error: String,
    /// What there was no room for, in bytes.
    wanted: u64,
}

/// The disk as the writes of late found it.
#[derive(Default)]
pub struct Disk {
    trouble: Mutex<Option<Trouble>>,
}

impl Disk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().clone()
    }

    pub fn is_troubled(&self) -> bool {
        self.lock().is_some()
    }

    /// Something could not be kept, for which `wanted` bytes were needed, if that is known. To the log it goes once
    /// while the trouble lasts.
    pub fn failed(&self, error: &StoreError, wanted: u64) {
        let Some(kind) = error.trouble() else {
            tracing::error!(path = %error.path.display(), "{error}: not kept");
            return;
        };
        let mut trouble = self.lock();
        match &*trouble {
            Some(_) => tracing::debug!(path = %error.path.display(), "{error}: not kept"),
            None => {
                let state = kind.as_str();
                tracing::error!(
                    path = %error.path.display(),
                    "the disk is {state}: {error}. Pulls go on; what is new is not kept until that is mended"
                );
                let error = error.to_string();
                *trouble = Some(Trouble { kind, since: Instant::now(), error, wanted: wanted.max(ROOM) });
            }
        }
    }

    /// Tries whether a file can be written in `folder` again. Blocks.
    pub fn probe(&self, folder: &Path) {
        let Some(known) = self.trouble() else { return };
        let path = folder.join("probe");
        // What is too large for this disk altogether does not make it a full one for long.
        let share =
            nix::sys::statvfs::statvfs(folder).map_or(ROOM, |disk| disk.blocks() * disk.fragment_size() / 20);
        let tried = write_probe(&path, known.wanted.min(share.max(ROOM)));
        let _ = std::fs::remove_file(&path);
        if tried.is_ok() && self.lock().take().is_some() {
            tracing::warn!(
                path = %folder.display(),
                "the disk is no longer {}, as it was for {} s: what is pulled is kept again",
                known.kind.as_str(),
                known.since.elapsed().as_secs(),
            );
        }
    }
}

fn write_probe(path: &Path, wanted: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o640).open(path)?;
    let length = i64::try_from(wanted).unwrap_or(i64::MAX);
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    file.write_all_at(&[0; 4096], 0)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> StoreError {
        StoreError::on("write", Path::new("/x"))(errno.into())
    }

    #[test]
    fn trouble_begins_with_the_disk_s_own_errors_and_ends_when_writing_works() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        disk.failed(&error(Errno::ENOENT), 1);
        assert!(!disk.is_troubled());
        for (errno, kind) in [
            (Errno::ENOSPC, TroubleKind::Full),
            (Errno::EDQUOT, TroubleKind::Full),
            (Errno::EROFS, TroubleKind::ReadOnly),
            (Errno::EIO, TroubleKind::Failing),
        ] {
            disk.failed(&error(errno), 1 << 16);
            assert_eq!(disk.trouble().unwrap().kind, kind);
            disk.probe(&folder.path().join("missing"));
            assert!(disk.is_troubled());
            disk.probe(folder.path());
            assert!(!disk.is_troubled());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
