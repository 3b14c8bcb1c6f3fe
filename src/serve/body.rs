//! A response's body, fed to hyper piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::Cut;
use super::counters::Counted;
use super::multipart::{Multipart, Piece};
use super::request_log::Entry;
use crate::pull::{Blob, Chunk, Pull, PullError, Reader};

type Waiting = Pin<Box<dyn Future<Output = (Reader, Option<PullError>)>>>;

/// Bytes at hand, a range of a blob, or several ranges one after the other.
pub struct Body {
    content: Content,
    parts: Option<Parts>,
    left: u64,
    log: Option<Entry>,
    counted: Option<Counted>,
    _place: Option<OwnedSemaphorePermit>,
    /// A manifest, a blob or a list.
    is_content: bool,
}

/// What is sent now.
enum Content {
    Bytes(Bytes),
    Pieces(std::vec::IntoIter<Bytes>),
    Reader(Reader),
    Waiting(Waiting),
    Over,
}

/// What is sent then. A range is opened when its turn comes: by then a download may have brought it, and one that
/// has to be fetched by itself is the only one of this body.
struct Parts {
    pieces: Multipart,
    pull: Arc<Pull>,
    blob: Blob,
}

/// The body ends early, and with it the connection. Why is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut short: {0}")]
pub struct CutShort(PullError);

impl Body {
    pub fn bytes(bytes: Bytes) -> Self {
        Self {
            left: bytes.len() as u64,
            content: Content::Bytes(bytes),
            parts: None,
            log: None,
            counted: None,
            _place: None,
            is_content: false,
        }
    }

    /// One behind the other.
    pub fn pieces(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self {
            left,
            content: Content::Pieces(pieces.into_iter()),
            parts: None,
            log: None,
            counted: None,
            _place: None,
            is_content: false,
        }
    }

    pub fn blob(reader: Reader, length: u64) -> Self {
        Self {
            content: Content::Reader(reader),
            parts: None,
            left: length,
            log: None,
            counted: None,
            _place: None,
            is_content: false,
        }
    }

    pub fn multipart(pieces: Multipart, pull: Arc<Pull>, blob: Blob) -> Self {
        let left = pieces.length();
        let parts = Some(Parts { pieces, pull, blob });
        Self {
            content: Content::Over,
            parts,
            left,
            log: None,
            counted: None,
            _place: None,
            is_content: false,
        }
    }

    /// Has the request's line written when the body is done with.
    pub fn logged(mut self, entry: Option<Entry>) -> Self {
        self.log = entry;
        self
    }

    /// Counts as what a registry has, and not as what we say ourselves.
    pub fn content(mut self, is_content: bool) -> Self {
        self.is_content = is_content;
        self
    }

    /// Counts its bytes, and the request as under way until the body is done with.
    pub fn counted(mut self, counted: Option<Counted>) -> Self {
        self.counted = counted;
        self
    }

    /// Keeps the request's place among all others until it is done with.
    pub fn placed(mut self, place: Option<OwnedSemaphorePermit>) -> Self {
        self._place = place;
        self
    }

    fn pass(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.left -= bytes.len() as u64;
        if let Some(log) = &mut self.log {
            log.bytes += bytes.len() as u64;
        }
        if let Some(counted) = &self.counted {
            counted.sent(bytes.len() as u64, self.is_content);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// It is dropped before its end.
    pub fn cut_off(&mut self, why: Cut) {
        if self.left > 0
            && let Some(log) = &mut self.log
        {
            log.cut.get_or_insert_with(|| why.to_string());
        }
    }

    fn cut(&mut self, error: PullError) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.content = Content::Over;
        self.parts = None;
        if let Some(log) = &mut self.log {
            log.cut = Some(error.to_string());
        }
        Poll::Ready(Some(Err(CutShort(error))))
    }
}

impl Parts {
    fn next(&mut self) -> Option<Content> {
        Some(match self.pieces.next()? {
            Piece::Text(text) => Content::Bytes(text),
            Piece::Range(range) => Content::Reader(self.pull.read(&self.blob, range)),
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        loop {
            match std::mem::replace(&mut self.content, Content::Over) {
                Content::Over => match self.parts.as_mut().and_then(Parts::next) {
                    Some(next) => self.content = next,
                    None => return Poll::Ready(None),
                },
                Content::Bytes(bytes) if bytes.is_empty() => {}
                Content::Bytes(bytes) => return self.pass(bytes),
                Content::Pieces(mut pieces) => match pieces.next() {
                    None => {}
                    Some(piece) => {
                        self.content = Content::Pieces(pieces);
                        if !piece.is_empty() {
                            return self.pass(piece);
                        }
                    }
                },
                Content::Reader(mut reader) => match reader.look() {
                    Chunk::Bytes(bytes) => {
                        self.content = Content::Reader(reader);
                        return self.pass(bytes);
                    }
                    Chunk::End => {}
                    Chunk::Cut(error) => return self.cut(error),
                    Chunk::Later => self.content = Content::Waiting(Box::pin(reader.wait())),
                },
                Content::Waiting(mut waiting) => match waiting.as_mut().poll(context) {
                    Poll::Pending => {
                        self.content = Content::Waiting(waiting);
                        return Poll::Pending;
                    }
                    Poll::Ready((_, Some(error))) => return self.cut(error),
                    Poll::Ready((reader, None)) => self.content = Content::Reader(reader),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Nothing here can fail but a blob's reader.
impl From<Infallible> for CutShort {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
