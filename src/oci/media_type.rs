//! Media types of manifests, and what is asked of an upstream.

use std::fmt;
use std::sync::Arc;

/// What every upstream is asked for, whatever the client asked for: an upstream that chose by `Accept` would
/// give other bytes for the same tag to other clients.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// A media type without parameters, as it goes into a `Content-Type`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

/// What kind of document a media type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lists other manifests, usually one a platform.
    Index,
    /// Names a config and layers.
    Image,
    /// Anything else; kept and served byte for byte.
    Other,
}

impl MediaType {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Takes a `Content-Type` or a `mediaType`: parameters are dropped, and what could not stand in a header
    /// is none.
    pub fn new(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        let (kind, subtype) = essence.split_once('/')?;
        let valid = |part: &str| !part.is_empty() && part.bytes().all(token);
        (essence.len() <= 255 && valid(kind) && valid(subtype)).then(|| Self(Arc::from(essence)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> Kind {
        match &*self.0 {
            Self::OCI_INDEX | Self::DOCKER_LIST => Kind::Index,
            Self::OCI_IMAGE | Self::DOCKER_IMAGE => Kind::Image,
            _ => Kind::Other,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for MediaType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for MediaType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("not a media type"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_dropped_and_nonsense_is_none() {
        let media_type = MediaType::new("application/vnd.oci.image.index.v1+json; charset=utf-8").unwrap();
        assert_eq!(media_type.as_str(), MediaType::OCI_INDEX);
        assert_eq!(media_type.kind(), Kind::Index);
        for text in ["", "text", "text/", "a/b\r\nX: y", "a/b/c", "ä/b"] {
            assert!(MediaType::new(text).is_none(), "{text}");
        }
    }
}
