//! `docker.io/library/hello-world:latest` out of the program itself: an image that runs, for a first pull where there
//! is no upstream. An index, and for each platform a manifest, a config and a layer with one program in it that
//! prints a greeting ([`program`]). Pure: made when it is first asked for, the same bytes each time.

mod program;
mod tar;

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::oci::{Algorithm, Digest, Image, MediaType, Name, Reference};
use program::Machine;

const REGISTRY: &str = "docker.io";
const REPOSITORY: &str = "library/hello-world";
const TAG: &str = "latest";

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A manifest or the index.
#[derive(Clone)]
pub struct Document {
    pub digest: Digest,
    pub media_type: MediaType,
    pub bytes: Bytes,
}

/// The index or a manifest of the greeting, if that is what is named.
pub fn manifest(image: &Image) -> Option<&'static Document> {
    let digest = match &image.reference {
        _ if !is_its_name(&image.name) => return None,
        Reference::Tag(tag) => (tag.as_str() == TAG).then_some(&CONTENT.index)?,
        Reference::Digest(digest) => digest,
    };
    CONTENT.documents.get(digest)
}

/// A config or layer of the greeting, if that is what is named.
pub fn blob(name: &Name, digest: &Digest) -> Option<&'static Bytes> {
    is_its_name(name).then(|| CONTENT.blobs.get(digest))?
}

fn is_its_name(name: &Name) -> bool {
    name.registry.as_str() == REGISTRY && name.repository.as_str() == REPOSITORY
}

static CONTENT: LazyLock<Content> = LazyLock::new(Content::make);

struct Content {
    index: Digest,
    documents: HashMap<Digest, Document>,
    blobs: HashMap<Digest, Bytes>,
}

impl Content {
    fn make() -> Self {
        let mut content = Self {
            index: Digest::of(Algorithm::Sha256, &[]),
            documents: HashMap::new(),
            blobs: HashMap::new(),
        };
        let manifests: Vec<_> = Machine::ALL.iter().map(|machine| content.add_image(*machine)).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests });
        content.index = content.add_document(MediaType::OCI_INDEX, &index).0;
        content
    }

    /// The descriptor that goes into the index.
    fn add_image(&mut self, machine: Machine) -> Value {
        let (os, architecture) = ("linux", machine.architecture());
        let layer =
            self.add_blob(LAYER, tar::of_program("hello", &program::elf(machine, &greeting(machine))));
        let config = json!({
            "os": os,
            "architecture": architecture,
            "config": { "Cmd": ["/hello"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
            "history": [{ "created_by": concat!("ociregistry ", env!("CARGO_PKG_VERSION")) }],
        });
        let config = self.add_blob(CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_IMAGE,
            "config": config,
            "layers": [layer],
        });
        let (digest, size) = self.add_document(MediaType::OCI_IMAGE, &manifest);
        json!({
            "mediaType": MediaType::OCI_IMAGE,
            "digest": digest,
            "size": size,
            "platform": { "os": os, "architecture": architecture },
        })
    }

    fn add_document(&mut self, media_type: &str, document: &Value) -> (Digest, usize) {
        let bytes = Bytes::from(document.to_string());
        let (digest, size) = (Digest::of(Algorithm::Sha256, &bytes), bytes.len());
        // The types above are types.
        if let Some(media_type) = MediaType::new(media_type) {
            self.documents.insert(digest, Document { digest, media_type, bytes });
        }
        (digest, size)
    }

    /// Its descriptor.
    fn add_blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.blobs.insert(digest, bytes.into());
        descriptor
    }
}

fn greeting(machine: Machine) -> String {
    format!(
        "
Hello from ociregistry!

Your client pulled this image through ociregistry, found its part for linux/{},
and ran the program in it, which printed this. No other registry was asked: the
image comes out of the ociregistry program itself.

For something real, name the registry in front of the image:
  registry.k8s.io/pause:3.10, docker.io/library/busybox:latest
",
        machine.architecture()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Manifest;

    fn image(text: &str) -> Image {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_whole_and_every_digest_and_size_is_right() {
        let index = manifest(&image("hello-world")).unwrap();
        assert_eq!(index.media_type.as_str(), MediaType::OCI_INDEX);
        let parsed = Manifest::parse(None, &index.bytes).unwrap();
        let platforms: Vec<_> =
            parsed.manifests.iter().map(|m| m.platform.as_ref().unwrap().to_string()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        for one in &parsed.manifests {
            let child = manifest(&image(&format!("docker.io/library/hello-world@{}", one.digest))).unwrap();
            assert_eq!((child.digest, child.bytes.len() as u64), (one.digest, one.size));
            assert_eq!(Digest::of(Algorithm::Sha256, &child.bytes), one.digest);
            let blobs = Manifest::parse(None, &child.bytes).unwrap().blobs;
            assert_eq!(blobs.len(), 2);
            for one in blobs {
                let bytes = blob(&image("hello-world").name, &one.digest).unwrap();
                assert_eq!(Digest::of(Algorithm::Sha256, bytes), one.digest);
                assert_eq!(bytes.len() as u64, one.size);
            }
        }
    }

    #[test]
    fn nothing_else_is_it() {
        for other in ["hello-world:other", "docker.io/other/hello-world", "quay.io/library/hello-world"] {
            assert!(manifest(&image(other)).is_none(), "{other}");
        }
        let layer = *CONTENT.blobs.keys().next().unwrap();
        assert!(blob(&image("hello-world").name, &layer).is_some());
        assert!(blob(&image("busybox").name, &layer).is_none());
        assert!(manifest(&image(&format!("hello-world@{layer}"))).is_none());
    }
}
