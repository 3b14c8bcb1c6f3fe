//! Who writes to the folder: one process at a time, and which.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
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
}

/// The process that writes to a folder, as its lock file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: String,
    /// Where it takes commands, if it does.
    pub admin_socket: Option<PathBuf>,
}

impl Holder {
    /// The one of a folder; none where nobody has said anything. It may have ended without a word since.
    pub fn of(root: &Path) -> Result<Option<Self>, StoreError> {
        let path = Layout::new(root).lock();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::on("read", &path)(error)),
        }
    }

    /// Two lines: the process and the path.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let pid = String::from_utf8_lossy(lines.next()?).trim().to_owned();
        let socket = lines.next().filter(|line| !line.is_empty());
        let admin_socket = socket.map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line)));
        (!pid.is_empty()).then_some(Self { pid, admin_socket })
    }
}

impl Lock {
    /// Blocks for so long while another process has it.
    pub fn take(layout: &Layout, patience: Duration) -> Result<Self, OpenError> {
        let path = layout.lock();
        let open =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
        let mut file = open.map_err(StoreError::on("open", &path))?;
        let deadline = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let lock = Self { file, path };
                    lock.write(None)?;
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
        // What is left there would only be found out later.
        let _ = self.file.set_len(0);
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
        let pid = std::process::id().to_string();
        assert_eq!(Holder::of(folder.path()).unwrap(), Some(Holder { pid: pid.clone(), admin_socket: None }));
        let socket = PathBuf::from("/run/a folder/admin.sock");
        lock.write(Some(&socket)).unwrap();
        let holder = Holder { pid, admin_socket: Some(socket) };
        assert_eq!(Holder::of(folder.path()).unwrap(), Some(holder));
        lock.clear();
        assert_eq!(Holder::of(folder.path()).unwrap(), None);
    }
}
