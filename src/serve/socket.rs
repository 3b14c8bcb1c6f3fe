//! A client's connection as hyper reads and writes it. We keep it when hyper is done: how it is closed matters.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::stream::Stream;

/// One of two handles to a stream: hyper's, and ours to close it.
#[derive(Clone)]
pub struct Socket {
    /// Borrowed for the length of a poll, and both ends are in one task.
    inner: Rc<RefCell<Inner>>,
    activity: Rc<Activity>,
}

struct Inner {
    stream: Stream,
    /// What was read to see which protocol this is.
    ahead: Bytes,
}

impl Socket {
    pub fn new(stream: Stream, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { inner: Rc::new(RefCell::new(Inner { stream, ahead })), activity }
    }

    /// The stream, once the other handle is gone.
    pub fn into_stream(self) -> Option<Stream> {
        Some(Rc::into_inner(self.inner)?.into_inner().stream)
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let polled = poll(Pin::new(&mut self.inner.borrow_mut().stream));
        match polled {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.sent(),
        }
        polled
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.ahead.is_empty() {
            let polled = Pin::new(&mut inner.stream).poll_read(context, buffer);
            if polled.is_ready() {
                self.activity.received();
            }
            return polled;
        }
        let count = inner.ahead.len().min(buffer.remaining());
        buffer.put_slice(&inner.ahead[..count]);
        inner.ahead.advance(count);
        if inner.ahead.is_empty() {
            inner.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
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

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    /// Left to [`Stream::close`].
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
