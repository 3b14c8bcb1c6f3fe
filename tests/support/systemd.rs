//! What a service manager is to its service: a socket for its news, and sockets handed over.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::process::PATIENCE;

/// The receiving end of `NOTIFY_SOCKET`.
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Listens in `folder`.
    pub fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    pub fn manage(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// The next message, a line each.
    #[track_caller]
    pub fn next(&self) -> Vec<String> {
        let mut buffer = vec![0; 1 << 16];
        let length = self.socket.recv(&mut buffer).expect("no news");
        String::from_utf8(buffer[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The lines of all messages that have come.
    pub fn drain(&self) -> Vec<String> {
        let mut lines = vec![];
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        self.socket.set_nonblocking(false).unwrap();
        lines
    }

    /// Passes over messages until one has this line.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next();
            if message.iter().any(|l| l == line) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {line}");
        }
    }
}
