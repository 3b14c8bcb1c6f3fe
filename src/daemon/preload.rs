//! Images of the configuration, fetched when the daemon starts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::admin::words::Bytes;
use crate::oci::Image;
use crate::pull::{Cause, IMAGES_AT_ONCE, Platforms, Pull, WarmError, Warmed, log_image};
use crate::store::Store;
use crate::store::care::PinAction;

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What could not be had is tried again after this time, and then after twice as long each time, up to a limit: at
/// boot the network may come after us.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30 * 60);

/// What is to be fetched, and by what.
pub struct Preload {
    pub images: Vec<Image>,
    pub pull: Arc<Pull>,
    pub store: Arc<Store>,
}

impl Preload {
    /// Pins all images and fetches what is missing of them. One that cannot be had is an error in the log, and no more:
    /// what is there is served. `tell` hears at once, and then now and then, how far it is. What is left may be there
    /// some other time. To be awaited on the pull runtime.
    pub async fn run(&self, tell: impl Fn(String)) -> Vec<Image> {
        let of = self.images.len();
        tracing::info!("preloading {of} images");
        tell(format!("Preloading images: 0 of {of}"));
        pin(self.store.clone(), self.images.clone()).await;
        let (mut ended, mut failed, mut fetched) = (0, 0, 0);
        let mut left = Vec::new();
        let mut ticks = interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut underway = Underway::new(self.pull.clone(), self.images.clone());
        loop {
            tokio::select! {
                next = underway.next() => match next {
                    None => break,
                    Some((_, Ok(warmed))) => fetched += warmed.fetched,
                    Some((image, Err(error))) => {
                        failed += 1;
                        log_failure(&image, &error);
                        left.extend((error.cause() != Cause::Missing).then_some(image));
                    }
                },
                _ = ticks.tick() => {
                    tell(format!("Preloading images: {ended} of {of}{}", downloads(&self.pull)));
                    continue;
                }
            }
            ended += 1;
        }
        tracing::info!("preloaded {} of {of} images, {} fetched", of - failed, Bytes(fetched));
        left
    }

    /// Tries again and again what was left, until it is there or upstream says that it has no such thing.
    pub async fn go_on(&self, mut left: Vec<Image>) {
        let mut pause = AGAIN;
        while !left.is_empty() {
            tokio::time::sleep(pause).await;
            pause = AGAIN_AT_MOST.min(pause * 2);
            let mut underway = Underway::new(self.pull.clone(), std::mem::take(&mut left));
            while let Some((image, end)) = underway.next().await {
                if let Err(error) = end {
                    log_image!(debug, image, error = %error, "cannot preload \"{image}\" yet");
                    left.extend((error.cause() != Cause::Missing).then_some(image));
                }
            }
        }
    }
}

/// Images being fetched, a few at a time. Dropped, it ends them.
struct Underway {
    pull: Arc<Pull>,
    waiting: std::vec::IntoIter<Image>,
    tasks: JoinSet<(Image, Result<Warmed, WarmError>)>,
}

impl Underway {
    fn new(pull: Arc<Pull>, images: Vec<Image>) -> Self {
        Self { pull, waiting: images.into_iter(), tasks: JoinSet::new() }
    }

    /// The next one that has come to its end; none after the last. What is not awaited goes on.
    async fn next(&mut self) -> Option<(Image, Result<Warmed, WarmError>)> {
        loop {
            while self.tasks.len() < IMAGES_AT_ONCE
                && let Some(image) = self.waiting.next()
            {
                let pull = self.pull.clone();
                self.tasks.spawn(async move {
                    let end = fetch(&pull, &image).await;
                    (image, end)
                });
            }
            match self.tasks.join_next().await? {
                Ok((image, end)) => {
                    if let Ok(warmed) = &end {
                        log_image!(info, image, "preloaded \"{image}\", {} fetched", Bytes(warmed.fetched));
                    }
                    return Some((image, end));
                }
                Err(died) => tracing::error!("a preload died: {died}"),
            }
        }
    }
}

async fn fetch(pull: &Arc<Pull>, image: &Image) -> Result<Warmed, WarmError> {
    // Nobody looks at the steps.
    let (steps, _) = mpsc::channel(1);
    pull.warm(image, &Platforms::Only(pull.platform()), &steps).await
}

/// A restart keeps what it finds pinned, and writes nothing.
async fn pin(store: Arc<Store>, images: Vec<Image>) {
    let pinned = tokio::task::spawn_blocking(move || {
        images.iter().try_for_each(|image| store.pin(image, PinAction::Pin).map(drop))
    });
    if let Ok(Err(error)) = pinned.await {
        tracing::error!("cannot pin the images that are preloaded: {error}");
    }
}

/// `; downloading 1.2 MB of 3.4 MB`
fn downloads(pull: &Pull) -> String {
    let underway = pull.downloads();
    if underway.is_empty() {
        return String::new();
    }
    let written = underway.iter().map(|download| download.written).sum();
    let size = underway.iter().map(|download| download.size.unwrap_or(download.written)).sum();
    format!("; downloading {} of {}", Bytes(written), Bytes(size))
}

fn log_failure(image: &Image, error: &WarmError) {
    log_image!(error, image, error = %error, "cannot preload \"{image}\"");
}
