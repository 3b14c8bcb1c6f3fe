//! Blobs: from their file, from a flight, or far ahead of a flight.

use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::failures::log_name;
use super::flight::{Seat, State};
use super::passage::Detour;
use super::reader::{Reader, Relay, Source};
use super::{ANSWER_WITHIN, FAR_AHEAD, Origin, Pull, PullError, Want, What};
use crate::hello;
use crate::oci::{Digest, Image, Name, Reference};
use crate::upstream::UpstreamError;

/// For so long a Range above byte 0 of a blob that came out wrong is refused: a client that holds a part of the
/// wrong one must not get the rest of the right one.
const WRONG_FOR: Duration = Duration::from_secs(60);

/// A blob that can be served, as far as its headers.
pub struct Blob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub origin: Origin,
    name: Name,
    place: Place,
}

enum Place {
    Stored(Arc<File>),
    InFlight(Seat),
    /// The disk does not take it.
    Passing,
    /// Only its size is known; enough for a HEAD.
    Upstream,
    /// The program has it of its own.
    Greeting(&'static Bytes),
}

/// Where a blob was found.
enum Where {
    Stored(Arc<File>, u64),
    InFlight(Seat),
    Upstream(u64),
}

/// Waits until a client can be given headers: the blob's size.
async fn answerable(seat: &Seat, deadline: Instant) -> Result<u64, PullError> {
    let mut progress = seat.flight.progress();
    // Its sender lives in the flight, which we hold.
    let _ = timeout_at(deadline, progress.wait_for(|progress| progress.can_answer())).await;
    let progress = progress.borrow();
    match (&progress.state, progress.size) {
        (State::Failed(error), _) => Err(error.clone()),
        // Late, but the length can be promised: the client waits for bytes as long as it likes.
        (_, Some(size)) => Ok(size),
        (_, None) => Err(PullError::TooLate),
    }
}

impl Pull {
    /// Finds a blob. `offset` is where the client wants to begin, the furthest place if it wants several ranges. A HEAD starts no download. Answers or fails
    /// within 25 s.
    pub async fn blob(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        want: Want,
        offset: u64,
    ) -> Result<Blob, PullError> {
        if let Some(bytes) = self.settings.load().hello_world.then(|| hello::blob(name, digest)).flatten() {
            self.count(Origin::Hit);
            let (size, place) = (bytes.len() as u64, Place::Greeting(bytes));
            return Ok(Blob { digest: *digest, size, origin: Origin::Hit, name: name.clone(), place });
        }
        let at_hand = || {
            let (file, size) = self.store.blob_at_hand(digest)?;
            self.has_right_size(name, digest, size).then_some(Where::Stored(file, size))
        };
        if offset > 0 && self.wrong.get(digest).is_some_and(|since| since.elapsed() < WRONG_FOR) {
            return Err(PullError::RecentlyWrong);
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut found = match self.boarded(digest, want, offset).or_else(at_hand) {
            Some(found) => found,
            None => self.find_by(deadline, name, digest, want).await?,
        };
        let (mut own, mut again) = (false, false);
        let (origin, size, place) = loop {
            match found {
                Where::Stored(file, size) => break (Origin::Hit, size, Place::Stored(file)),
                Where::Upstream(size) => break (Origin::Miss, size, Place::Upstream),
                Where::InFlight(seat) => match answerable(&seat, deadline).await {
                    Ok(size) => break (Origin::Miss, size, Place::InFlight(seat)),
                    Err(PullError::Store(_)) => {
                        let told = seat.flight.progress().borrow().size;
                        drop(seat);
                        let (pull, name, digest) = (self.clone(), name.clone(), *digest);
                        let size = match told {
                            Some(size) => size,
                            None => {
                                self.by(deadline, async move { pull.blob_size(&name, &digest).await }).await?
                            }
                        };
                        break (Origin::Miss, size, Place::Passing);
                    }
                    // It did so just before we joined it.
                    Err(PullError::Paused) if !again => {
                        again = true;
                        drop(seat);
                        found = self.find_by(deadline, name, digest, want).await?;
                    }
                    // What another registry does not give, this one may.
                    Err(_) if !own && seat.flight.is_from_elsewhere(name) => {
                        own = true;
                        drop(seat);
                        found = self.find_by(deadline, name, digest, want).await?;
                    }
                    Err(error) => return Err(error),
                },
            }
        };
        self.count(origin);
        Ok(Blob { digest: *digest, size, origin, name: name.clone(), place })
    }

    async fn find_by(
        self: &Arc<Self>,
        deadline: Instant,
        name: &Name,
        digest: &Digest,
        want: Want,
    ) -> Result<Where, PullError> {
        let (pull, name, digest) = (self.clone(), name.clone(), *digest);
        self.by(deadline, async move { pull.find_blob(&name, &digest, want).await }).await
    }

    /// Has something done that asks upstream, and gives up waiting for it in time.
    async fn by<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, PullError>> + Send + 'static,
    ) -> Result<T, PullError> {
        match timeout_at(deadline, self.spawn(work)).await {
            Ok(done) => done.unwrap_or(Err(PullError::Lost)),
            Err(_) => Err(PullError::TooLate),
        }
    }

