//! Blobs: whole, or a range of one.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::Body;
use super::conditions::{etag, set_digest};
use super::failure::Failure;
use super::range::{Part, Range};
use super::respond::{Answer, Responder};
use crate::oci::{Code, Digest, Name};
use crate::pull::{Cause, PullError, Want};

impl Responder {
    pub(super) async fn blob(
        &self,
        name: &Name,
        digest: &Digest,
        want: Want,
        headers: &HeaderMap,
    ) -> Result<Answer, Failure> {
        let range = range_of(headers, digest);
        let offset = range.map_or(0, Range::first);
        let blob = self
            .pull
            .blob(name, digest, want, offset)
            .await
            .map_err(|error| failure(name, digest, &error))?;
        let (size, origin) = (blob.size, blob.origin);
        let mut response = match range.map_or(Part::Whole, |range| range.of(size)) {
            Part::Whole => self.blob_part(blob, want, None).await,
            Part::Of(range) => {
                let mut response = self.blob_part(blob, want, Some(range.clone())).await;
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let content_range = format!("bytes {}-{}/{size}", range.start(), range.end());
                if let Ok(value) = HeaderValue::from_str(&content_range) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                response
            }
            Part::None => {
                let message = format!("the range begins behind the end: the blob has {size} bytes");
                let mut failure = Failure::new(416, Code::RangeInvalid, message);
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    failure.headers.insert(header::CONTENT_RANGE, value);
                }
                return Err(failure);
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        set_digest(headers, digest);
        Ok(Answer { response, origin: Some(origin) })
    }

    async fn blob_part(
        &self,
        blob: crate::pull::Blob,
        want: Want,
        range: Option<RangeInclusive<u64>>,
    ) -> Response<Body> {
        let range = match (range, blob.size.checked_sub(1)) {
            (Some(range), _) => Some(range),
            (None, Some(last)) => Some(0..=last),
            (None, None) => None,
        };
        let length = range.as_ref().map_or(0, |range| range.end() - range.start() + 1);
        let body = match range {
            Some(range) if want == Want::Body => Body::blob(self.pull.read(blob, range).await, length),
            _ => Body::bytes(Bytes::new()),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        response
    }
}

/// `If-Range` with another ETag than ours means that the whole is wanted.
fn range_of(headers: &HeaderMap, digest: &Digest) -> Option<Range> {
    let range = headers.get(header::RANGE)?.to_str().ok().and_then(Range::parse)?;
    match headers.get(header::IF_RANGE) {
        Some(tag) if tag.as_bytes() != etag(digest).as_bytes() => None,
        _ => Some(range),
    }
}

/// 404 whatever it was, but for a plain no: every client turns elsewhere at once, and to an error of the
/// server docker and others come back for up to a minute.
fn failure(name: &Name, digest: &Digest, error: &PullError) -> Failure {
    let (status, code) = match error.cause() {
        Cause::Denied => (403, Code::Denied),
        Cause::Missing | Cause::Invalid | Cause::Unavailable | Cause::Late | Cause::Internal => {
            (404, Code::BlobUnknown)
        }
    };
    let mut failure = Failure::new(status, code, format!("{name}@{digest}: {error}"));
    failure.detail = serde_json::json!({ "name": name.to_string(), "digest": digest });
    failure
}
