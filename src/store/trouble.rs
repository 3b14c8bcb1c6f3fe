//! A disk that takes nothing: full, read-only, failing. Said once when it begins and once when it ends; meanwhile
//! pulls go on without it. Whoever keeps the cache's space is woken at once when it is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::StoreError;

/// Between two tries while the disk takes nothing. It lasts so long at least: what comes and goes is not said by the
/// second.
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
    state: Mutex<State>,
    /// Keeps space.
    keeper: OnceLock<Thread>,
}

#[derive(Default)]
struct State {
    trouble: Option<Trouble>,
    /// The most that the full disk had no room for since the keeper last asked.
    lacking: Option<Lacking>,
}

/// What the full disk had no room for.
struct Lacking {
    /// So many bytes had to come back when that was found.
    bytes: u64,
    /// Where there are so many, there is room; none where there were as many, and yet no room: it is a quota, or the number
    /// of files.
    whole: Option<u64>,
    folder: PathBuf,
}

impl Lacking {
    /// How many bytes have to come back now, when others may have come back before.
    fn now(self) -> Option<u64> {
        let left = self.whole.and_then(|whole| Some(whole.saturating_sub(free(&self.folder)?)));
        Some(left.map_or(self.bytes, |left| left.min(self.bytes))).filter(|bytes| *bytes > 0)
    }
}

