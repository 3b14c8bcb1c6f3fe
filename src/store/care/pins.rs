//! Images that are never pruned: `pins.json`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CareError, Folder};
use crate::oci::Image;
use crate::store::publish::lock;
use crate::store::{Store, StoreError};

/// `pins.json`: `{"pins": {"docker.io/library/busybox:1.36": {"since": …}}}`
#[derive(Serialize, Deserialize)]
struct PinsJson {
    pins: BTreeMap<String, Pin>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pin {
    since: Timestamp,
}

/// The pinned images, by their full names.
#[derive(Clone, Debug, Default)]
pub struct Pins(BTreeMap<String, Pin>);

impl Pins {
    pub fn has(&self, image: &Image) -> bool {
        !self.0.is_empty() && self.0.contains_key(&image.to_string())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whether an image is to be pinned or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinAction {
    Pin,
    Unpin,
}

impl PinAction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
        }
    }
}

/// Which images to pin or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    pub action: PinAction,
    /// As in a pull: what is left out of a name is docker.io, library and latest.
    pub images: Vec<Image>,
}

/// What a change of pins found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinReport {
    /// By its full name.
    pub image: String,
    pub pinned: bool,
    /// False when it was so already.
    pub changed: bool,
    /// Whether the cache holds it; a pin holds for what comes later too.
    pub cached: bool,
}

/// What became of all that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsReport {
    /// Pins that came or went.
    pub changed: u64,
}

impl Folder {
    /// The pins as they are on disk. A file that cannot be understood is an error: what it pins must not go.
    pub fn pins(&self) -> Result<Pins, CareError> {
        let path = self.layout.pins();
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<PinsJson>(&bytes) {
                Ok(json) => Ok(Pins(json.pins)),
                Err(error) => Err(CareError::Malformed { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Pins::default()),
            Err(error) => Err(StoreError::on("read", &path)(error).into()),
        }
    }
}

impl Store {
    /// Pins or unpins an image, cached or not, and has it on disk when this returns. Blocks.
    pub fn pin(&self, image: &Image, action: PinAction) -> Result<PinReport, CareError> {
        let _one = lock(&self.care);
        let mut pins = self.folder().pins()?.0;
        let name = image.to_string();
        let pinned = action == PinAction::Pin;
        let changed = pins.contains_key(&name) != pinned;
        if changed {
            match action {
                PinAction::Pin => pins.insert(name.clone(), Pin { since: Timestamp::now() }),
                PinAction::Unpin => pins.remove(&name),
            };
            self.write_json(&self.layout.pins(), &PinsJson { pins })?;
        }
        Ok(PinReport { cached: self.reference(image).is_some(), image: name, pinned, changed })
    }

    /// Replaces a small file of the store's own in one step, durably. Blocks.
    pub(super) fn write_json(
        &self,
        path: &std::path::Path,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let error = StoreError::on("write", path);
        let temporary = self.temporary();
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o640).open(&temporary)?;
            serde_json::to_writer(&file, value)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(&self.layout.root)?.sync_all()
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            error(source)
        })
    }
}
