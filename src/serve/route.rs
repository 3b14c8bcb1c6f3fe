//! From method, path, query and headers to a typed request. Pure; never panics, whatever comes.

use std::borrow::Cow;

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::config::{RegistryPattern, Settings};
use crate::oci::{Code, Digest, Image, Name, Page, Reference, Registry, Subject};

/// Artifact types that one request may ask for.
const MOST_TYPES: usize = 100;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`: is this a registry?
    Base,
    Manifest(Image),
    Blob(Name, Digest),
    Tags {
        name: Name,
        /// The repository as the client wrote it, perhaps with a registry in front.
        asked: String,
        page: Page,
    },
    Referrers {
        subject: Subject,
        /// Of these artifact types only; empty for all.
        types: Vec<String>,
    },
}

impl Endpoint {
    /// The repository that it is in.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Base => None,
            Self::Manifest(image) => Some(&image.name),
            Self::Blob(name, _) | Self::Tags { name, .. } => Some(name),
            Self::Referrers { subject, .. } => Some(&subject.name),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub endpoint: Endpoint,
    /// The registry as `ns` named it, to be said back in `OCI-Namespace`.
    pub namespace: Option<Registry>,
}

/// A request that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: Code,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

/// What routing goes by besides the request.
pub struct Rules {
    /// The registry of a request that names none.
    pub default: Option<Registry>,
    /// Registries that are known as such: a first segment that is one of these is never a repository's.
    pub known: Vec<RegistryPattern>,
    /// Our own addresses: an `ns` that is one of these says nothing.
    pub own: Vec<Registry>,
}

impl Rules {
    pub fn new(settings: &Settings, own: &[Registry]) -> Self {
        Self {
            default: settings.default_registry.clone(),
            known: settings.registries.iter().map(|entry| entry.name.clone()).collect(),
            own: own.to_vec(),
        }
    }
}

/// Where the registry of a request is looked for, in this order: `X-Registry`, `ns`, the path, the default.
pub fn route(rules: &Rules, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Route, Refusal> {
    let path = decode(uri.path())?;
    // containerd's override_path takes `/v2` away.
    let rest = path.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::new(
            405,
            Code::Unsupported,
            format!("{method} is not supported: this registry is pull-only"),
        ));
    }
    let named = named_registry(rules, uri, headers)?;
    let namespace = named.clone().filter(|_| !headers.contains_key("x-registry"));
    let route = |endpoint| Ok(Route { endpoint, namespace });
    let rest = match rest {
        Some("" | "/") => return route(Endpoint::Base),
        Some(rest) => &rest[1..],
        None => path.strip_prefix('/').unwrap_or(&path),
    };
    // From the right: a repository may well have a component `manifests`.
    let parts = rest.rsplit_once('/').and_then(|(rest, last)| Some((rest.rsplit_once('/')?, last)));
    match parts {
        Some(((repository, "manifests"), reference)) => {
            let name = name(rules, named, repository)?;
            let reference = reference.parse::<Reference>().map_err(|error| {
                let code = if reference.contains(':') { Code::DigestInvalid } else { Code::TagInvalid };
                Refusal::new(400, code, error.to_string())
            })?;
            route(Endpoint::Manifest(Image { name, reference }))
        }
        Some(((repository, "blobs"), digest)) => {
            let name = name(rules, named, repository)?;
            route(Endpoint::Blob(name, self::digest(digest)?))
        }
        Some(((repository, "tags"), "list")) => {
            let name = name(rules, named, repository)?;
            route(Endpoint::Tags { name, asked: repository.to_owned(), page: page(uri)? })
        }
        Some(((repository, "referrers"), digest)) => {
            let name = name(rules, named, repository)?;
            let subject = Subject { name, digest: self::digest(digest)? };
            route(Endpoint::Referrers { subject, types: artifact_types(uri)? })
        }
        _ => Err(Refusal::new(
            404,
            Code::Unsupported,
            "not supported: want /v2/<name>/manifests/<reference>, /v2/<name>/blobs/<digest>, \
                /v2/<name>/tags/list or /v2/<name>/referrers/<digest>",
        )),
    }
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|error: crate::oci::InvalidDigest| Refusal::new(400, Code::DigestInvalid, error.to_string()))
}

fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Refusal::new(400, Code::NameInvalid, "the path is not UTF-8"))
}

/// The registry that the header or the query names.
fn named_registry(rules: &Rules, uri: &Uri, headers: &HeaderMap) -> Result<Option<Registry>, Refusal> {
    let parse = |from: &str, text: &str| {
        text.parse::<Registry>()
            .map_err(|error| Refusal::new(400, Code::NameInvalid, format!("{from}: {error}")))
    };
    if let Some(header) = headers.get("x-registry") {
        let text = header.to_str().unwrap_or("(not text)").trim();
        return parse("header X-Registry", text).map(Some);
    }
    let Some(ns) = query(uri, "ns") else { return Ok(None) };
    let ns = ns?;
    if ns.is_empty() {
        return Ok(None);
    }
    let registry = parse("query ns", &ns)?;
    Ok(Some(registry).filter(|registry| !rules.own.contains(registry)))
}

/// The value of the first parameter of that name, if any.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<Result<Cow<'a, str>, Refusal>> {
    queries(uri, name).next()
}

fn queries<'a>(uri: &'a Uri, name: &str) -> impl Iterator<Item = Result<Cow<'a, str>, Refusal>> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decode)
}

/// Which tags are wanted: `n` and `last`.
fn page(uri: &Uri) -> Result<Page, Refusal> {
    let given = |name: &str| Ok(query(uri, name).transpose()?.filter(|value| !value.is_empty()));
    let n = match given("n")? {
        None => None,
        // More digits than fit stand for more tags than there are.
        Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => Some(n.parse().unwrap_or(usize::MAX)),
        Some(n) => {
            let message = format!("query n: want a number of tags, 0 or more, not `{n}`");
            return Err(Refusal::new(400, Code::PaginationNumberInvalid, message));
        }
    };
    Ok(Page { n, last: given("last")?.map(Cow::into_owned) })
}

fn artifact_types(uri: &Uri) -> Result<Vec<String>, Refusal> {
    let given = |value: &Result<Cow<str>, Refusal>| value.as_ref().map_or(true, |value| !value.is_empty());
    let values = queries(uri, "artifactType").filter(given).map(|value| Ok(value?.into_owned()));
    let types: Vec<String> = values.collect::<Result<_, Refusal>>()?;
    if types.len() > MOST_TYPES {
        let message = format!("query artifactType: {} of them are more than {MOST_TYPES}", types.len());
        return Err(Refusal::new(400, Code::Unsupported, message));
    }
    Ok(types)
}

/// Puts registry and repository together. Clients that name the registry elsewhere may have it in the path too.
fn name(rules: &Rules, named: Option<Registry>, path: &str) -> Result<Name, Refusal> {
    let invalid = |error: crate::oci::InvalidName| Refusal::new(400, Code::NameInvalid, error.to_string());
    let in_path = path
        .split_once('/')
        .filter(|(first, _)| Registry::is_meant(first))
        .and_then(|(first, repository)| Some((first, first.parse::<Registry>().ok()?, repository)));
    let (registry, repository) = match (named, in_path) {
        (Some(named), Some((_, in_path, repository))) if named == in_path => (named, repository),
        (Some(named), Some((first, in_path, _))) => {
            // `gcr.io/google.com/…`: a first component with a dot is no registry because of that.
            if first.contains(':')
                || in_path.is_docker()
                || rules.known.iter().any(|known| known.matches(&in_path))
            {
                let message = format!("the request names two registries: {named}, and {in_path} in the path");
                return Err(Refusal::new(400, Code::NameInvalid, message));
            }
            (named, path)
        }
        (Some(named), None) => (named, path),
        (None, Some((_, in_path, repository))) => (in_path, repository),
        (None, None) => match &rules.default {
            Some(default) => (default.clone(), path),
            None => {
                let message = "which registry? Say so with ?ns=<registry>, as /v2/<registry>/<repository>/…, \
                    in a header X-Registry, or set default_ns";
                return Err(Refusal::new(400, Code::NameInvalid, message));
            }
        },
    };
    Ok(Name::new(registry, repository.parse().map_err(invalid)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Rules {
        Rules {
            default: Some("docker.io".parse().unwrap()),
            known: vec!["quay.io".parse().unwrap()],
            own: vec!["localhost:8080".parse().unwrap()],
        }
    }

    fn get(target: &str) -> Result<Route, Refusal> {
        route(&rules(), &Method::GET, &target.parse().unwrap(), &HeaderMap::new())
    }

    fn asked(target: &str) -> String {
        match get(target).unwrap_or_else(|refusal| panic!("{target}: {refusal:?}")).endpoint {
            Endpoint::Base => "base".to_owned(),
            Endpoint::Manifest(image) => image.to_string(),
            Endpoint::Blob(name, digest) => format!("{name} {digest}"),
            Endpoint::Tags { name, asked, page } => format!("{name} {asked} {:?} {:?}", page.n, page.last),
            Endpoint::Referrers { subject, types } => format!("{subject} {types:?}"),
        }
    }

    #[test]
    fn the_base_is_there() {
        assert_eq!(asked("/v2/"), "base");
        assert_eq!(asked("/v2"), "base");
        assert_eq!(asked("/v2/?ns=docker.io"), "base");
    }

    #[test]
    fn a_registry_is_found_in_header_query_path_or_default() {
        assert_eq!(asked("/v2/library/busybox/manifests/1?ns=docker.io"), "docker.io/library/busybox:1");
        assert_eq!(asked("/v2/a/b/manifests/1?x=y&ns=reg.example%3A5000"), "reg.example:5000/a/b:1");
        assert_eq!(asked("/v2/localhost:5000/a/manifests/1"), "localhost:5000/a:1");
        assert_eq!(asked("/v2/registry.k8s.io/pause/manifests/3.9"), "registry.k8s.io/pause:3.9");
        assert_eq!(asked("/v2/busybox/manifests/1"), "docker.io/library/busybox:1");
        let mut headers = HeaderMap::new();
        headers.insert("x-registry", "quay.io".parse().unwrap());
        let uri = "/v2/a/manifests/1?ns=docker.io".parse().unwrap();
        let Endpoint::Manifest(image) = route(&rules(), &Method::GET, &uri, &headers).unwrap().endpoint
        else {
            panic!()
        };
        assert_eq!(image.to_string(), "quay.io/a:1");
    }

    #[test]
    fn the_same_registry_twice_is_one_and_two_different_ones_are_refused() {
        assert_eq!(asked("/v2/quay.io/a/manifests/1?ns=quay.io"), "quay.io/a:1");
        assert_eq!(asked("/v2/index.docker.io/a/b/manifests/1?ns=registry-1.docker.io"), "docker.io/a/b:1");
        assert_eq!(get("/v2/quay.io/a/manifests/1?ns=docker.io").unwrap_err().status, 400);
        assert_eq!(get("/v2/docker.io/a/manifests/1?ns=quay.io").unwrap_err().status, 400);
        assert_eq!(get("/v2/a:5000/a/manifests/1?ns=quay.io").unwrap_err().status, 400);
        assert_eq!(asked("/v2/google.com/a/b/manifests/1?ns=gcr.io"), "gcr.io/google.com/a/b:1");
    }

    #[test]
    fn our_own_address_as_ns_is_ignored() {
        assert_eq!(asked("/v2/quay.io/a/manifests/1?ns=localhost:8080"), "quay.io/a:1");
    }

    #[test]
    fn without_a_default_a_name_is_asked_for() {
        let rules = Rules { default: None, ..rules() };
        let refusal = route(&rules, &Method::GET, &"/v2/a/manifests/1".parse().unwrap(), &HeaderMap::new())
            .unwrap_err();
        assert!(refusal.status == 400 && refusal.message.contains("?ns="), "{refusal:?}");
    }

    #[test]
    fn repositories_of_any_depth_and_odd_names() {
        assert_eq!(asked("/v2/quay.io/a/b/c/d/e/f/manifests/V1"), "quay.io/a/b/c/d/e/f:V1");
        assert_eq!(asked("/v2/quay.io/manifests/blobs/manifests/tags"), "quay.io/manifests/blobs:tags");
        let hex = "a".repeat(64);
        assert_eq!(asked(&format!("/v2/quay.io/a/blobs/sha256%3A{hex}")), format!("quay.io/a sha256:{hex}"));
    }

    #[test]
    fn lists_are_asked_for_by_page_and_by_type() {
        assert_eq!(asked("/v2/busybox/tags/list"), "docker.io/library/busybox busybox None None");
        assert_eq!(
            asked("/v2/quay.io/tags/tags/list?n=10&last=v%31&ns=quay.io"),
            r#"quay.io/tags quay.io/tags Some(10) Some("v1")"#
        );
        assert_eq!(asked("/v2/a/b/tags/list?n=&last="), "docker.io/a/b a/b None None");
        assert_eq!(asked("/v2/a/b/tags/list?n=00"), "docker.io/a/b a/b Some(0) None");
        let many = asked("/v2/a/b/tags/list?n=99999999999999999999999");
        assert_eq!(many, format!("docker.io/a/b a/b Some({}) None", usize::MAX));
        for n in ["-1", "+1", "x", "1.5", "%201"] {
            let refusal = get(&format!("/v2/a/b/tags/list?n={n}")).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (400, Code::PaginationNumberInvalid), "{n}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            asked(&format!(
                "/v2/a/b/referrers/{digest}?artifactType=a%2Fb%2Bjson&artifactType=&artifactType=c/d+e"
            )),
            format!(r#"docker.io/a/b@{digest} ["a/b+json", "c/d+e"]"#)
        );
        let types = |count| get(&format!("/v2/a/b/referrers/{digest}?{}", "artifactType=a/b&".repeat(count)));
        assert!(types(MOST_TYPES).is_ok());
        assert_eq!(types(MOST_TYPES + 1).unwrap_err().status, 400);
        assert_eq!(get("/v2/a/b/referrers/1").unwrap_err().code, Code::DigestInvalid);
        assert_eq!(get("/v2/a/b/tags/lists").unwrap_err().status, 404);
    }

    #[test]
    fn writes_are_refused_and_so_is_nonsense() {
        let put = route(&rules(), &Method::PUT, &"/v2/a/manifests/1".parse().unwrap(), &HeaderMap::new());
        assert_eq!(put.unwrap_err().status, 405);
        assert_eq!(get("/").unwrap_err().status, 404);
        assert_eq!(get("/v2x/").unwrap_err().status, 404);
        assert_eq!(get("/v2/a/manifests/-x").unwrap_err().code, Code::TagInvalid);
        assert_eq!(get("/v2/a/manifests/sha256:x").unwrap_err().code, Code::DigestInvalid);
        assert_eq!(get("/v2/a/blobs/x").unwrap_err().code, Code::DigestInvalid);
        assert_eq!(get("/v2/../etc/manifests/x").unwrap_err().code, Code::NameInvalid);
        assert_eq!(get("/v2/A/manifests/x").unwrap_err().code, Code::NameInvalid);
        assert_eq!(get("/v2/a/manifests/x?ns=%2F").unwrap_err().code, Code::NameInvalid);
        assert_eq!(get("/v2/a/manifests/%FF").unwrap_err().status, 400);
    }

    fn registry() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec!["docker.io", "quay.io", "localhost:5000", "10.0.0.1", "[::1]:5000"])
                .prop_map(str::to_owned),
            "[a-z]{1,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?",
        ]
    }

    fn repository() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec!["manifests", "blobs", "tags", "list", "referrers", "library"]);
        let component =
            prop_oneof!["[a-z0-9]{1,5}(([._]|__|-{1,3})[a-z0-9]{1,4})?", words.prop_map(str::to_owned)];
        // A first component with a dot may be a registry.
        ("[a-z0-9]{1,5}(-[a-z]{1,3})?", prop::collection::vec(component, 0..6))
            .prop_map(|(first, rest)| [vec![first], rest].concat().join("/"))
    }

    fn digest_text() -> impl Strategy<Value = String> {
        prop_oneof!["sha256:[0-9a-f]{64}", "sha512:[0-9a-f]{128}"]
    }

    /// What stands behind the repository.
    fn last() -> impl Strategy<Value = (&'static str, String)> {
        prop_oneof![
            ("[A-Za-z0-9_][A-Za-z0-9._-]{0,20}").prop_map(|tag| ("manifests", tag)),
            digest_text().prop_map(|digest| ("manifests", digest)),
            digest_text().prop_map(|digest| ("blobs", digest)),
            digest_text().prop_map(|digest| ("referrers", digest)),
            Just(("tags", "list".to_owned())),
        ]
    }

    fn endpoint(registry: &str, repository: &str, kind: &str, last: &str) -> Endpoint {
        let name = Name::new(registry.parse().unwrap(), repository.parse().unwrap());
        match kind {
            "manifests" => Endpoint::Manifest(Image { name, reference: last.parse().unwrap() }),
            "blobs" => Endpoint::Blob(name, last.parse().unwrap()),
            "referrers" => Endpoint::Referrers {
                subject: Subject { name, digest: last.parse().unwrap() },
                types: Vec::new(),
            },
            _ => Endpoint::Tags { name, asked: repository.to_owned(), page: Page { n: None, last: None } },
        }
    }

    /// Percent-encodes what cannot stand in a path, and whatever else `also` has a bit for.
    fn encoded(text: &str, also: u64) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte);
        let encode = |(at, byte): (usize, u8)| match plain(byte) && also >> (at % 64) & 1 == 0 {
            true => char::from(byte).to_string(),
            false => percent_encoding::percent_encode_byte(byte).to_owned(),
        };
        text.bytes().enumerate().map(encode).collect()
    }

    /// A segment of a path as it is sent, sound or not.
    fn segment() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec!["", ".", "..", "%2e%2e", "%zz", "%FF", "%00", "localhost:8080"]);
        prop_oneof![
            repository().prop_map(|text| encoded(&text, 0)),
            (registry(), any::<u64>()).prop_map(|(text, also)| encoded(&text, also)),
            (last(), any::<u64>()).prop_map(|((kind, last), also)| encoded(&format!("{kind}/{last}"), also)),
            odd.prop_map(str::to_owned),
            "[ -~]{0,6}",
            "\\PC{0,3}".prop_map(|text| encoded(&text, 0)),
        ]
    }

    fn query_text() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec!["ns", "n", "last", "artifactType", "x"]);
        let value = prop_oneof![registry(), segment(), "[0-9]{0,25}"];
        let pair = (key, value).prop_map(|(key, value)| format!("{key}={value}"));
        prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
    }

    proptest! {
        #[test]
        fn what_is_made_of_sound_parts_is_routed_to_them(
            registry in registry(),
            repository in repository(),
            (kind, last) in last(),
            way in 0..5,
            head: bool,
            also: u64,
        ) {
            let (path, named) = (format!("{repository}/{kind}/{last}"), encoded(&registry, also));
            let in_path = encoded(&format!("{registry}/{path}"), also);
            let path = encoded(&path, also);
            let target = match way {
                0 => format!("/v2/{in_path}"),
                1 => format!("/v2/{path}?ns={named}"),
                2 => format!("/v2/{in_path}?x=y&ns={named}"),
                3 => format!("/v2/{path}"),
                // containerd's override_path
                _ => format!("/{path}?ns=ignored.example"),
            };
            let mut headers = HeaderMap::new();
            if way >= 3 {
                headers.insert("x-registry", registry.parse().unwrap());
            }
            let method = if head { Method::HEAD } else { Method::GET };
            let found = route(&rules(), &method, &target.parse().unwrap(), &headers).unwrap().endpoint;
            let mut wanted = endpoint(&registry, &repository, kind, &last);
            if let (Endpoint::Tags { asked, .. }, true) = (&mut wanted, matches!(way, 0 | 2)) {
                *asked = format!("{registry}/{repository}");
            }
            prop_assert_eq!(found, wanted, "{}", target);
        }

        #[test]
        fn any_request_is_routed_or_refused_and_what_is_routed_routes_back(
            prefix in prop::sample::select(vec!["/v2/", "/v2/", "/v2/", "/", "/v2", "/v2x/"]),
            segments in prop::collection::vec(segment(), 0..5),
            query in query_text(),
            header in prop::option::of(prop_oneof![registry(), "[ -~]{0,10}"]),
            method in prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "PUT", "DELETE", "BREW"]),
        ) {
            let target = format!("{prefix}{}?{query}", segments.join("/"));
            let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.extend(header.and_then(|text| Some((http::HeaderName::from_static("x-registry"), text.parse().ok()?))));
            let found = match route(&rules(), &method.parse().unwrap(), &uri, &headers) {
                Ok(found) => found.endpoint,
                Err(refusal) => {
                    prop_assert!((400..500).contains(&refusal.status) && !refusal.message.is_empty(), "{:?}", refusal);
                    return Ok(());
                }
            };
            let (name, kind, last) = match &found {
                Endpoint::Manifest(image) => (&image.name, "manifests", image.reference.to_string()),
                Endpoint::Blob(name, digest) => (name, "blobs", digest.to_string()),
                Endpoint::Referrers { subject, types } if types.is_empty() => {
                    (&subject.name, "referrers", subject.digest.to_string())
                }
                Endpoint::Referrers { .. } | Endpoint::Tags { .. } | Endpoint::Base => return Ok(()),
            };
            let (registry, repository) = (name.registry.as_str(), name.repository.as_str());
            // Only such a registry can stand in a path.
            if Registry::is_meant(registry) {
                let printed = format!("/v2/{}/{kind}/{last}", encoded(&format!("{registry}/{repository}"), 0));
                prop_assert_eq!(get(&printed).unwrap().endpoint, found, "{}", printed);
            }
        }
    }
}
