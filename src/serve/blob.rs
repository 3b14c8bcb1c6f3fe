//! Blobs: whole, a range of one, or several.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::Body;
use super::conditions::{Outcome, range_counts, set_digest};
use super::failure::Failure;
use super::multipart::{BYTES, Multipart};
use super::range::{Excess, Ranges, Selection};
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
        let outcome = Outcome::of(headers, want, digest);
        // What is answered without a body starts no download.
        let want = if outcome == Outcome::Met { want } else { Want::Head };
        let ranges = if want == Want::Body { ranges_of(headers, digest)? } else { None };
        let offset = ranges.as_ref().map_or(0, Ranges::furthest);
        let blob = self
            .pull
            .blob(name, digest, want, offset)
            .await
            .map_err(|error| failure(name, digest, &error))?;
        let (size, origin) = (blob.size, blob.origin);
        let mut response = Response::new(Body::bytes(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        set_digest(headers, digest);
        match outcome {
            Outcome::Met => {}
            Outcome::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(Answer { response, origin: Some(origin) });
            }
            Outcome::Failed => return Err(Failure::precondition(digest)),
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BYTES));
        headers.insert(header::CONTENT_LENGTH, size.into());
        let selection = ranges.map_or(Ok(Selection::Whole), |ranges| ranges.of(size))?;
        match selection {
            Selection::Whole => {
                if let (Want::Body, Some(last)) = (want, size.checked_sub(1)) {
                    *response.body_mut() = Body::blob(self.pull.read(&blob, 0..=last), size);
                }
            }
            Selection::One(range) => {
                let length = range.end() - range.start() + 1;
                headers.insert(header::CONTENT_LENGTH, length.into());
                let content_range = format!("bytes {}-{}/{size}", range.start(), range.end());
                if let Ok(content_range) = HeaderValue::from_str(&content_range) {
                    headers.insert(header::CONTENT_RANGE, content_range);
                }
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                *response.body_mut() = Body::blob(self.pull.read(&blob, range), length);
            }
            Selection::Several(ranges) => {
                let multipart = Multipart::new(digest, size, ranges);
                headers.insert(header::CONTENT_LENGTH, multipart.length().into());
                if let Ok(content_type) = HeaderValue::from_str(&multipart.content_type()) {
                    headers.insert(header::CONTENT_TYPE, content_type);
                }
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                *response.body_mut() = Body::multipart(multipart, self.pull.clone(), blob);
            }
            Selection::Nothing => {
                let message = format!("the range begins behind the end: the blob has {size} bytes");
                let mut failure = Failure::new(416, Code::RangeInvalid, message);
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    failure.headers.insert(header::CONTENT_RANGE, value);
                }
                return Err(failure);
            }
        }
        Ok(Answer { response, origin: Some(origin) })
    }
}

/// What a GET wants of the blob; none for all of it.
fn ranges_of(headers: &HeaderMap, digest: &Digest) -> Result<Option<Ranges>, Excess> {
    let mut lines = headers.get_all(header::RANGE).iter();
    match (lines.next().map(HeaderValue::to_str), lines.next()) {
        (Some(Ok(range)), None) if range_counts(headers, digest) => Ranges::parse(range),
        // Two lines are no set of ranges, and neither says more than the other.
        _ => Ok(None),
    }
}

impl From<Excess> for Failure {
    fn from(excess: Excess) -> Self {
        Self::new(400, Code::RangeInvalid, excess.to_string())
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
