//! A client's connection as hyper reads and writes it. We keep it when hyper is done: how it is closed matters.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

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
    /// Something was given to be written, and not all of it went out yet.
    unsent: bool,
    /// Who waits to read what comes after the answer: that nothing comes any more was kept from it.
    reading: Option<Waker>,
}

impl Socket {
    pub fn new(stream: Stream, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { inner: Rc::new(RefCell::new(Inner { stream, ahead, unsent: false, reading: None })), activity }
    }

    /// The stream, once the other handle is gone.
    pub fn into_stream(self) -> Option<Stream> {
        Some(Rc::into_inner(self.inner)?.into_inner().stream)
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let inner = &mut *self.inner.borrow_mut();
        inner.unsent = true;
        let polled = poll(Pin::new(&mut inner.stream));
        match polled {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.sent(),
        }
        polled
    }

    /// What hyper is told of the end of what a client sends. It would take it for a hang-up while a request of HTTP/1
    /// is being answered; a client that has asked all that it will may close its half and wait.
    fn poll_end(&self, inner: &mut Inner, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_http2() || !self.activity.is_answering() && !inner.unsent {
            return Poll::Ready(Ok(()));
        }
        self.activity.half_closed();
        inner.reading = Some(context.waker().clone());
        Poll::Pending
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
            let filled = buffer.filled().len();
            let polled = Pin::new(&mut inner.stream).poll_read(context, buffer);
            return match polled {
                Poll::Ready(Ok(())) if buffer.filled().len() == filled => self.poll_end(inner, context),
                Poll::Ready(_) => {
                    self.activity.received();
                    polled
                }
                Poll::Pending => polled,
            };
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
        let flushed = self.poll(|stream| stream.poll_flush(context));
        if flushed.is_ready() {
            let inner = &mut *self.inner.borrow_mut();
            inner.unsent = false;
            if let Some(reading) = inner.reading.take_if(|_| !self.activity.is_answering()) {
                reading.wake();
            }
        }
        flushed
    }

    /// Left to [`Stream::close`].
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
