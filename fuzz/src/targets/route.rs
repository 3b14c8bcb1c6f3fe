//! Any request is routed or refused, and what is routed says where it came from: printed, it is routed the same.

use http::{HeaderMap, HeaderValue, Method, Uri};
use ociregistry::fuzzing::{Endpoint, Refusal, Route, Rules, route};
use ociregistry::oci::Registry;

/// Lines: the target, then the header `X-Registry`, if there is a second one.
pub fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (target, registry) = input.split_once('\n').unwrap_or((input, ""));
    let mut headers = HeaderMap::new();
    if let (false, Ok(value)) = (registry.is_empty(), HeaderValue::from_str(registry)) {
        headers.insert("x-registry", value);
    }
    match ask(target, &headers) {
        Some(Ok(found)) => again(&found.endpoint),
        Some(Err(refusal)) => {
            assert!((400..500).contains(&refusal.status) && !refusal.message.is_empty(), "{refusal:?}");
        }
        None => {}
    }
}

fn again(endpoint: &Endpoint) {
    let (name, kind, last) = match endpoint {
        Endpoint::Manifest(image) => (&image.name, "manifests", image.reference.to_string()),
        Endpoint::Blob(name, digest) => (name, "blobs", digest.to_string()),
        Endpoint::Referrers { subject, types } if types.is_empty() => {
            (&subject.name, "referrers", subject.digest.to_string())
        }
        _ => return,
    };
    // Only such a registry can stand in a path.
    if Registry::is_meant(name.registry.as_str()) {
        let target = format!("/v2/{}/{}/{kind}/{last}", name.registry, name.repository);
        let found = ask(&target, &HeaderMap::new());
        assert!(matches!(&found, Some(Ok(found)) if found.endpoint == *endpoint), "{target}: {found:?}");
    }
}

/// None for what is no target of a request at all.
fn ask(target: &str, headers: &HeaderMap) -> Option<Result<Route, Refusal>> {
    let rules = Rules {
        default: "docker.io".parse().ok(),
        known: "quay.io".parse().into_iter().collect(),
        own: "localhost:8080".parse().into_iter().collect(),
    };
    let uri = target.parse::<Uri>().ok()?;
    Some(route(&rules, &Method::GET, &uri, headers))
}
