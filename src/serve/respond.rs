//! From a typed request to an answer.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::access::Access;
use super::body::Body;
use super::listener::Peer;
use super::range::{Part, Range};
use super::request_log::Entry;
use super::route::{Endpoint, Refusal, Route, Rules, route};
use crate::config::Settings;
use crate::oci::{Code, Digest, ErrorBody, Image, Name, Registry};
use crate::pull::{Cause, Origin, Pull, PullError, Want};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What answering goes by.
pub struct Responder {
    pull: Arc<Pull>,
    terms: ArcSwap<Terms>,
    /// Names by which requests may call ourselves.
    own: Vec<Registry>,
    /// Stands in the `Via` of every request that we send: seeing it again means that we asked ourselves.
    id: String,
}

/// What a reload replaces.
struct Terms {
    rules: Rules,
    access: Access,
}

/// An answer and where it came from.
struct Answer {
    response: Response<Body>,
    origin: Option<Origin>,
}

impl Responder {
    /// `own` are names by which requests may call ourselves, `id` stands in the `Via` of every request that we send.
    pub fn new(pull: Arc<Pull>, settings: &Settings, own: Vec<Registry>, id: String) -> Self {
        let terms = ArcSwap::from_pointee(Terms::new(settings, &own));
        Self { pull, terms, own, id }
    }

    /// Puts other settings in force, from the next request on.
    pub fn reload(&self, settings: &Settings) {
        self.terms.store(Arc::new(Terms::new(settings, &self.own)));
    }

    /// Answers one request. The line of the log is written when the body is done with.
    pub async fn respond<B>(
        &self,
        request: Request<B>,
        client: Peer,
        mut log: Option<Entry>,
    ) -> Response<Body> {
        let answer = self.answer(client, request.method(), request.uri(), request.headers()).await;
        let Answer { mut response, origin } = answer.unwrap_or_else(|failure| failure.into_answer());
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if let Some(log) = &mut log {
            log.status = response.status().as_u16();
            log.cache = origin.map(Origin::as_str);
        }
        if request.method() == Method::HEAD {
            // The length stays as a header; hyper sends no body.
            return response.map(|body| {
                drop(body);
                Body::bytes(Bytes::new()).logged(log)
            });
        }
        response.map(|body| body.logged(log))
    }

    async fn answer(
        &self,
        client: Peer,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
    ) -> Result<Answer, Failure> {
        let terms = self.terms.load_full();
        terms.access.admit(client, headers).await?;
        if headers.get_all(header::VIA).iter().any(|via| contains(via, &self.id)) {
            let message =
                "this request came from this registry itself: a mirror must not have itself as its upstream";
            return Err(Failure::new(508, Code::Denied, message));
        }
        let Route { endpoint, namespace } = route(&terms.rules, method, uri, headers)?;
        terms.access.permit(&endpoint)?;
        let want = if method == Method::HEAD { Want::Head } else { Want::Body };
        let mut answer = match endpoint {
            Endpoint::Base => Ok(base()),
            Endpoint::Manifest(image) => self.manifest(&image, want, headers).await,
            Endpoint::Blob(name, digest) => self.blob(&name, &digest, want, headers).await,
        };
        let headers = match &mut answer {
            Ok(answer) => answer.response.headers_mut(),
            Err(failure) => &mut failure.headers,
        };
        if let Some(Ok(namespace)) = namespace.map(|registry| HeaderValue::from_str(registry.as_str())) {
            headers.insert(NAMESPACE, namespace);
        }
        answer
    }

    async fn manifest(&self, image: &Image, want: Want, headers: &HeaderMap) -> Result<Answer, Failure> {
        let found =
            self.pull.manifest(image, want).await.map_err(|error| Failure::of_manifest(image, &error))?;
        let digest = found.record.digest;
        // A HEAD is answered in full: containerd takes a 304 to it for the end of the pull.
        let unchanged = want == Want::Body && matches_etag(headers, &digest);
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

    async fn blob(
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
            .map_err(|error| Failure::of_blob(name, digest, &error))?;
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

impl Terms {
    fn new(settings: &Settings, own: &[Registry]) -> Self {
        Self { rules: Rules::new(settings, own), access: Access::new(settings) }
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

fn contains(value: &HeaderValue, text: &str) -> bool {
    value.to_str().is_ok_and(|value| value.contains(text))
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn matches_etag(headers: &HeaderMap, digest: &Digest) -> bool {
    let ours = etag(digest);
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag == ours)
}

fn set_digest(headers: &mut HeaderMap, digest: &Digest) {
    let text = etag(digest);
    // Hex digits and a colon are always a header.
    if let Ok(value) = HeaderValue::from_str(&text[1..text.len() - 1]) {
        headers.insert(CONTENT_DIGEST, value);
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(header::ETAG, value);
    }
}

fn base() -> Answer {
    let mut response = Response::new(Body::bytes(Bytes::from_static(b"{}")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, 2.into());
    Answer { response, origin: None }
}

/// An error on its way to the client.
struct Failure {
    status: u16,
    code: Code,
    message: String,
    detail: serde_json::Value,
    headers: HeaderMap,
}

impl Failure {
    fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: serde_json::Value::Null,
            headers: HeaderMap::new(),
        }
    }

    fn of_manifest(image: &Image, error: &PullError) -> Self {
        let (status, code) = match error.cause() {
            Cause::Missing => (404, Code::ManifestUnknown),
            Cause::Denied => (403, Code::Denied),
            Cause::Invalid => (502, Code::ManifestInvalid),
            Cause::Unavailable => (502, Code::Unavailable),
            Cause::Late => (504, Code::Unavailable),
            Cause::Internal => (500, Code::Unknown),
        };
        let mut failure = Self::new(status, code, format!("{image}: {error}"));
        failure.detail =
            serde_json::json!({ "name": image.name.to_string(), "reference": image.reference.to_string() });
        failure
    }

    /// 404 whatever it was, but for a plain no: every client turns elsewhere at once, and to an error of the
    /// server docker and others come back for up to a minute.
    fn of_blob(name: &Name, digest: &Digest, error: &PullError) -> Self {
        let (status, code) = match error.cause() {
            Cause::Denied => (403, Code::Denied),
            Cause::Missing | Cause::Invalid | Cause::Unavailable | Cause::Late | Cause::Internal => {
                (404, Code::BlobUnknown)
            }
        };
        let mut failure = Self::new(status, code, format!("{name}@{digest}: {error}"));
        failure.detail = serde_json::json!({ "name": name.to_string(), "digest": digest });
        failure
    }

    fn into_answer(self) -> Answer {
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
