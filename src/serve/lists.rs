//! Lists of tags and of referrers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::body::Body;
use super::failure::Failure;
use super::respond::{Answer, Responder};
use crate::oci::{Code, MediaType, Name, Page, Referrers, Registry, Subject};
use crate::pull::{Cause, Origin, PullError, Referred, Tags};

/// In bytes. A longer list of referrers takes milliseconds to filter, which is not done on the thread that serves.
const LONG: usize = 256 << 10;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Responder {
    /// A page of a repository's tags. `next` makes a `Link` to the page behind a tag.
    pub(super) async fn tags(
        &self,
        name: &Name,
        asked: &str,
        page: &Page,
        next: impl FnOnce(&str) -> Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let tags = self.pull.tags(name, page).await;
        let Tags { page, origin, age } = tags.map_err(|error| {
            let mut failure = failure(Code::NameUnknown, &name.to_string(), &error);
            failure.detail = serde_json::json!({ "name": name.to_string() });
            failure
        })?;
        // A name has nothing in it that would have to be escaped.
        let head = format!(r#"{{"name":"{asked}","tags":["#);
        let json = HeaderValue::from_static("application/json");
        let mut answer = list(vec![head.into(), page.text, Bytes::from_static(b"]}")], json, origin, age);
        if let Some(link) = page.next.as_deref().and_then(next) {
            answer.response.headers_mut().insert(header::LINK, link);
        }
        Ok(answer)
    }

    /// What refers to a manifest, if `types` are given only what is of these.
    pub(super) async fn referrers(&self, subject: &Subject, types: &[String]) -> Result<Answer, Failure> {
        let failed = |error: PullError| {
            let mut failure = failure(Code::ManifestUnknown, &subject.to_string(), &error);
            failure.detail =
                serde_json::json!({ "name": subject.name.to_string(), "digest": subject.digest });
            failure
        };
        let Referred { list: all, origin, age } = self.pull.referrers(subject).await.map_err(failed)?;
        let referrers = if types.is_empty() { all } else { of_types(all, types.to_vec()).await? };
        let index = HeaderValue::from_static(MediaType::OCI_INDEX);
        let mut answer = list(vec![referrers.index().clone()], index, origin, age);
        if !types.is_empty() {
            answer.response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
        }
        Ok(answer)
    }
}

/// Those of a list that have one of these artifact types.
async fn of_types(all: Referrers, types: Vec<String>) -> Result<Referrers, Failure> {
    let is_long = all.index().len() > LONG;
    // It was read before it was kept.
    let filter = move || all.of_types(&types).unwrap_or_else(|_| Referrers::none());
    if !is_long {
        return Ok(filter());
    }
    let filtered = tokio::task::spawn_blocking(filter).await;
    filtered.map_err(|error| Failure::new(500, Code::Unknown, error.to_string()))
}

fn list(pieces: Vec<Bytes>, media_type: HeaderValue, origin: Origin, age: Option<Duration>) -> Answer {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut response = Response::new(Body::pieces(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(age) = age {
        headers.insert(header::AGE, age.as_secs().into());
    }
    Answer { response, origin: Some(origin) }
}

fn failure(unknown: Code, what: &str, error: &PullError) -> Failure {
    let (status, code) = match error.cause() {
        Cause::Missing => (404, unknown),
        Cause::Denied => (403, Code::Denied),
        Cause::Invalid | Cause::Unavailable => (502, Code::Unavailable),
        Cause::Late => (504, Code::Unavailable),
        Cause::Internal => (500, Code::Unknown),
    };
    Failure::new(status, code, format!("{what}: {error}"))
}

/// What stands in a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// The `Link` to the page behind `last`. It names the registry as this request did: in the path, by the same `ns`,
/// or, since a client that follows a link does not send its headers again, by an `ns` in place of the header.
pub(super) fn next_page(
    uri: &Uri,
    header: Option<&Registry>,
    page: &Page,
    last: &str,
) -> Option<HeaderValue> {
    let n = page.n.map(|n| format!("n={n}&")).unwrap_or_default();
    let ns = match header {
        Some(registry) => format!("&ns={}", utf8_percent_encode(registry.as_str(), PLAIN)),
        None => {
            let mut pairs = uri.query().unwrap_or_default().split('&');
            // The first is the one that counts.
            let given = pairs.find(|pair| pair.starts_with("ns="));
            given.filter(|pair| *pair != "ns=").map(|pair| format!("&{pair}")).unwrap_or_default()
        }
    };
    let last = utf8_percent_encode(last, PLAIN);
    HeaderValue::try_from(format!("<{}?{n}last={last}{ns}>; rel=\"next\"", uri.path())).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::serve::route::{Endpoint, Rules, route};

    fn link(target: &str, registry: Option<&str>, n: Option<usize>) -> String {
        let registry = registry.map(|registry| registry.parse().unwrap());
        let page = Page { n, last: None };
        let link = next_page(&target.parse().unwrap(), registry.as_ref(), &page, "v1.0").unwrap();
        link.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_registry_is_named_as_it_was() {
        assert_eq!(
            link("/v2/a/tags/list?n=2&ns=reg.example%3A5000", None, Some(2)),
            r#"</v2/a/tags/list?n=2&last=v1.0&ns=reg.example%3A5000>; rel="next""#
        );
        assert_eq!(
            link("/v2/quay.io/a/tags/list?last=x&n=2", None, Some(2)),
            r#"</v2/quay.io/a/tags/list?n=2&last=v1.0>; rel="next""#
        );
        assert_eq!(
            link("/v2/a/tags/list?ns=", Some("[::1]:5000"), None),
            r#"</v2/a/tags/list?last=v1.0&ns=%5B%3A%3A1%5D%3A5000>; rel="next""#
        );
        assert_eq!(
            link("/a/tags/list?ns=quay.io", None, None),
            r#"</a/tags/list?last=v1.0&ns=quay.io>; rel="next""#
        );
        assert_eq!(
            link("/v2/a/tags/list?ns=&ns=quay.io", None, None),
            r#"</v2/a/tags/list?last=v1.0>; rel="next""#
        );
        assert_eq!(
            link("/v2/a/tags/list?ns=ghcr.io&ns=quay.io", None, None),
            r#"</v2/a/tags/list?last=v1.0&ns=ghcr.io>; rel="next""#
        );
    }

    #[tokio::test]
    async fn a_long_list_is_filtered_like_a_short_one() {
        for count in [10, 10_000] {
            let descriptors =
                (0..count).map(|n| format!(r#"{{"digest":"sha256:{n}","artifactType":"a/{n}"}}"#));
            let json = format!(r#"{{"manifests":[{}]}}"#, descriptors.collect::<Vec<_>>().join(","));
            let all = Referrers::parse(json.as_bytes()).unwrap();
            assert_eq!(all.index().len() > LONG, count == 10_000);
            let types = vec!["a/7".to_owned(), "a/no".to_owned()];
            let Ok(some) = of_types(all, types).await else { panic!() };
            assert!(some.index().ends_with(br#"[{"digest":"sha256:7","artifactType":"a/7"}]}"#));
        }
    }

    proptest! {
        #[test]
        fn a_link_leads_back_to_the_same_repository(
            registry in "[a-z]{1,5}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}",
            n in proptest::option::of(1usize..5000),
            way in 0..3,
        ) {
            let rules = Rules { default: Some("docker.io".parse().unwrap()), known: Vec::new(), own: Vec::new() };
            let mut headers = HeaderMap::new();
            let target = match way {
                0 => format!("/v2/{registry}/{repository}/tags/list"),
                1 => format!("/v2/{repository}/tags/list?ns={}&x=y", registry.replace(':', "%3A")),
                _ => {
                    headers.insert("x-registry", registry.parse().unwrap());
                    format!("/v2/{repository}/tags/list")
                }
            };
            let uri: Uri = target.parse().unwrap();
            let Endpoint::Tags { name, asked, .. } = route(&rules, &Method::GET, &uri, &headers).unwrap().endpoint
            else {
                panic!()
            };
            prop_assert_eq!(name.registry.as_str(), registry);
            let header = headers.contains_key("x-registry").then_some(&name.registry);
            let page = Page { n, last: None };
            let link = next_page(&uri, header, &page, &tag).unwrap();
            let target = crate::upstream::link::next(link.to_str().unwrap()).unwrap();
            prop_assert!(target.starts_with("/v2/"));
            let next = route(&rules, &Method::GET, &target.parse().unwrap(), &HeaderMap::new()).unwrap();
            prop_assert_eq!(next.endpoint, Endpoint::Tags { name, asked, page: Page { n, last: Some(tag) } });
        }
    }
}
