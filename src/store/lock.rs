//! Who writes to the folder: one process at a time, and which.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::layout::Layout;
use super::{OpenError, StoreError};

/// How long a second daemon waits for the first to go.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The right to write to the folder, until dropped.
pub struct Lock {
    file: Flock<File>,
    path: PathBuf,
    pub folder: FolderId,
}

/// This very folder, however it is reached, and no copy of it: device and inode of its lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderId(u64, u64);

impl FolderId {
    fn of(lock: &Metadata) -> Self {
        Self(lock.dev(), lock.ino())
    }
}

/// `fe00-2a`
impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.0, self.1)
    }
}

/// The process that writes to a folder, as its lock file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: String,
    /// Where it takes commands, if it does.
    pub admin_socket: Option<PathBuf>,
    pub folder: FolderId,
}

impl Holder {
    /// The one of a folder; none where nobody has said anything. It may have ended without a word since.
    pub fn of(root: &Path) -> Result<Option<Self>, StoreError> {
        let path = Layout::new(root).lock();
        let read = || {
            let mut file = File::open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>((bytes, FolderId::of(&file.metadata()?)))
        };
        match read() {
            Ok((bytes, folder)) => Ok(Self::parse(&bytes, folder)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::on("read", &path)(error)),
        }
    }

    /// Whether anybody has a folder: a process that died leaves its number in the file.
    pub fn is_there(root: &Path) -> bool {
        let Ok(file) = File::open(Layout::new(root).lock()) else { return false };
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
    }

    /// Two lines: the process and the path.
    fn parse(bytes: &[u8], folder: FolderId) -> Option<Self> {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let pid = String::from_utf8_lossy(lines.next()?).trim().to_owned();
        let socket = lines.next().filter(|line| !line.is_empty());
        let admin_socket = socket.map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line)));
        (!pid.is_empty()).then_some(Self { pid, admin_socket, folder })
    }
}

impl Lock {
    /// Blocks for so long while another process has it.
    pub fn take(layout: &Layout, patience: Duration) -> Result<Self, OpenError> {
        let path = layout.lock();
        let mut file = open_or_make(&path).map_err(StoreError::on("open", &path))?;
        let deadline = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let folder = FolderId::of(&file.metadata().map_err(StoreError::on("look at", &path))?);
                    let lock = Self { file, path, folder };
                    // The lock is what counts. A full disk does not take the word, and must not keep us from starting.
                    if let Err(error) = lock.write(None) {
                        tracing::warn!(%error, "commands will not find their way");
                        // Rather nobody than whoever had it before.
                        let _ = lock.file.set_len(0);
                    }
                    return Ok(lock);
                }
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    file = back;
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    let holder = Holder::of(&layout.root).ok().flatten();
                    return Err(OpenError::Locked { root: layout.root.clone(), holder });
                }
                Err((_, errno)) => return Err(StoreError::on("lock", &path)(errno.into()).into()),
            }
        }
    }

    /// Says who we are, and where we take commands.
    pub fn write(&self, admin_socket: Option<&Path>) -> Result<(), StoreError> {
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        if let Some(socket) = admin_socket {
            text.extend_from_slice(socket.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let written = self.file.write_all_at(&text, 0).and_then(|()| self.file.set_len(text.len() as u64));
        written.map_err(StoreError::on("write", &self.path))
    }

    /// Says that nobody writes any more.
    pub fn clear(&self) {
        // An empty line keeps the block: the next start finds room for its word on a full disk, too. What is left
        // there would only be found out later.
        let line = self.file.write_all_at(b"\n", 0);
        let _ = self.file.set_len(u64::from(line.is_ok()));
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    match File::options().read(true).write(true).create(true).truncate(false).mode(0o640).open(path) {
        // What is there can be served from a disk that takes nothing.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => File::open(path).or(Err(error)),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(Holder::of(folder.path()).unwrap(), None);
        let lock = Lock::take(&layout, PATIENCE).unwrap();
        let holder = Holder { pid: std::process::id().to_string(), admin_socket: None, folder: lock.folder };
        assert_eq!(Holder::of(folder.path()).unwrap(), Some(holder.clone()));
        let socket = PathBuf::from("/run/a folder/admin.sock");
        lock.write(Some(&socket)).unwrap();
        let holder = Holder { admin_socket: Some(socket), ..holder };
        assert_eq!(Holder::of(folder.path()).unwrap(), Some(holder));
        lock.clear();
        assert_eq!(Holder::of(folder.path()).unwrap(), None);
        // The block is still there.
        assert_eq!(std::fs::read(layout.lock()).unwrap(), b"\n");
    }

    #[test]
    fn a_disk_that_does_not_take_the_word_gives_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::os::unix::fs::symlink("/dev/full", layout.lock()).unwrap();
        let lock = Lock::take(&layout, Duration::ZERO).unwrap();
        assert!(lock.write(None).is_err());
    }
}
