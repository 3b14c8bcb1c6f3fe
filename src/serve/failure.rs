//! Errors on their way to the client.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::Body;
use super::respond::Answer;
use super::route::Refusal;
use crate::oci::{Code, Digest, ErrorBody};

/// An error, until it is an answer.
pub struct Failure {
    pub status: u16,
    code: Code,
    pub message: String,
    /// For programs: what was asked for.
    pub detail: serde_json::Value,
    pub headers: HeaderMap,
}

impl Failure {
    pub fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: serde_json::Value::Null,
            headers: HeaderMap::new(),
        }
    }

    /// An `If-Match` that names another ETag.
    pub fn precondition(digest: &Digest) -> Self {
        Self::new(412, Code::Unknown, format!("If-Match: what is here is {digest}"))
    }

    pub fn into_answer(self) -> Answer {
        let body = ErrorBody::new(self.code, &self.message, self.detail).to_json();
        let length = body.len();
        let mut response = Response::new(Body::bytes(body.into()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        if self.status == 405 {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if self.status == 401 {
            let challenge = HeaderValue::from_static("Basic realm=\"ociregistry\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Answer { response, origin: None }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status, refusal.code, refusal.message)
    }
}
