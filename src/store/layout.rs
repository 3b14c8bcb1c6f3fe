//! Where each thing stands in the folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::oci::{Digest, Image, Name, Reference, Subject};

/// What is named by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Blob,
    /// Or an index.
    Manifest,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Blob, Self::Manifest];
}

/// Opens what stands there to be read. A pipe that somebody made there does not make us wait for a writer.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)
}

#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub const FOLDERS: [&str; 4] = ["blobs", "img", "partial", "refs"];

    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub fn store_json(&self) -> PathBuf {
        self.root.join("store.json")
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Images that are never pruned.
    pub fn pins(&self) -> PathBuf {
        self.root.join("pins.json")
    }

    /// The result of the last check.
    pub fn check(&self) -> PathBuf {
        self.root.join("check.json")
    }

    /// The folder of all content of a kind.
    pub fn contents(&self, kind: Kind) -> PathBuf {
        self.root.join(match kind {
            Kind::Blob => "blobs",
            Kind::Manifest => "img",
        })
    }

    pub fn content(&self, kind: Kind, digest: &Digest) -> PathBuf {
        self.contents(kind).join(digest.hex())
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.content(Kind::Blob, digest)
    }

    pub fn manifest(&self, digest: &Digest) -> PathBuf {
        self.content(Kind::Manifest, digest)
    }

    pub fn references(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.hex())
    }

    pub fn sidecar(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}.json", digest.hex()))
    }

    /// A file that is being written, with a name of its own until it is renamed. What a crash leaves of these
    /// is swept at the next start.
    pub fn temporary(&self, number: u64) -> PathBuf {
        self.partials().join(format!("new-{number}"))
    }

    /// Where what turned out to be wrong is put, for somebody to look at.
    pub fn set_aside(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}.bad", digest.hex()))
    }

    fn repository(&self, name: &Name) -> PathBuf {
        self.references().join(name.registry.as_str()).join(name.repository.as_str())
    }

    pub fn reference(&self, image: &Image) -> PathBuf {
        match &image.reference {
            Reference::Tag(tag) => self.tags(&image.name).join(tag.as_str()),
            Reference::Digest(digest) => self.repository(&image.name).join("_manifests").join(digest.hex()),
        }
    }

    pub fn tags(&self, name: &Name) -> PathBuf {
        self.repository(name).join("_tags")
    }

    pub fn tag_list(&self, name: &Name) -> PathBuf {
        self.repository(name).join("_tags.json")
    }

    pub fn referrers(&self, subject: &Subject) -> PathBuf {
        self.repository(&subject.name).join("_referrers").join(subject.digest.hex())
    }
}
