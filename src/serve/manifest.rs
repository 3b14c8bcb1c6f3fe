//! Manifests and indexes: byte for byte as upstream sent them.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::Body;
use super::conditions::{Outcome, set_digest};
use super::failure::Failure;
use super::respond::{Answer, Responder};
use crate::oci::{Code, Image};
use crate::pull::{Cause, PullError, Want};

impl Responder {
    pub(super) async fn manifest(
        &self,
        image: &Image,
        want: Want,
        headers: &HeaderMap,
    ) -> Result<Answer, Failure> {
        let found = self.pull.manifest(image, want).await.map_err(|error| failure(image, &error))?;
        let digest = found.record.digest;
        let unchanged = match Outcome::of(headers, want, &digest) {
            Outcome::Met => false,
            Outcome::NotModified => true,
            Outcome::Failed => return Err(Failure::precondition(&digest)),
        };
        let length = found.bytes.len();
        let body = if unchanged { Bytes::new() } else { found.bytes };
        let mut response = Response::new(Body::bytes(body));
        set_digest(response.headers_mut(), &digest);
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            let media_type = HeaderValue::from_str(found.record.media_type.as_str());
            if let Ok(media_type) = media_type {
                response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            }
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(age) = found.age {
            response.headers_mut().insert(header::AGE, age.as_secs().into());
        }
        Ok(Answer { response, origin: Some(found.origin) })
    }
}

fn failure(image: &Image, error: &PullError) -> Failure {
    let (status, code) = match error.cause() {
        Cause::Missing => (404, Code::ManifestUnknown),
        Cause::Denied => (403, Code::Denied),
        Cause::Invalid => (502, Code::ManifestInvalid),
        Cause::Unavailable => (502, Code::Unavailable),
        Cause::Late => (504, Code::Unavailable),
        Cause::Internal => (500, Code::Unknown),
    };
    let mut failure = Failure::new(status, code, format!("{image}: {error}"));
    failure.detail =
        serde_json::json!({ "name": image.name.to_string(), "reference": image.reference.to_string() });
    failure
}
