//! Bars on a terminal: one for each image that is being pulled, and below it one for each of its blobs.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::oci::{Digest, Image};
use crate::pull::Step;

/// Bars of blobs at once, whatever is on the wire.
const BLOBS: usize = 12;

/// Characters of a name that are shown.
const NAME: usize = 30;

/// Between two looks at the clock: a rate falls when nothing comes.
const TICK: Duration = Duration::from_millis(250);

const LINE: &str =
    "{prefix:30} {wide_bar} {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11} {eta:>4}";

/// Before it is known how much there is.
const ASKING: &str = "{prefix:30} {spinner} asking upstream";

/// Bars on the standard error, or nothing where that is no terminal.
pub struct Progress {
    bars: MultiProgress,
    style: ProgressStyle,
    images: HashMap<Image, Underway>,
    shown: usize,
}

/// An image that is being pulled.
struct Underway {
    bar: ProgressBar,
    bytes: u64,
    blobs: HashMap<Digest, Blob>,
}

#[derive(Default)]
struct Blob {
    done: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// None where nobody would see it.
    pub fn on_terminal() -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let style = ProgressStyle::with_template(LINE).ok()?.progress_chars("━╸ ");
        Some(Self { bars: MultiProgress::new(), style, images: HashMap::new(), shown: 0 })
    }

    pub fn begun(&mut self, image: &Image) {
        let bar = self.bars.add(ProgressBar::new(0));
        if let Ok(asking) = ProgressStyle::with_template(ASKING) {
            bar.set_style(asking);
        }
        bar.set_prefix(end_of(&image.to_string()));
        bar.enable_steady_tick(TICK);
        self.images.insert(image.clone(), Underway { bar, bytes: 0, blobs: HashMap::new() });
    }

    pub fn step(&mut self, image: &Image, step: &Step) {
        let Some(image) = self.images.get_mut(image) else { return };
        match *step {
            Step::Manifest { bytes, .. } => {
                if image.bytes == 0 {
                    image.bar.set_style(self.style.clone());
                    image.bar.reset_eta();
                }
                image.bytes += bytes;
                image.bar.set_length(image.bytes);
            }
            Step::Blob { digest, done, size } => {
                let blob = image.blobs.entry(digest).or_default();
                blob.done = done;
                match &blob.bar {
                    Some(bar) if done < size => bar.set_position(done),
                    Some(bar) => {
                        bar.finish_and_clear();
                        self.bars.remove(bar);
                        blob.bar = None;
                        self.shown -= 1;
                    }
                    None if done > 0 && done < size && self.shown < BLOBS => {
                        let bar = ProgressBar::new(size).with_style(self.style.clone());
                        let bar = self.bars.insert_after(&image.bar, bar);
                        bar.set_prefix(format!(
                            "  {}",
                            digest.to_string().chars().take(19).collect::<String>()
                        ));
                        bar.set_position(done);
                        // Its rate counts from here.
                        bar.reset_eta();
                        blob.bar = Some(bar);
                        self.shown += 1;
                    }
                    None => {}
                }
                let resumed = image.bar.position() == 0;
                image.bar.set_position(image.blobs.values().map(|blob| blob.done).sum());
                if resumed {
                    // What was on disk already has come at no rate.
                    image.bar.reset_eta();
                }
            }
        }
    }

    pub fn ended(&mut self, image: &Image) {
        let Some(image) = self.images.remove(image) else { return };
        for bar in image.blobs.into_values().filter_map(|blob| blob.bar) {
            self.shown -= 1;
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        image.bar.finish_and_clear();
        self.bars.remove(&image.bar);
    }

    /// Prints what is not a bar, above them.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }

    /// Leaves nothing behind.
    pub fn clear(&mut self) {
        let images: Vec<_> = self.images.keys().cloned().collect();
        images.iter().for_each(|image| self.ended(image));
    }
}

/// What tells an image from others stands at the end of its name.
fn end_of(name: &str) -> String {
    let length = name.chars().count();
    match length {
        _ if length <= NAME => name.to_owned(),
        _ => format!("…{}", name.chars().skip(length + 1 - NAME).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_name_is_shown() {
        assert_eq!(end_of("quay.io/a:1"), "quay.io/a:1");
        let short = end_of(&format!("registry.example:5000/{}/app:1.2.3", "team/".repeat(9)));
        assert!(short.chars().count() == NAME && short.starts_with('…') && short.ends_with("/app:1.2.3"));
    }

    #[test]
    fn bars_are_bounded_and_go_when_their_image_is_done() {
        let style = ProgressStyle::with_template(LINE).unwrap();
        let target = indicatif::ProgressDrawTarget::hidden();
        let bars = MultiProgress::with_draw_target(target);
        let mut progress = Progress { bars, style, images: HashMap::new(), shown: 0 };
        let digest = |n: usize| Digest::of(crate::oci::Algorithm::Sha256, n.to_string().as_bytes());
        let images = ["a.b/c:1", "a.b/c:2"].map(|name| name.parse::<Image>().unwrap());
        for image in &images {
            progress.begun(image);
            progress.step(image, &Step::Manifest { digest: digest(99), blobs: 10, bytes: 1000 });
            for n in 0..10 {
                progress.step(image, &Step::Blob { digest: digest(n), done: 50, size: 100 });
            }
        }
        assert_eq!(progress.shown, BLOBS);
        let bar = progress.images[&images[0]].bar.clone();
        assert_eq!((bar.position(), bar.length()), (500, Some(1000)));
        progress.step(&images[0], &Step::Blob { digest: digest(0), done: 100, size: 100 });
        assert_eq!((progress.shown, bar.position()), (BLOBS - 1, 550));
        progress.clear();
        assert_eq!((progress.shown, progress.images.len()), (0, 0));
    }
}
