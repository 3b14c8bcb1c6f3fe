//! A client's connection as hyper reads and writes it. We keep it when hyper is done: how it is closed matters.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::net::TcpStream;

/// What a client may still send after we have closed our side.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Both ends share one stream: everything here needs it by reference only.
#[derive(Clone)]
pub struct Socket {
    stream: Rc<TcpStream>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: Rc::new(stream) }
    }

    /// Closes by FIN. A close with bytes unread would be a reset, and that ends a pull where a FIN lets the client
    /// resume it.
    pub async fn close(self) {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&*self.stream);
        if nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Write).is_err() {
            return;
        }
        let drain = async {
            let mut buffer = [0; 4096];
            let mut drained = 0;
            while drained < LINGER_BYTES {
                if self.stream.readable().await.is_err() {
                    return;
                }
                match self.stream.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => drained += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's cursor is over memory that may not be initialised, and filling it in place would be unsafe.
        let mut buffer = [0; 8192];
        let most = buffer.len().min(cursor.remaining());
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    let count = result?;
                    cursor.put_slice(&buffer[..count]);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Socket {
    fn poll_try(
        &self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Left to [`close`](Self::close).
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
