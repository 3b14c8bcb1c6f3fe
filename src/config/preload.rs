//! Images that are fetched at the start: which files list them, and whether the start waits.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::image_list::read_images;
use super::keys::Keys;
use super::kind::{Kind, absolute};
use super::settings::{Preload, PreloadSettings};
use crate::oci::Image;

const FILES: Kind<Vec<PathBuf>> = Kind::new(
    "absolute paths of lists of images, or patterns such as \"/etc/images/*.list\", with commas between them, or \"\"",
    |value| {
        let parts = value.text()?.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(absolute).collect()
    },
);

const PRELOAD: Kind<Preload> = Kind::new("\"wait\" or \"background\"", |value| match value.text()? {
    "wait" => Some(Preload::Wait),
    "background" => Some(Preload::Background),
    _ => None,
});

/// The lists are read, too: later the daemon may no longer be allowed to.
pub fn read(keys: &mut Keys) -> Option<PreloadSettings> {
    let files = keys.read("preload_images", "", &FILES);
    let mode = keys.read("preload", "wait", &PRELOAD);
    let mut images: Vec<Image> = Vec::new();
    let mut sound = true;
    for pattern in files? {
        let files = match expand(keys, &pattern) {
            Ok(files) => files,
            Err(what) => {
                sound = false;
                keys.refuse("preload_images", &what);
                continue;
            }
        };
        for list in files.iter().map(|file| read_images(file)) {
            match list {
                Ok(more) => images.extend(more),
                Err(wrong) => {
                    sound = false;
                    wrong.iter().for_each(|what| keys.refuse("preload_images", what));
                }
            }
        }
    }
    let mut seen = HashSet::new();
    images.retain(|image| seen.insert(image.clone()));
    if !images.is_empty() {
        let names: Vec<_> = images.iter().map(ToString::to_string).collect();
        keys.note_hidden("preload_images", names.join("\n").as_bytes());
    }
    sound.then_some(PreloadSettings { images, mode: mode? })
}

/// The files that a pattern stands for, in order. A path without a pattern in it has to be there; a pattern may stand for
/// nothing.
fn expand(keys: &mut Keys, pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_string_lossy();
    if pattern.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let paths = glob::glob(&text).map_err(|error| format!("{text}: {}", error.msg))?;
    let files: Vec<_> = paths
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: cannot be read: {}", error.path().display(), error.error()))?;
    if files.is_empty() {
        keys.warn("preload_images", &format!("no file matches {text}"));
    }
    Ok(files)
}
