//! Images of the configuration, fetched when the daemon starts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::words::Bytes;
use crate::oci::Image;
use crate::pull::{Platforms, Pull, WarmError, Warmed};
use crate::store::Store;
use crate::store::care::PinAction;

/// Images at once. The downloads of each are bounded by `max_downloads`.
const AT_ONCE: usize = 4;

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What is to be fetched, and by what.
pub struct Preload {
    pub images: Vec<Image>,
    pub pull: Arc<Pull>,
    pub store: Arc<Store>,
}

impl Preload {
    /// Pins all images and fetches what is missing of them. One that cannot be had is an error in the log, and no more:
    /// what is there is served. `tell` hears at once, and then now and then, how far it is. On the pull runtime.
    pub async fn run(self, tell: impl Fn(String)) {
        let Self { images, pull, store } = self;
        let of = images.len();
        tracing::info!("preloading {of} images");
        pin(store, images.clone()).await;
        let (mut done, mut failed, mut fetched) = (0, 0, 0);
        let mut images = images.into_iter();
        let mut underway = JoinSet::new();
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while underway.len() < AT_ONCE
                && let Some(image) = images.next()
            {
                let pull = pull.clone();
                underway.spawn(async move {
                    let end = fetch(&pull, &image).await;
                    (image, end)
                });
            }
            tokio::select! {
                ended = underway.join_next() => match ended {
                    None => break,
                    Some(ended) => {
                        done += 1;
                        match ended {
                            Ok((image, Ok(warmed))) => {
                                fetched += warmed.fetched;
                                tracing::info!("preloaded \"{image}\", {} fetched", Bytes(warmed.fetched));
                            }
                            Ok((image, Err(error))) => {
                                failed += 1;
                                log_failure(&image, &error);
                            }
                            Err(_) => failed += 1,
                        }
                    }
                },
                _ = ticks.tick() => tell(format!("Preloading images: {done} of {of}{}", downloads(&pull))),
            }
        }
        tracing::info!("preloaded {} of {of} images, {} fetched", of - failed, Bytes(fetched));
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

/// `; 2 downloads, 1.2 MB of 3.4 MB`
fn downloads(pull: &Pull) -> String {
    let underway = pull.downloads();
    if underway.is_empty() {
        return String::new();
    }
    let written = underway.iter().map(|download| download.written).sum();
    let size = underway.iter().map(|download| download.size.unwrap_or(download.written)).sum();
    format!("; {} downloads, {} of {}", underway.len(), Bytes(written), Bytes(size))
}

fn log_failure(image: &Image, error: &WarmError) {
    tracing::error!(
        error = %error,
        oci_registry = %image.name.registry,
        oci_repository = %image.name.repository,
        oci_reference = %image.reference,
        "cannot preload \"{image}\""
    );
}
