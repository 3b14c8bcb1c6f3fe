//! A client's connection as hyper reads and writes it. We keep it when hyper is done: how it is closed matters.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::listener::Stream;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

/// What a client may still send after we have closed our side.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// One of two handles to a stream: hyper's, and ours to close it.
#[derive(Clone)]
pub struct Socket {
    /// Borrowed for the length of a poll, and both ends are in one task.
    stream: Rc<RefCell<Stream>>,
}

impl Socket {
    pub fn new(stream: Stream) -> Self {
        Self { stream: Rc::new(RefCell::new(stream)) }
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut TokioIo<&mut Stream>>) -> Poll<T>) -> Poll<T> {
        poll(Pin::new(&mut TokioIo::new(&mut *self.stream.borrow_mut())))
    }

    /// Closes by FIN, once the other handle is gone. A close with bytes unread would be a reset, and that ends a
    /// pull where a FIN lets the client resume it.
    pub async fn close(self) {
        let Some(stream) = Rc::into_inner(self.stream).map(RefCell::into_inner) else { return };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
        if nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Write).is_err() {
            return;
        }
        let drain = async {
            let mut buffer = [0; 4096];
            let mut drained = 0;
            while drained < LINGER_BYTES {
                if stream.readable().await.is_err() {
                    return;
                }
                match stream.try_read(&mut buffer) {
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
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(context, cursor))
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, parts))
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
