//! What is pulled: the same bytes for everybody.

use std::collections::HashMap;

use ociregistry::oci::{Algorithm, Digest, MediaType};

use crate::MIB;
use crate::load::Target;

/// Images in the set; enough that pulls of them are not all of one hot file.
const IMAGES: usize = 1000;

pub struct Image {
    tag: Target,
    index: Target,
    rest: Vec<Target>,
}

impl Image {
    /// As a client pulls it: index by tag, manifest, config, five layers.
    pub fn requests(&self) -> Vec<Target> {
        std::iter::once(&self.tag).chain(&self.rest).cloned().collect()
    }

    pub fn by_tag(&self) -> Target {
        self.tag.clone()
    }

    pub fn by_digest(&self) -> Target {
        self.index.clone()
    }
}

/// Everything, by path.
pub struct Content {
    pub files: HashMap<String, (&'static str, Vec<u8>)>,
    pub images: Vec<Image>,
    pub small: Target,
    pub large: Target,
    pub huge: Target,
}

impl Content {
    pub fn make() -> Self {
        let mut files = HashMap::new();
        let mut add = |path: String, media_type, bytes: Vec<u8>| {
            let target = Target { path: path.clone(), length: bytes.len() };
            files.insert(path, (media_type, bytes));
            target
        };
        let mut images = Vec::new();
        for number in 0..IMAGES {
            let repository = format!("/v2/bench/image-{number}");
            let mut rest = Vec::new();
            let mut descriptors = Vec::new();
            for part in 0..6 {
                let length = if part == 0 { 2_000 } else { 20_000 };
                let bytes = noise(number as u64 * 8 + part, length);
                let digest = Digest::of(Algorithm::Sha256, &bytes);
                descriptors.push(serde_json::json!({
                    "mediaType": "application/octet-stream", "digest": digest, "size": length
                }));
                rest.push(add(format!("{repository}/blobs/{digest}"), "application/octet-stream", bytes));
            }
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": MediaType::OCI_IMAGE,
                "config": descriptors[0], "layers": descriptors[1..],
            });
            let manifest = manifest.to_string().into_bytes();
            let digest = Digest::of(Algorithm::Sha256, &manifest);
            let index = serde_json::json!({
                "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX,
                "manifests": [{
                    "mediaType": MediaType::OCI_IMAGE, "digest": digest, "size": manifest.len(),
                    "platform": { "os": "linux", "architecture": "amd64" }
                }],
            });
            rest.insert(0, add(format!("{repository}/manifests/{digest}"), MediaType::OCI_IMAGE, manifest));
            let index = index.to_string().into_bytes();
            let digest = Digest::of(Algorithm::Sha256, &index);
            let tag = add(format!("{repository}/manifests/v1"), MediaType::OCI_INDEX, index.clone());
            let index = add(format!("{repository}/manifests/{digest}"), MediaType::OCI_INDEX, index);
            images.push(Image { tag, index, rest });
        }
        let mut blob = |seed, length| {
            let bytes = noise(seed, length);
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            add(format!("/v2/bench/blobs/blobs/{digest}"), "application/octet-stream", bytes)
        };
        let small = blob(1 << 40, MIB);
        let large = blob(2 << 40, 64 * MIB);
        let huge = blob(3 << 40, 128 * MIB);
        Self { files, images, small, large, huge }
    }
}

/// Bytes that look random and are the same in every run (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
