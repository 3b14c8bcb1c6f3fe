//! Names: which registry, which repository, which tag or digest (distribution-spec, "Pulling manifests").

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use super::Digest;

/// Why a text is no registry, repository, tag or image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {want}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    want: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, text: &str, want: &'static str) -> Self {
        let text = text.chars().take(300).collect();
        Self { what, text, want }
    }
}

/// A registry's host, with a port where one was given: `quay.io`, `localhost:5000`, `[::1]:5000`.
///
/// However it was written, one place has one name: in lower case, ports and addresses as numbers are printed, and
/// docker.io's aliases folded into `docker.io`. Safe as the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(Arc<str>);

const DOCKER: &str = "docker.io";

impl Registry {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_docker(&self) -> bool {
        &*self.0 == DOCKER
    }

    /// Whether the first segment of a path names a registry: it has a dot or a colon, or is `localhost`.
    pub fn is_meant(segment: &str) -> bool {
        segment.contains(['.', ':']) || segment == "localhost"
    }
}

impl FromStr for Registry {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let canonical = canonical(&text.to_ascii_lowercase()).ok_or_else(|| {
            InvalidName::new("registry", text, "want host, host:port, address:port or [IPv6]:port")
        })?;
        Ok(Self(Arc::from(canonical)))
    }
}

/// The one way to write `host[:port]`; none for what is none.
fn canonical(text: &str) -> Option<String> {
    if text.len() > 255 {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(read_port(port)?)),
        _ => (text, None),
    };
    let host = match host.strip_prefix('[') {
        Some(address) => match address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
        None if !host.split('.').all(is_label) => return None,
        // `10.1` and `0xa000001` are 10.0.0.1 to whoever dials them.
        None => match url::Host::parse(host) {
            Ok(url::Host::Ipv4(address)) => address.to_string(),
            _ => host.to_owned(),
        },
    };
    let docker = matches!(&*host, DOCKER | "index.docker.io" | "registry-1.docker.io");
    match port {
        None | Some(80 | 443) if docker => Some(DOCKER.to_owned()),
        None => Some(host),
        Some(port) => Some(format!("{host}:{port}")),
    }
}

fn read_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Characters of a repository.
const LONGEST: usize = 255;

/// A repository of any depth: `library/busybox`. At most 255 characters, and safe as a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Arc<str>);

impl Repository {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() <= LONGEST && text.split('/').all(is_component) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidName::new(
                "repository",
                text,
                "want at most 255 characters of [a-z0-9], with separators . _ __ - inside, and / between components",
            ))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: begins and ends with a letter or digit, separators stand alone.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, its case kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_latest(&self) -> bool {
        &*self.0 == "latest"
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidName::new("tag", text, "want 1 to 128 of [a-zA-Z0-9._-], not beginning with . or -"))
        }
    }
}

/// What stands behind `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.contains(':') {
            match text.parse() {
                Ok(digest) => Ok(Self::Digest(digest)),
                Err(_) => Err(InvalidName::new("digest", text, "want sha256: or sha512: and its hex digits")),
            }
        } else {
            text.parse().map(Self::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// A repository in its registry: `docker.io/library/busybox`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub registry: Registry,
    pub repository: Repository,
}

impl Name {
    /// Puts the two together; `docker.io/hello-world` means `docker.io/library/hello-world`. Nothing is meant by a
    /// name that would become too long for a repository.
    pub fn new(registry: Registry, repository: Repository) -> Self {
        let official = |repository: &Repository| {
            let short = registry.is_docker() && !repository.as_str().contains('/');
            let full = short.then(|| format!("library/{repository}"))?;
            (full.len() <= LONGEST).then(|| Repository(Arc::from(full)))
        };
        let repository = official(&repository).unwrap_or(repository);
        Self { registry, repository }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// A manifest or index by its full name: `docker.io/library/busybox:1.36`, `quay.io/a/b@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    pub name: Name,
    pub reference: Reference,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Reference::Tag(tag) => write!(f, "{}:{tag}", self.name),
            Reference::Digest(digest) => write!(f, "{}@{digest}", self.name),
        }
    }
}

impl FromStr for Image {
    type Err = InvalidName;

    /// Reads what people type: a missing registry is docker.io, a missing tag is `latest`, and a digest
    /// beats a tag that stands beside it.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (rest, "latest"),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, repository)) if Registry::is_meant(first) => (first, repository),
            _ => (DOCKER, path),
        };
        let name = Name::new(registry.parse()?, repository.parse()?);
        let reference = match digest {
            Some(digest) => Reference::Digest(digest.parse().map_err(|_| {
                InvalidName::new("digest", digest, "want sha256: or sha512: and its hex digits")
            })?),
            None => Reference::Tag(tag.parse()?),
        };
        Ok(Self { name, reference })
    }
}