fn free(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

impl Disk {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    pub fn is_troubled(&self) -> bool {
        self.lock().trouble.is_some()
    }

    /// One thread only is woken.
    pub fn set_keeper(&self, keeper: Thread) {
        let _ = self.keeper.set(keeper);
    }

    pub fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    /// How many bytes have to come back for what the full disk had no room for; said once.
    pub fn lacking(&self) -> Option<u64> {
        let lacking = self.lock().lacking.take()?;
        lacking.now()
    }

    /// Whether that would say something.
    pub fn is_lacking(&self) -> bool {
        self.lock().lacking.is_some()
    }

    /// Something could not be kept, for which `wanted` bytes were needed, if that is known; `file` is what was written
    /// of it, and still there. To the log it goes once while the trouble lasts.
    pub fn failed(&self, error: &StoreError, wanted: u64, file: Option<&Path>) {
        let Some(kind) = error.trouble() else {
            tracing::error!(path = %error.path.display(), "{error}: not kept");
            return;
        };
        let wanted = wanted.max(ROOM);
        // Before the file goes: whoever reads it may hold on to its space.
        let lacking = (kind == TroubleKind::Full).then(|| lacking(wanted, &error.path, file));
        let mut state = self.lock();
        if let Some(lacking) = lacking {
            if state.lacking.as_ref().is_none_or(|known| known.bytes < lacking.bytes) {
                state.lacking = Some(lacking);
            }
            self.wake_keeper();
        }
        state.found(kind, error, wanted);
    }

    /// Tries whether a file can be written in `folder` again. Blocks.
    pub fn probe(&self, folder: &Path) {
        let Some(known) = self.trouble() else { return };
        // A name that the next start sweeps.
        let path = folder.join("new-probe");
        // What is too large for this disk altogether does not make it a full one for long.
        let share =
            nix::sys::statvfs::statvfs(folder).map_or(ROOM, |disk| disk.blocks() * disk.fragment_size() / 20);
        let tried = write_probe(&path, known.wanted.min(share.max(ROOM)));
        let _ = std::fs::remove_file(&path);
        let error = match tried {
            Ok(()) => {
                if let Some(known) = self.lock().trouble.take() {
                    known.tell_end("what is pulled is kept again");
                }
                return;
            }
            Err(error) => StoreError::on("write", &path)(error),
        };
        if let Some(kind) = error.trouble() {
            self.lock().found(kind, &error, known.wanted);
        }
    }
}

impl State {
    /// The disk says no. It is told when that begins, and when it is for another reason than before.
    fn found(&mut self, kind: TroubleKind, error: &StoreError, wanted: u64) {
        if let Some(known) = &self.trouble {
            if known.kind == kind || known.since.elapsed() < TRY_EVERY {
                tracing::debug!(path = %error.path.display(), "{error}: not kept");
                return;
            }
            known.tell_end("something else is wrong with it");
        }
        let name = kind.as_str();
        tracing::error!(
            path = %error.path.display(),
            "the disk is {name}: {error}. Pulls go on; what is new is not kept until that is mended"
        );
        self.trouble = Some(Trouble { kind, since: Instant::now(), error: error.to_string(), wanted });
    }
}

impl Trouble {
    fn tell_end(&self, now: &str) {
        let (name, seconds) = (self.kind.as_str(), self.since.elapsed().as_secs());
        tracing::warn!("the disk is no longer {name}, as it was for {seconds} s: {now}");
    }
}

/// How many bytes have to come back so that there is room for `wanted`, a part of which `file` has already.
fn lacking(wanted: u64, near: &Path, file: Option<&Path>) -> Lacking {
    let has = file.and_then(|file| std::fs::metadata(file).ok()).map_or(0, |data| data.blocks() * 512);
    let whole = wanted + ROOM;
    let left = whole.saturating_sub(has);
    let folder = near.parent().unwrap_or(near).to_owned();
    let bytes = left.saturating_sub(free(&folder).unwrap_or(0));
    match bytes {
        // There was none in spite of what the file system says.
        0 => Lacking { bytes: left.max(ROOM), whole: None, folder },
        bytes => Lacking { bytes: bytes.max(ROOM), whole: Some(whole), folder },
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
        disk.failed(&error(Errno::ENOENT), 1, None);
        assert!(!disk.is_troubled());
        for (errno, kind) in [
            (Errno::ENOSPC, TroubleKind::Full),
            (Errno::EDQUOT, TroubleKind::Full),
            (Errno::EROFS, TroubleKind::ReadOnly),
            (Errno::EIO, TroubleKind::Failing),
        ] {
            disk.failed(&error(errno), 1 << 16, None);
            assert_eq!(disk.trouble().unwrap().kind, kind);
            assert_eq!(disk.lacking().is_some(), kind == TroubleKind::Full);
            assert_eq!(disk.lacking(), None);
            disk.probe(&folder.path().join("missing"));
            assert!(disk.is_troubled());
            disk.probe(folder.path());
            assert!(!disk.is_troubled());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_in_trouble_can_get_into_another() {
        let disk = Disk::default();
        disk.failed(&error(Errno::ENOSPC), 1, None);
        // What goes to and fro is not told by the second.
        disk.failed(&error(Errno::EROFS), 1, None);
        assert_eq!(disk.trouble().unwrap().kind, TroubleKind::Full);
        let past = Instant::now().checked_sub(TRY_EVERY).unwrap();
        disk.lock().trouble.as_mut().unwrap().since = past;
        disk.failed(&error(Errno::ENOSPC), 1, None);
        assert_eq!(disk.trouble().unwrap().since, past);
        disk.failed(&error(Errno::EROFS), 1, None);
        let trouble = disk.trouble().unwrap();
        assert!(trouble.kind == TroubleKind::ReadOnly && trouble.since > past);
        assert!(trouble.error.contains("Read-only file system"), "{trouble:?}");
    }

    #[test]
    fn what_is_lacking_is_what_the_disk_and_the_file_do_not_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partial");
        std::fs::write(&path, vec![1; 4 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let disk = nix::sys::statvfs::statvfs(folder.path()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        let wanted = free + (100 << 30);
        // Others write to this disk as well.
        let about = |bytes: u64| bytes - (4 << 30)..bytes + (4 << 30);
        let found = lacking(wanted, &path, Some(&path));
        assert!(about(100 << 30).contains(&found.bytes));
        // What comes back meanwhile counts.
        let more = Lacking { whole: found.whole.map(|whole| whole - (40 << 30)), ..found };
        assert!(about(60 << 30).contains(&more.now().unwrap()));
        // There is as much, and yet there was no room: a quota.
        let all = lacking(8 << 20, &path, None);
        assert_eq!((all.bytes, all.whole), ((8 << 20) + ROOM, None));
        let (all, some) = (all.now().unwrap(), lacking(8 << 20, &path, Some(&path)).now().unwrap());
        assert!(all - some >= 4 << 20, "{some}");
    }
}
