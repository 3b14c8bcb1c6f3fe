//! The ETag, which is the digest, and what requests say of it (RFC 9110, section 13).

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::oci::Digest;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

pub fn matches_etag(headers: &HeaderMap, digest: &Digest) -> bool {
    let ours = etag(digest);
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag == ours)
}

pub fn set_digest(headers: &mut HeaderMap, digest: &Digest) {
    let text = etag(digest);
    // Hex digits and a colon are always a header.
    if let Ok(value) = HeaderValue::from_str(&text[1..text.len() - 1]) {
        headers.insert(CONTENT_DIGEST, value);
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(header::ETAG, value);
    }
}
