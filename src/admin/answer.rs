//! What an answer to a command is made of: a JSON value, or a JSON object a line as the work goes on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::store::care::CareError;

/// Lines that may wait for a client to take them.
pub const LINES: usize = 256;

/// Lines that are put into one piece of a body.
const AT_ONCE: usize = 64;

/// An answer's body; of bytes at hand, or of lines to come.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// The work failed or died: the connection ends before the answer does, so that nobody takes a part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the work came to no end")]
pub struct Broken;

/// A line of an answer that comes bit by bit: any number of items and notes, then how it ended. An answer without such
/// an end broke off.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<I, D> {
    Item(I),
    /// For people who wait.
    Note(String),
    Done(D),
    Error(Complaint),
}

impl<I, D> Line<I, D> {
    fn is_end(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Error(_))
    }
}

/// Why a command was not done, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Complaint {
    pub kind: Cause,
    /// For people.
    pub message: String,
}

/// What of the world is the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The request cannot be understood, or asks for nothing.
    Request,
    /// There is no such command.
    Command,
    /// The token is missing or wrong.
    Token,
    /// This daemon writes to another cache.
    Elsewhere,
    /// A file of the cache is to be mended by somebody.
    Cache,
    /// The file system does not allow it.
    Denied,
    Disk,
    /// No upstream gives it.
    Upstream,
    /// The daemon ends, or whoever asked has gone.
    Ending,
    #[serde(other)]
    Other,
}

impl Cause {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Request => StatusCode::BAD_REQUEST,
            Self::Command => StatusCode::NOT_FOUND,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Elsewhere => StatusCode::MISDIRECTED_REQUEST,
            Self::Upstream => StatusCode::BAD_GATEWAY,
            Self::Ending => StatusCode::SERVICE_UNAVAILABLE,
            Self::Cache | Self::Denied | Self::Disk | Self::Other => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<&CareError> for Cause {
    fn from(error: &CareError) -> Self {
        match error {
            CareError::Store(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::Denied
            }
            CareError::Store(_) => Self::Disk,
            CareError::Pattern { .. } | CareError::EmptyPattern | CareError::NothingChosen => Self::Request,
            CareError::Malformed { .. } => Self::Cache,
            CareError::Stopped => Self::Ending,
        }
    }
}

impl From<&CareError> for Complaint {
    fn from(error: &CareError) -> Self {
        Self { kind: error.into(), message: error.to_string() }
    }
}

impl Complaint {
    pub fn new(kind: Cause, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn request(message: impl Into<String>) -> Self {
        Self::new(Cause::Request, message)
    }

    /// `{"error": {"kind": …, "message": …}}`, as the last line of a longer answer would be.
    pub fn respond(self) -> Response<Body> {
        json(self.kind.status(), &Line::<(), ()>::Error(self))
    }
}

/// For another method than the one that is wanted.
pub fn not_by_this_method(wanted: &'static str) -> Response<Body> {
    let mut response = Complaint::new(Cause::Command, format!("not by this method, want {wanted}")).respond();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(wanted));
    response
}

/// One value.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    whole(status, "application/json", line(value))
}

/// Bytes at hand.
pub fn whole(status: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    respond(status, media_type, Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

/// A JSON object a line, as they come. When the client hangs up, the sender's channel is closed. The head waits for
/// the first line: what fails at once has the status of its cause.
pub async fn lines<I, D>(lines: mpsc::Receiver<Line<I, D>>) -> Response<Body>
where
    I: Serialize + Send + 'static,
    D: Serialize + Send + 'static,
{
    match stream(lines, "application/jsonl", |told| Ok(line(&told))).await {
        Ok(response) => response,
        Err(complaint) => complaint.respond(),
    }
}

/// The same in any form; one that has no words for an error in the middle breaks off there.
pub async fn stream<I, D>(
    mut lines: mpsc::Receiver<Line<I, D>>,
    media_type: &'static str,
    format: impl FnMut(Line<I, D>) -> Result<Bytes, Broken> + Send + 'static,
) -> Result<Response<Body>, Complaint>
where
    I: Send + 'static,
    D: Send + 'static,
{
    match lines.recv().await {
        Some(Line::Error(complaint)) => Err(complaint),
        Some(first) => {
            let body = Lines { waiting: vec![first], lines, format, ended: false };
            Ok(respond(StatusCode::OK, media_type, body.boxed_unsync()))
        }
        None => Err(Complaint::new(Cause::Other, Broken.to_string())),
    }
}

fn respond(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// JSON and a line break.
pub fn line(value: &impl Serialize) -> Bytes {
    // No type of ours fails to be JSON.
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|error| error.to_string().into_bytes());
    bytes.push(b'\n');
    bytes.into()
}

struct Lines<I, D, F> {
    /// Come, and not told yet.
    waiting: Vec<Line<I, D>>,
    lines: mpsc::Receiver<Line<I, D>>,
    format: F,
    ended: bool,
}

impl<I, D, F> Unpin for Lines<I, D, F> {}

impl<I, D, F: FnMut(Line<I, D>) -> Result<Bytes, Broken>> http_body::Body for Lines<I, D, F> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if this.waiting.is_empty()
                && ready!(this.lines.poll_recv_many(context, &mut this.waiting, AT_ONCE)) == 0
            {
                this.ended = true;
                return Poll::Ready(Some(Err(Broken)));
            }
            let mut piece = BytesMut::new();
            for line in this.waiting.drain(..) {
                this.ended |= line.is_end();
                match (this.format)(line) {
                    Ok(bytes) => piece.put(bytes),
                    Err(broken) => return Poll::Ready(Some(Err(broken))),
                }
            }
            // A form may say nothing of a line.
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece.freeze()))));
            }
        }
    }
}
