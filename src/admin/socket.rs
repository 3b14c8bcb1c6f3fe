//! The file by which commands reach the daemon.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, chown};

/// Its name, in whatever folder.
pub const FILE_NAME: &str = "admin.sock";

/// What the kernel takes of a socket's path, in bytes.
const LONGEST: usize = 107;

/// Listens at `path`, for the daemon's user and `group`. What an earlier process left there is replaced: nobody
/// but the one that holds the store's lock comes here.
pub fn bind(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = by_short_name(path, |path| UnixListener::bind(path))?;
    if let Some(group) = group {
        // A user who is not in that group cannot; then it is the daemon's own group that may connect.
        let _ = chown(path, None, Some(group));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to whoever listens at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = by_short_name(path, |path| UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A path that is too long for the kernel is reached by its open folder.
fn by_short_name<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return work(path);
    };
    if path.as_os_str().as_bytes().len() <= LONGEST {
        return work(path);
    }
    let folder = fs::File::open(folder)?;
    work(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_stand_deep_and_replaces_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&folder).unwrap();
        for path in [folder.join(FILE_NAME), root.path().join(FILE_NAME)] {
            drop(bind(&path, None).unwrap());
            let listener = bind(&path, None).unwrap();
            connect(&path).unwrap();
            assert!(listener.accept().is_ok());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        }
    }
}
