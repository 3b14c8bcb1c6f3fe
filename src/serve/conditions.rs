//! The ETag, which is the digest, and what requests make their answer depend on (RFC 9110, section 13). Pure.
//!
//! Dates say nothing here: content has a digest, and no `Last-Modified`.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::oci::Digest;
use crate::pull::Want;

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a request's conditions come to, for content that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Met,
    /// The client has it already: 304.
    NotModified,
    /// It wants another one than this: 412.
    Failed,
}

impl Outcome {
    /// In the order of section 13.2.2. A HEAD is never 304: containerd takes that for the end of the pull.
    pub fn of(headers: &HeaderMap, want: Want, digest: &Digest) -> Self {
        let ours = etag(digest);
        let is_ours = |tag: &str| tag == "*" || tag == ours;
        if headers.contains_key(header::IF_MATCH) && !tags(headers, header::IF_MATCH).any(is_ours) {
            return Self::Failed;
        }
        let mut known = tags(headers, header::IF_NONE_MATCH).map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
        if want == Want::Body && known.any(is_ours) { Self::NotModified } else { Self::Met }
    }
}

/// Whether a `Range` counts. `If-Range` with anything but our ETag, a date too, means that the whole is wanted.
pub fn range_counts(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag(digest).as_bytes())
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

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// The elements of a list of ETags. One with a comma in it is none of ours, nor are its pieces.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        format!("sha256:{}", "a".repeat(64)).parse().unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn etags_are_compared() {
        let ours = etag(&digest());
        let weak = format!("W/{ours}");
        let list = format!("\"b\", {ours}");
        for (name, value, get, head) in [
            ("if-none-match", &*ours, Outcome::NotModified, Outcome::Met),
            ("if-none-match", &weak, Outcome::NotModified, Outcome::Met),
            ("if-none-match", &list, Outcome::NotModified, Outcome::Met),
            ("if-none-match", "*", Outcome::NotModified, Outcome::Met),
            ("if-none-match", "\"b\"", Outcome::Met, Outcome::Met),
            ("if-none-match", "", Outcome::Met, Outcome::Met),
            ("if-match", &ours, Outcome::Met, Outcome::Met),
            ("if-match", &list, Outcome::Met, Outcome::Met),
            ("if-match", "*", Outcome::Met, Outcome::Met),
            ("if-match", &weak, Outcome::Failed, Outcome::Failed),
            ("if-match", "\"b\"", Outcome::Failed, Outcome::Failed),
            ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT", Outcome::Met, Outcome::Met),
        ] {
            let headers = headers(&[(name, value)]);
            assert_eq!(Outcome::of(&headers, Want::Body, &digest()), get, "{name}: {value}");
            assert_eq!(Outcome::of(&headers, Want::Head, &digest()), head, "{name}: {value}");
        }
        let both = headers(&[("if-match", "\"b\""), ("if-none-match", &ours)]);
        assert_eq!(Outcome::of(&both, Want::Body, &digest()), Outcome::Failed);
    }

    #[test]
    fn a_range_counts_without_if_range_or_with_our_etag() {
        let ours = etag(&digest());
        assert!(range_counts(&headers(&[]), &digest()));
        assert!(range_counts(&headers(&[("if-range", &ours)]), &digest()));
        for other in [&*format!("W/{ours}"), "\"b\"", "*", "Sat, 29 Oct 1994 19:43:31 GMT"] {
            assert!(!range_counts(&headers(&[("if-range", other)]), &digest()), "{other}");
        }
    }
}
