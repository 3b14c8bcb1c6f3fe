//! Content as a registry holds it: blobs, manifests, and the repositories that name them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

pub const MIB: u64 = 1 << 20;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// The digest without its algorithm: the name of a file in the store.
pub fn hex_of(digest: &str) -> &str {
    digest.split_once(':').unwrap().1
}

#[derive(Clone)]
enum Bytes {
    Held(Arc<Vec<u8>>),
    /// Made as it is read, so that 300 MiB of it weigh nothing.
    Random {
        seed: u64,
        size: u64,
    },
}

#[derive(Clone)]
pub struct Blob {
    pub digest: String,
    bytes: Bytes,
}

impl Blob {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes: Bytes::Held(Arc::new(bytes)) }
    }

    pub fn with_sha512(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha512(&bytes), bytes: Bytes::Held(Arc::new(bytes)) }
    }

    /// Incompressible, the same for the same seed, and different at every offset.
    pub fn random(seed: u64, size: u64) -> Self {
        let mut blob = Self { digest: String::new(), bytes: Bytes::Random { seed, size } };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; MIB as usize];
        let mut at = 0;
        while at < size {
            let n = blob.read_at(at, &mut buffer);
            hash.update(&buffer[..n]);
            at += n as u64;
        }
        blob.digest = format!("sha256:{}", hex(&hash.finalize()));
        blob
    }

    pub fn hex(&self) -> &str {
        hex_of(&self.digest)
    }

    pub fn size(&self) -> u64 {
        match &self.bytes {
            Bytes::Held(bytes) => bytes.len() as u64,
            Bytes::Random { size, .. } => *size,
        }
    }

    /// Fills as much of `into` as there is from `offset` on.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> usize {
        let n = self.size().saturating_sub(offset).min(into.len() as u64) as usize;
        match &self.bytes {
            Bytes::Held(bytes) => into[..n].copy_from_slice(&bytes[offset as usize..][..n]),
            Bytes::Random { seed, .. } => noise(*seed, offset, &mut into[..n]),
        }
        n
    }

    pub fn slice(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let n = self.read_at(offset, &mut bytes);
        bytes.truncate(n);
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.slice(0, self.size())
    }
}

/// One mebibyte of noise, repeated, with the seed and the count of the repetition stamped on its beginning: as fast
/// as a copy, and a byte from the wrong place never goes unseen for long.
fn noise(seed: u64, offset: u64, mut into: &mut [u8]) {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    let block = BLOCK.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..MIB / 8).flat_map(|_| word()).collect()
    });
    let mut offset = offset;
    while !into.is_empty() {
        let (count, start) = (offset / MIB, (offset % MIB) as usize);
        let n = into.len().min(block.len() - start);
        into[..n].copy_from_slice(&block[start..start + n]);
        let stamp = [seed.to_le_bytes(), count.to_le_bytes()].concat();
        for (at, byte) in stamp.iter().enumerate().skip(start) {
            if at - start < n {
                into[at - start] ^= byte;
            }
        }
        into = &mut into[n..];
        offset += n as u64;
    }
}

#[derive(Clone)]
pub struct Manifest {
    pub digest: String,
    pub media_type: String,
    pub bytes: Arc<Vec<u8>>,
}

impl Manifest {
    pub fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), media_type: media_type.into(), bytes: Arc::new(bytes) }
    }

    pub fn json(media_type: &str, value: &Value) -> Self {
        Self::new(media_type, serde_json::to_vec_pretty(value).unwrap())
    }

    pub fn hex(&self) -> &str {
        hex_of(&self.digest)
    }

    /// The same bytes under their sha512 digest.
    pub fn under_sha512(mut self) -> Self {
        self.digest = sha512(&self.bytes);
        self
    }
}

/// A layer and the digest of what it unpacks to.
#[derive(Clone)]
pub struct Layer {
    pub blob: Blob,
    diff_id: String,
}

impl Layer {
    /// Noise instead of a tar: for those who never unpack it.
    pub fn random(seed: u64, size: u64) -> Self {
        let blob = Blob::random(seed, size);
        Self { diff_id: blob.digest.clone(), blob }
    }

    pub fn of_files(files: &[(&str, &[u8], u32)]) -> Self {
        let tar = Self::tar(files);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        Self { diff_id: sha256(&tar), blob: Blob::new(gzip.finish().unwrap()) }
    }

    /// For a client to compress.
    pub fn uncompressed(files: &[(&str, &[u8], u32)]) -> Self {
        let tar = Self::tar(files);
        Self { diff_id: sha256(&tar), blob: Blob::new(tar) }
    }

    fn tar(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes, mode) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(*mode);
            header.set_cksum();
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// A gzip tar of one incompressible file of `size` bytes.
    pub fn of_noise(seed: u64, size: u64) -> Self {
        let mut bytes = vec![0; size as usize];
        noise(seed, 0, &mut bytes);
        Self::of_files(&[(&format!("noise-{seed}"), &bytes, 0o644)])
    }
}

