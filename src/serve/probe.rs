//! Whether requests are being answered, found out by asking.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::listener::Connection;
use super::server::Admitted;

const REQUEST: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";

/// A way to ask each serving thread a real request.
pub struct Probe {
    pub(super) threads: Vec<mpsc::UnboundedSender<Admitted>>,
}

impl Probe {
    /// Returns once every thread has answered a `GET /v2/` over a connection of its own. It has no limit of time:
    /// a thread that hangs is waited for.
    pub async fn answered(&self) -> io::Result<()> {
        for thread in &self.threads {
            ask(thread).await?;
        }
        Ok(())
    }
}

async fn ask(thread: &mpsc::UnboundedSender<Admitted>) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    thread
        .send(Admitted { connection: Connection::Probe(theirs), place: None })
        .map_err(|_| io::ErrorKind::BrokenPipe)?;
    let mut stream = tokio::net::UnixStream::from_std(ours)?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    // Its body is two bytes; the limit is for an answer that is none of ours.
    stream.take(4096).read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        let line = String::from_utf8_lossy(&answer);
        Err(io::Error::other(format!("answered {:?}", line.lines().next().unwrap_or_default())))
    }
}