/// As its full name.
impl serde::Serialize for Image {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Image {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! prints_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

prints_as_text!(Registry, Repository, Tag);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn registries() {
        for text in
            ["quay.io", "localhost", "localhost:5000", "a-b.c:1", "10.0.0.1:5000", "[::1]:5000", "[fe80::1]"]
        {
            assert_eq!(text.parse::<Registry>().unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a/b",
            "a:0",
            "a:99999",
            "a:",
            "a:+5",
            "[::1",
            "[x]:1",
            "a b",
            "_a",
            "a@b",
            "::1",
            "[::1]5000",
            "[::1]:",
            "a:1:2",
            "[10.0.0.1]",
            "[::1]:0",
        ] {
            assert!(text.parse::<Registry>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_has_one_name_however_it_is_written() {
        for (text, name) in [
            ("Reg.Example:05000", "reg.example:5000"),
            ("quay.io:000443", "quay.io:443"),
            ("[0:0::1]:5000", "[::1]:5000"),
            ("[FE80:0:0:0:0:0:0:1]", "[fe80::1]"),
            ("[::ffff:10.0.0.1]:5000", "10.0.0.1:5000"),
            ("[::ffff:a00:1]", "10.0.0.1"),
            ("10.1:5000", "10.0.0.1:5000"),
            ("0xa000001", "10.0.0.1"),
            ("167772161", "10.0.0.1"),
            ("012.0.0.1", "10.0.0.1"),
            // No address to anybody.
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("256.0.0.1", "256.0.0.1"),
        ] {
            assert_eq!(text.parse::<Registry>().unwrap().as_str(), name, "{text}");
        }
    }

    #[test]
    fn docker_io_has_one_name() {
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.io"] {
            for port in ["", ":443", ":80", ":0443"] {
                assert!(format!("{host}{port}").parse::<Registry>().unwrap().is_docker(), "{host}{port}");
            }
        }
        for text in ["docker.io:5000", "auth.docker.io", "xdocker.io"] {
            assert!(!text.parse::<Registry>().unwrap().is_docker(), "{text}");
        }
    }

    #[test]
    fn repositories() {
        for text in ["a", "library/busybox", "a/b/c/d/e/f", "a.b/c__d/e-f/g---h", "0/1_2"] {
            assert!(text.parse::<Repository>().is_ok(), "{text}");
        }
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a//b",
            "a..b",
            "a._b",
            "a___b",
            "_tags/a",
            ".a",
            "-a",
            "a.",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
        assert!("a".repeat(255).parse::<Repository>().is_ok());
    }

    #[test]
    fn tags() {
        for text in ["latest", "V1.2-Rc_3", "_x", &"T".repeat(128)] {
            assert!(text.parse::<Tag>().is_ok(), "{text}");
        }
        for text in ["", ".a", "-a", "a:b", "a/b", "ä", &"t".repeat(129)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }

    #[test]
    fn images_as_people_type_them() {
        let hex = "a".repeat(64);
        for (typed, meant) in [
            ("busybox".to_owned(), "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36".into(), "docker.io/library/busybox:1.36".into()),
            ("docker.io/hello-world".into(), "docker.io/library/hello-world:latest".into()),
            ("registry.k8s.io/pause:3.9".into(), "registry.k8s.io/pause:3.9".into()),
            ("localhost:5000/a/b".into(), "localhost:5000/a/b:latest".into()),
            (format!("quay.io/a/b:1@sha256:{hex}"), format!("quay.io/a/b@sha256:{hex}")),
        ] {
            assert_eq!(typed.parse::<Image>().unwrap().to_string(), meant);
        }
    }

    #[test]
    fn a_name_of_docker_io_never_becomes_too_long() {
        for length in [247, 248, 255] {
            let short = "a".repeat(length);
            let name = Name::new("docker.io".parse().unwrap(), short.parse().unwrap());
            let library = if length == 247 { "library/" } else { "" };
            assert_eq!(name.repository.as_str(), format!("{library}{short}"));
            assert_eq!(format!("{name}:1").parse::<Image>().unwrap().name, name);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_prints_back(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,80}|.*") {
            if let Ok(name) = text.parse::<Repository>() { prop_assert_eq!(name.as_str(), &text); }
            if let Ok(tag) = text.parse::<Tag>() { prop_assert_eq!(tag.as_str(), &text); }
            if let Ok(reference) = text.parse::<Reference>() { prop_assert_eq!(reference.to_string(), text.clone()); }
            if let Ok(registry) = text.parse::<Registry>() {
                prop_assert_eq!(registry.as_str().parse::<Registry>().unwrap(), registry);
            }
            if let Ok(image) = text.parse::<Image>() {
                prop_assert_eq!(image.to_string().parse::<Image>().unwrap(), image);
            }
        }

        #[test]
        fn a_name_is_safe_as_a_path(text in "[a-z0-9._/-]{0,40}") {
            if let Ok(repository) = text.parse::<Repository>() {
                for component in repository.as_str().split('/') {
                    prop_assert!(!component.is_empty() && component != "." && component != ".." && !component.starts_with('_'));
                }
            }
        }
    }
}
