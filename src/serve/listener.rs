//! Where clients come in: an address and port, or a Unix socket.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use super::stream::Stream;
use crate::config::Listen;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Of a Unix socket's file: whom its owner and group let in may connect.
const SOCKET_MODE: u32 = 0o660;

/// A bound socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Option<SocketFile>),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
    /// This process, to see whether it serves.
    Probe,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.ip().fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Probe => f.write_str("probe"),
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}. {}", advice(.address, .source))]
pub struct ListenError {
    pub address: Listen,
    pub source: io::Error,
}

/// How to mend it.
fn advice(address: &Listen, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (Listen::Tcp(_), AddrInUse) => {
            "Another program has this port: give another with --port, or in listen".to_owned()
        }
        (Listen::Tcp(_), PermissionDenied) => {
            "A port below 1024 needs a privilege: give another with --port, or in listen".to_owned()
        }
        (Listen::Tcp(address), AddrNotAvailable) => {
            format!("No interface of this host has the address {}: see host and listen", address.ip())
        }
        (Listen::Unix(path), AddrInUse) if is_socket(path) => {
            "Another program listens there: give another path in listen".to_owned()
        }
        (Listen::Unix(_), AddrInUse) => {
            "There is something else than a socket: remove it, or give another path in listen".to_owned()
        }
        (Listen::Unix(path), NotFound) => {
            let folder = path.parent().unwrap_or(path);
            format!("There is no folder {}: make it first", folder.display())
        }
        (Listen::Unix(_), PermissionDenied) => {
            "The user that this runs as must be able to make files in its folder".to_owned()
        }
        _ => "See host, port and listen".to_owned(),
    }
}

impl Listener {
    /// Binds, and listens. A Unix socket that nobody listens on any more is replaced; its group may connect.
    pub fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let bound = match listen {
            Listen::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).map(|(listener, file)| Self::Unix(listener, Some(file))),
        };
        bound.map_err(|source| ListenError { address: listen.clone(), source })
    }

    /// A socket that somebody else has bound.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let socket = Socket::from(fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return invalid("no stream socket that listens (want ListenStream=, and Accept=no)");
        }
        match socket.local_addr()? {
            address if address.is_unix() => Ok(Self::Unix(socket.into(), None)),
            address if address.as_socket().is_some() => Ok(Self::Tcp(socket.into())),
            _ => invalid("neither a TCP nor a Unix socket"),
        }
    }

    /// What it listens on; none for a Unix socket without a path.
    pub fn listen(&self) -> Option<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(|path| Listen::Unix(path.to_owned()))
            }
        }
    }

    /// The address and port, where it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The same for a runtime. It must be called on one.
    pub fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                AsyncListener::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Self::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                AsyncListener::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        })
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener, None)
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Otherwise `[::]` would take the IPv4 address of another entry.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let left_behind = is_socket(path)
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if left_behind {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    // The file gets the socket's mode, less the umask: at no time more than we want. Then what the umask took.
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The file of a socket that we bound. It goes with the listener, unless another has taken its place.
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // What stays is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listener on a runtime.
pub enum AsyncListener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, Option<SocketFile>),
}

impl AsyncListener {
    /// The next connection, free to be taken to another runtime.
    pub async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Connection::Tcp(stream.into_std()?, address)
            }
            Self::Unix(listener, _) => Connection::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

/// An accepted connection that belongs to no runtime yet.
pub enum Connection {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
    /// Of our own, to see whether the thread that gets it serves.
    Probe(UnixStream),
}

impl Connection {
    /// Takes it to the runtime that this is called on.
    pub fn open(self) -> io::Result<(Stream, Peer)> {
        Ok(match self {
            Self::Tcp(stream, address) => {
                // Headers and body go out in one write; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                (Stream::Tcp(tokio::net::TcpStream::from_std(stream)?), Peer::Tcp(address))
            }
            Self::Unix(stream) => (Stream::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix),
            Self::Probe(stream) => (Stream::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Probe),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn unix(path: PathBuf) -> Listen {
        Listen::Unix(path)
    }

    fn refusal(listen: &Listen) -> String {
        Listener::bind(listen).err().unwrap().to_string()
    }

    #[test]
    fn a_unix_socket_is_for_its_group_whatever_the_umask_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = Listener::bind(&unix(path.clone())).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_took_the_place_of_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let ours = Listener::bind(&unix(path.clone())).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(theirs);
    }

    #[test]
    fn a_socket_from_elsewhere_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(Listener::from(UnixListener::bind(&path).unwrap()));
        assert!(path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let other = UnixListener::bind(&path).unwrap();
        assert!(refusal(&unix(path.clone())).contains("Another program listens there"));
        drop(other);
        let _ours = Listener::bind(&unix(path.clone())).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn why_there_is_no_unix_socket() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        let refused = refusal(&unix(file.clone()));
        assert!(refused.contains("something else than a socket"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let refused = refusal(&unix(folder.path().join("no/such/s")));
        assert!(
            refused.contains(&format!("no folder {}", folder.path().join("no/such").display())),
            "{refused}"
        );
    }

    #[test]
    fn why_there_is_no_port() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refused = refusal(&Listen::Tcp(taken.local_addr().unwrap()));
        assert!(refused.contains("Another program has this port"), "{refused}");
        let refused = refusal(&Listen::Tcp("192.0.2.1:8080".parse().unwrap()));
        assert!(refused.contains("No interface of this host has the address 192.0.2.1"), "{refused}");
    }

    #[test]
    fn ipv6_leaves_ipv4_to_others() {
        let six = Listener::bind(&Listen::Tcp((Ipv6Addr::UNSPECIFIED, 0).into())).unwrap();
        let port = six.address().unwrap().port();
        let four = Listener::bind(&Listen::Tcp((Ipv4Addr::UNSPECIFIED, port).into()));
        assert!(four.is_ok());
    }
}
