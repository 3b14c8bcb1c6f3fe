//! What an answer to a command is made of, and how it is read again: a JSON value, or one a line.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// An answer's body; of bytes at hand, or of lines to come.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why a command was not done, as it is told.
#[derive(Debug, Deserialize, Serialize)]
pub struct Complaint {
    pub error: String,
}

/// One value.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    respond(status, "application/json", Full::from(line(value)).boxed_unsync())
}

pub fn error(status: StatusCode, what: &str) -> Response<Body> {
    json(status, &Complaint { error: what.to_owned() })
}

/// A value a line, as they come. When the client hangs up, the sender's channel is closed.
pub fn lines<T: Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> Response<Body> {
    respond(StatusCode::OK, "application/jsonl", Lines(values).boxed_unsync())
}

fn respond(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn line(value: &impl Serialize) -> Bytes {
    // No type of ours fails to be JSON.
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|error| error.to_string().into_bytes());
    bytes.push(b'\n');
    bytes.into()
}

struct Lines<T>(mpsc::Receiver<T>);

impl<T: Serialize> http_body::Body for Lines<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|value| Some(Ok(Frame::data(line(&value?)))))
    }
}