    /// A seat in the flight that the miss of a manifest has mostly started by now.
    fn boarded(&self, digest: &Digest, want: Want, offset: u64) -> Option<Where> {
        let wanted = want == Want::Body && offset == 0;
        wanted.then(|| self.flights.board(digest)).flatten().map(Where::InFlight)
    }

    async fn find_blob(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        want: Want,
    ) -> Result<Where, PullError> {
        match self.stored(name, digest).await {
            Ok(Some((file, size))) => return Ok(Where::Stored(file, size)),
            Ok(None) => {}
            Err(error) => {
                log_name!(error, name, oci_digest = %digest, error = %error, "fetching a blob anew")
            }
        }
        let image = Image { name: name.clone(), reference: Reference::Digest(*digest) };
        if self.store.reference(&image).is_some() {
            return Err(PullError::IsManifest);
        }
        if self.settings.load().air_gapped {
            return Err(PullError::AirGapped);
        }
        if self.is_known_missing(&What::Blob(image)) {
            return Err(PullError::KnownMissing);
        }
        if want == Want::Head {
            return self.blob_size(name, digest).await.map(Where::Upstream);
        }
        let launch = |flight| self.launch(flight, name.clone());
        Ok(Where::InFlight(self.flights.join(*digest, self.named_size(name, digest), launch)))
    }

    async fn blob_size(&self, name: &Name, digest: &Digest) -> Result<u64, PullError> {
        if let Some(size) = self.flights.get(digest).and_then(|flight| flight.progress().borrow().size) {
            return Ok(size);
        }
        let upstream = self.upstream(&name.registry);
        let told = upstream.blob_size(&name.repository, digest).await;
        // Some answer no HEAD, or send no length to it; then what a manifest said is all there is.
        match (told, self.named_size(name, digest)) {
            (Ok(Some(size)), _) | (Ok(None) | Err(UpstreamError::Invalid { .. }), Some(size)) => Ok(size),
            (Ok(None), None) => Err(PullError::SizeUnknown),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The bytes `range` of a blob, within its size.
    pub fn read(self: &Arc<Self>, blob: &Blob, range: RangeInclusive<u64>) -> Reader {
        let (first, end) = (*range.start(), *range.end() + 1);
        let detour =
            Detour { pull: self.clone(), name: blob.name.clone(), digest: blob.digest, size: blob.size };
        match &blob.place {
            Place::Passing => Reader::new(first, end, Source::Passage(detour.start(first, end, None)), None),
            Place::Stored(file) => Reader::new(first, end, Source::File(file.clone()), Some(detour)),
            Place::Upstream => Reader::new(first, first, Source::Nothing, None),
            Place::Greeting(bytes) => Reader::of_bytes(first, end, bytes),
            Place::InFlight(seat) => {
                let seat = seat.clone();
                let progress = seat.flight.progress().borrow().clone();
                if !progress.has_ended() && first > progress.written.saturating_add(FAR_AHEAD) {
                    // Its last byte is the flight's to give, like that of any other answer.
                    let last = (end - 1).min(blob.size.saturating_sub(2));
                    if first <= last {
                        let relay = Relay::start(&detour, first, last);
                        return Reader::new(first, end, Source::Relay(relay, seat), Some(detour));
                    }
                }
                Reader::new(first, end, Source::Flight(seat), Some(detour))
            }
        }
    }
}