#[derive(Clone)]
pub struct Image {
    pub manifest: Manifest,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::build(layers, "amd64", false)
    }

    pub fn for_arch(arch: &str, layers: Vec<Layer>) -> Self {
        Self::build(layers, arch, false)
    }

    pub fn docker(layers: Vec<Layer>) -> Self {
        Self::build(layers, "amd64", true)
    }

    /// One small layer: enough for whatever looks at requests and not at sizes.
    pub fn small(seed: u64) -> Self {
        Self::new(vec![Layer::of_noise(seed, 20_000)])
    }

    /// One layer of noise of `size` bytes.
    pub fn of_size(seed: u64, size: u64) -> Self {
        Self::new(vec![Layer::random(seed, size)])
    }

    /// Says `ran <seed>` when it is run. Debian's busybox-static gives the program.
    pub fn runnable(seed: u64) -> Self {
        Self::new(Self::runnable_layers(seed))
    }

    pub fn runnable_layers(seed: u64) -> Vec<Layer> {
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let program = Layer::of_files(&[("bin/busybox", &busybox, 0o755)]);
        let message = Layer::of_files(&[("message", format!("ran {seed}\n").as_bytes(), 0o644)]);
        vec![program, Layer::of_noise(seed, 3 * MIB), message]
    }

    fn build(layers: Vec<Layer>, arch: &str, docker: bool) -> Self {
        let config = Blob::new(
            serde_json::to_vec(&json!({
                "architecture": arch,
                "os": "linux",
                "config": {"Cmd": ["/bin/busybox", "cat", "/message"]},
                "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
                "history": layers.iter().map(|_| json!({"created_by": "tests"})).collect::<Vec<_>>(),
            }))
            .unwrap(),
        );
        let (manifest_type, config_type, layer_type) = match docker {
            true => (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER),
            false => (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER),
        };
        let layers: Vec<Blob> = layers.into_iter().map(|layer| layer.blob).collect();
        let manifest = Manifest::json(
            manifest_type,
            &json!({
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "config": descriptor(config_type, &config),
                "layers": layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>(),
            }),
        );
        Self { manifest, config, layers }
    }

    /// What a client fetches after the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size()})
}

/// An index over manifests, each with its architecture (`""`: none given).
pub fn index(media_type: &str, children: &[(&Manifest, &str)]) -> Manifest {
    let children: Vec<Value> = children
        .iter()
        .map(|(child, arch)| {
            let mut entry =
                json!({"mediaType": child.media_type, "digest": child.digest, "size": child.bytes.len()});
            if !arch.is_empty() {
                entry["platform"] = json!({"architecture": arch, "os": "linux"});
            }
            entry
        })
        .collect();
    Manifest::json(media_type, &json!({"schemaVersion": 2, "mediaType": media_type, "manifests": children}))
}

/// A manifest of a type that nobody has heard of, padded to exactly `size` bytes.
pub fn artifact(media_type: &str, size: usize) -> Manifest {
    let bare = json!({"schemaVersion": 2, "mediaType": media_type, "padding": ""}).to_string();
    let padding = "x".repeat(size - bare.len());
    Manifest::new(
        media_type,
        json!({"schemaVersion": 2, "mediaType": media_type, "padding": padding}).to_string(),
    )
}

#[derive(Clone, Default)]
pub struct Repository {
    pub tags: BTreeMap<String, String>,
    pub manifests: BTreeMap<String, Manifest>,
    pub blobs: BTreeMap<String, Blob>,
    /// Descriptors, by the digest of what they refer to.
    pub referrers: BTreeMap<String, Vec<Value>>,
}

/// Repositories by name.
#[derive(Clone, Default)]
pub struct Layout(pub BTreeMap<String, Repository>);

impl Layout {
    pub fn new() -> Self {
        Self::default()
    }

    /// A layout of one tagged image.
    pub fn of(repository: &str, tag: &str, image: &Image) -> Self {
        let mut layout = Self::new();
        layout.add(repository, tag, image);
        layout
    }

    pub fn add(&mut self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.add_blob(repository, blob);
        }
        self.add_manifest(repository, tag, &image.manifest);
    }

    /// `tag` may be empty: then the manifest is known by its digest only.
    pub fn add_manifest(&mut self, repository: &str, tag: &str, manifest: &Manifest) {
        let repository = self.0.entry(repository.into()).or_default();
        repository.manifests.insert(manifest.digest.clone(), manifest.clone());
        if !tag.is_empty() {
            repository.tags.insert(tag.into(), manifest.digest.clone());
        }
    }

    /// An artifact of this type that refers to `subject`: its descriptor.
    pub fn add_referrer(
        &mut self,
        repository: &str,
        subject: &Manifest,
        artifact_type: &str,
        seed: u64,
    ) -> Value {
        let manifest = Manifest::json(
            OCI_MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": artifact_type,
                "config": descriptor("application/vnd.oci.empty.v1+json", &Blob::new("{}")),
                "layers": [],
                "subject": {
                    "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len()
                },
                "annotations": {"seed": seed.to_string()},
            }),
        );
        let referrer = json!({
            "mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
            "artifactType": artifact_type,
        });
        self.add_manifest(repository, "", &manifest);
        let referrers = &mut self.0.get_mut(repository).unwrap().referrers;
        referrers.entry(subject.digest.clone()).or_default().push(referrer.clone());
        referrer
    }

    pub fn add_blob(&mut self, repository: &str, blob: &Blob) {
        self.0.entry(repository.into()).or_default().blobs.insert(blob.digest.clone(), blob.clone());
    }
}

/// Hashes a file as `sha256sum` does, or `sha512sum` where its name is that long.
pub fn file_hex(path: &Path) -> String {
    match path.file_name().unwrap().len() {
        128 => file_hash::<Sha512>(path),
        _ => file_hash::<Sha256>(path),
    }
}

fn file_hash<D: Digest>(path: &Path) -> String {
    let mut file = std::fs::File::open(path).unwrap();
    let (mut hash, mut buffer) = (D::new(), vec![0; MIB as usize]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hex(&hash.finalize()),
            n => hash.update(&buffer[..n]),
        }
    }
}
