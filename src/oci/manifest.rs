//! What we read of a manifest: the descriptors in it (image-spec, manifest.md and image-index.md).

use serde::Deserialize;

use super::{Digest, Kind, MediaType, Platform};

/// The largest manifest that is taken from an upstream, in bytes (distribution-spec: at least 4 MiB).
pub const MAX_MANIFEST: usize = 4 << 20;

/// A pointer to content. What we do not act on is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub media_type: Option<MediaType>,
    pub platform: Option<Platform>,
    /// Has `urls`: its content may be elsewhere, and nobody should count on it here (foreign layers).
    pub foreign: bool,
}

/// A parsed manifest, index or artifact. Descriptors that make no sense to us are left out: a document we
/// cannot wholly read is still served byte for byte.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub media_type: MediaType,
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// An image's config and layers, an artifact's blobs.
    pub blobs: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    manifests: Option<Vec<serde_json::Value>>,
    config: Option<serde_json::Value>,
    layers: Option<Vec<serde_json::Value>>,
    blobs: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    digest: Digest,
    size: u64,
    media_type: Option<String>,
    platform: Option<serde_json::Value>,
    urls: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Manifest {
    /// Reads what an upstream sent. `content_type` is its word for it; where that says nothing, the document's
    /// own `mediaType` and then its shape decide. None when it is no JSON object at all.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let told = content_type.and_then(MediaType::new).filter(|t| !is_vague(t.as_str()));
        let own = document.media_type.as_deref().and_then(MediaType::new);
        let by_shape = || {
            MediaType::new(match document.manifests {
                Some(_) => MediaType::OCI_INDEX,
                None => MediaType::OCI_IMAGE,
            })
        };
        let media_type = told.or(own).or_else(by_shape)?;
        let list = |values: Option<Vec<serde_json::Value>>| {
            values.unwrap_or_default().into_iter().filter_map(descriptor).collect::<Vec<_>>()
        };
        let mut blobs: Vec<_> = document.config.and_then(descriptor).into_iter().collect();
        blobs.extend(list(document.layers));
        blobs.extend(list(document.blobs));
        Some(Self { media_type, manifests: list(document.manifests), blobs })
    }

    /// The manifests of an index that are for one platform.
    pub fn for_platform(&self, platform: &Platform) -> impl Iterator<Item = &Descriptor> {
        let fits = |own: &Platform| platform.takes(own);
        self.manifests.iter().filter(move |descriptor| descriptor.platform.as_ref().is_some_and(fits))
    }

    pub fn kind(&self) -> Kind {
        match self.media_type.kind() {
            Kind::Other if !self.manifests.is_empty() => Kind::Index,
            kind => kind,
        }
    }
}

/// Types that servers send when they do not know better.
fn is_vague(media_type: &str) -> bool {
    matches!(media_type, "application/json" | "application/octet-stream" | "text/plain")
}

fn descriptor(value: serde_json::Value) -> Option<Descriptor> {
    let raw: RawDescriptor = serde_json::from_value(value).ok()?;
    Some(Descriptor {
        digest: raw.digest,
        size: raw.size,
        media_type: raw.media_type.as_deref().and_then(MediaType::new),
        // What it points to is there, for whatever it is.
        platform: raw.platform.and_then(platform),
        foreign: raw.urls.is_some_and(|urls| !urls.is_empty()),
    })
}

fn platform(value: serde_json::Value) -> Option<Platform> {
    let raw: RawPlatform = serde_json::from_value(value).ok()?;
    let variant = raw.variant.filter(|variant| !variant.is_empty());
    Some(Platform { os: raw.os, arch: raw.architecture, variant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn an_image_names_config_and_layers() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":7}},
                "layers":[{{"digest":"{}","size":8,"urls":["https://x"]}},{{"digest":"broken","size":1}}]}}"#,
            digest('a'),
            digest('b')
        );
        let manifest = Manifest::parse(None, text.as_bytes()).unwrap();
        assert_eq!(manifest.media_type.as_str(), MediaType::OCI_IMAGE);
        assert_eq!(manifest.blobs.len(), 2);
        assert!(!manifest.blobs[0].foreign && manifest.blobs[1].foreign);
    }

    #[test]
    fn an_index_lists_platforms() {
        let text = format!(
            r#"{{"mediaType":"{}","manifests":[
                {{"digest":"{}","size":7,"platform":{{"os":"linux","architecture":"amd64"}}}},
                {{"digest":"{}","size":7,"platform":{{"os":"linux","architecture":"arm64"}}}}]}}"#,
            MediaType::DOCKER_LIST,
            digest('a'),
            digest('b')
        );
        let index = Manifest::parse(Some("application/json"), text.as_bytes()).unwrap();
        assert_eq!(index.kind(), Kind::Index);
        let amd64 = "linux/amd64".parse().unwrap();
        assert_eq!(index.for_platform(&amd64).count(), 1);
    }

    #[test]
    fn what_a_descriptor_says_besides_costs_it_nothing() {
        for (besides, foreign) in [
            (r#""urls":null"#, false),
            (r#""urls":[]"#, false),
            (r#""urls":["https://x"]"#, true),
            (r#""platform":null"#, false),
            (r#""platform":{}"#, false),
            (r#""platform":{"architecture":"amd64"}"#, false),
            (r#""platform":{"os":"linux","architecture":null}"#, false),
            (r#""platform":"linux/amd64""#, false),
        ] {
            let one = format!(r#"{{"digest":"{}","size":7,{besides}}}"#, digest('a'));
            let text = format!(r#"{{"config":{one},"layers":[{one}],"manifests":[{one}]}}"#);
            let manifest = Manifest::parse(None, text.as_bytes()).unwrap();
            assert_eq!((manifest.manifests.len(), manifest.blobs.len()), (1, 2), "{besides}");
            for descriptor in manifest.manifests.iter().chain(&manifest.blobs) {
                assert_eq!((descriptor.foreign, &descriptor.platform), (foreign, &None), "{besides}");
            }
        }
    }

    #[test]
    fn unknown_types_are_kept_and_pages_are_not_manifests() {
        let chart = Manifest::parse(Some("application/vnd.example+json"), b"{}").unwrap();
        assert_eq!((chart.media_type.as_str(), chart.kind()), ("application/vnd.example+json", Kind::Other));
        assert!(Manifest::parse(Some("text/html"), b"<html>").is_none());
        assert!(Manifest::parse(None, b"[]").is_none());
    }
}
