//! The task of a flight: from upstream to the disk, hashed on the way, verified, handed to the store.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::failures::{log_failure, log_name};
use super::flight::{Flight, State};
use super::sink::Sink;
use super::slots::{Slots, Weight};
use super::{Pull, PullError, What};
use crate::config::Abandoned;
use crate::oci::{Digest, Image, Name, Reference};
use crate::store::{Partial, SMALL, Verified};
use crate::upstream::UpstreamError;

/// Ends the flight however its task ends.
struct Landing {
    pull: Arc<Pull>,
    flight: Arc<Flight>,
    /// Of one that nobody asked for yet, its place among those.
    _early: Option<OwnedSemaphorePermit>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.pull.flights.remove(&self.flight);
        if !self.flight.progress().borrow().has_ended() {
            self.flight.ended(State::Failed(PullError::Lost));
        }
    }
}

impl Pull {
    /// Starts the task of a flight that somebody waits for.
    pub(super) fn launch(self: &Arc<Self>, flight: Arc<Flight>, name: Name) {
        self.launch_with(flight, name, None);
    }

    /// Starts the task of a flight. `early` is given back when it has landed.
    pub(super) fn launch_with(
        self: &Arc<Self>,
        flight: Arc<Flight>,
        name: Name,
        early: Option<OwnedSemaphorePermit>,
    ) {
        flight.launched(name.clone());
        let landing = Landing { pull: self.clone(), flight, _early: early };
        let pull = self.clone();
        self.spawn(async move {
            let flight = &landing.flight;
            match pull.download(flight, &name).await {
                Ok(None) => flight.ended(State::Done),
                Ok(Some(verified)) => {
                    flight.ended(State::Done);
                    // The flight stays to be joined until the store has it.
                    pull.store.publish_blob(Arc::new(verified)).await;
                }
                Err(error) => {
                    if let PullError::Store(error) = &error {
                        let wanted = flight.progress().borrow().size.unwrap_or_default();
                        pull.store.give_up(&flight.digest, error, wanted);
                    }
                    pull.note_failure(&name, flight.digest, &error);
                    // Whoever asks after a failure gets a flight of their own.
                    pull.flights.remove(flight);
                    flight.ended(State::Failed(error));
                }
            }
        });
    }

    /// The verified blob; none when it is there already: a prefetch leaves it to us to find that out, and another
    /// flight may have brought it just before this one began.
    async fn download(&self, flight: &Arc<Flight>, name: &Name) -> Result<Option<Verified>, PullError> {
        if let Some((file, size)) = self.stored(name, &flight.digest).await? {
            flight.opened(file, size);
            return Ok(None);
        }
        let hint = flight.progress().borrow().size;
        let weight = if hint.is_some_and(|size| size <= SMALL) { Weight::Small } else { Weight::Large };
        let _slot = self.slots(name).take(weight, flight.readers()).await.ok_or(PullError::Crowded)?;
        let partial = self.begin(flight.digest).await?;
        let abandoned = self.settings.load().abandoned;
        let stop = async {
            match abandoned {
                Abandoned::Finish => pending().await,
                Abandoned::PauseAfter(limit) => flight.abandoned(limit).await,
            }
        };
        let partial = self.transfer(flight, name, partial, pin!(stop)).await?;
        Ok(Some(partial.finish()?))
    }

    async fn begin(&self, digest: Digest) -> Result<Partial, PullError> {
        if !self.store.has_partial(&digest) {
            return Ok(self.store.begin(digest)?);
        }
        // What is there is hashed again, and that takes its time.
        let store = self.store.clone();
        Ok(tokio::task::spawn_blocking(move || store.begin(digest)).await.map_err(|_| PullError::Lost)??)
    }

    /// Moves all bytes that are missing. When `stop` says so, it ends when what has come is written.
    async fn transfer(
        &self,
        flight: &Arc<Flight>,
        name: &Name,
        mut partial: Partial,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Partial, PullError> {
        if partial.size() == Some(partial.length()) {
            flight.opened(partial.file().clone(), partial.length());
            return Ok(partial);
        }
        let upstream = self.upstream(&name.registry);
        let mut open = async |from, size| {
            let open = upstream.blob(&name.repository, &flight.digest, from, size);
            unless(stop.as_mut(), open).await
        };
        // What the repository's own manifest says of the size bounds what upstream may send.
        let named = flight.progress().borrow().size;
        let download = match open(partial.length(), named.or(partial.size())).await? {
            // What an earlier download left does not fit what upstream has. Nobody has read of it yet.
            Err(UpstreamError::Invalid { .. }) if partial.length() > 0 || partial.size().is_some() => {
                partial.restart()?;
                open(0, named).await?
            }
            download => download,
        };
        let mut download = match download {
            Ok(download) => download,
            Err(error) => {
                // What upstream does not have leaves nothing behind.
                if partial.length() == 0 {
                    partial.discard();
                }
                return Err(error.into());
            }
        };
        let from = partial.length();
        flight.opened(partial.file().clone(), from);
        // One that cannot do ranges begins at the beginning: what we have is skipped.
        let mut skip = from - download.start().min(from);
        let size = download.size().or(partial.size());
        flight.running(size);
        let mut next = async || {
            loop {
                let Some(mut chunk) = download.chunk().await? else { return Ok::<_, UpstreamError>(None) };
                if skip > 0 {
                    let skipped =
                        chunk.split_to(chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX)));
                    skip -= skipped.len() as u64;
                }
                if !chunk.is_empty() {
                    return Ok(Some(chunk));
                }
            }
        };
        if size.is_some_and(|size| size <= SMALL) {
            // Nobody reads it before it is complete, and a thread would cost more than the writing.
            let mut partial = partial;
            partial.expect(name, size)?;
            while let Some(chunk) = unless(stop.as_mut(), next()).await?? {
                partial.append(&chunk)?;
            }
            flight.wrote(partial.length());
            return Ok(partial);
        }
        // The wire is read while the disk is written.
        let mut sink = Sink::open(partial, name, size, flight.clone());
        let ended = loop {
            let mut chunk = pin!(next());
            let chunk = loop {
                tokio::select! {
                    written = sink.written() => written?,
                    chunk = &mut chunk, if !sink.is_full() => break chunk.map_err(PullError::from),
                    () = &mut stop => break Err(PullError::Paused),
                }
            };
            match chunk {
                Ok(Some(chunk)) => sink.put(chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What has come is written in any case: the next download of this blob goes on in the same file.
        let partial = sink.finish().await?;
        ended?;
        Ok(partial)
    }

    pub(super) fn slots(&self, name: &Name) -> Arc<Slots> {
        let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Unlisted registries come and go; a count that nobody holds says nothing.
        if slots.len() > 1024 {
            slots.retain(|_, slots| Arc::strong_count(slots) > 1);
        }
        let places = || Slots::new(self.upstream(&name.registry).policy().max_downloads);
        slots.entry(name.registry.clone()).or_insert_with(places).clone()
    }

    fn note_failure(&self, name: &Name, digest: Digest, error: &PullError) {
        match error {
            PullError::Paused => {
                log_name!(info, name, oci_digest = %digest, "paused download of {name}@{digest}: nobody waits for it");
            }
            // The store has said what is wrong with its disk.
            PullError::Store(_) => {
                log_name!(debug, name, oci_digest = %digest, error = %error, "not keeping {name}@{digest}");
            }
            PullError::Upstream(UpstreamError::NotFound { .. }) => {
                let image = Image { name: name.clone(), reference: Reference::Digest(digest) };
                self.not_found.insert(What::Blob(image), Instant::now());
                log_failure!(info, name, digest, error, "no blob {name}@{digest}");
            }
            PullError::Wrong(_) => {
                self.wrong.insert(digest, Instant::now());
                self.failures.error(name, digest, error, &format!("discarded {name}@{digest}"));
            }
            _ => self.failures.warn(name, digest, error, &format!("cannot download {name}@{digest}")),
        }
    }
}

/// Gives up what is at work when `stop` says so.
async fn unless<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Result<T, PullError> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = stop => Err(PullError::Paused),
    }
}
