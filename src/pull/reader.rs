//! The bytes of a blob, one after the other, from wherever they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::PullError;
use super::failures::log_name;
use super::flight::{Seat, State};
use super::passage::{Detour, Passage};
use crate::upstream::UpstreamError;

mod buffer;

use buffer::{Buffer, CHUNK};

/// A far-ahead read that has no place, or no answer of upstream's, in this time waits for the download after all.
const RELAY_WITHIN: Duration = Duration::from_secs(10);

/// What a look at the source gave.
pub enum Chunk {
    Bytes(Bytes),
    End,
    /// There are no more, though there should be: the connection is to be closed short.
    Cut(PullError),
    /// None without waiting: call [`Reader::wait`].
    Later,
}

pub enum Source {
    File(Arc<File>),
    Flight(Seat),
    /// Upstream's, up to the flight's part.
    Relay(Relay, Seat),
    Passage(Passage),
    Nothing,
}

/// Reads a part of a blob in order.
pub struct Reader {
    offset: u64,
    end: u64,
    source: Source,
    ready: Option<Bytes>,
    /// For when the disk does not take what a flight brings, or does not give what it has.
    detour: Option<Detour>,
}

impl Reader {
    pub(super) fn new(offset: u64, end: u64, source: Source, detour: Option<Detour>) -> Self {
        Self { offset, end, source, ready: None, detour }
    }

    /// A part of what is in memory.
    pub(super) fn of_bytes(offset: u64, end: u64, whole: &Bytes) -> Self {
        let place = |at: u64| usize::try_from(at).map_or(whole.len(), |at| at.min(whole.len()));
        let ready = whole.slice(place(offset)..place(end));
        Self { offset, end, source: Source::Nothing, ready: Some(ready), detour: None }
    }

    /// The next bytes, if they can be had without waiting for disk or network.
    pub fn look(&mut self) -> Chunk {
        if self.offset >= self.end {
            return Chunk::End;
        }
        if let Some(bytes) = self.ready.take() {
            return self.pass(bytes);
        }
        if let Source::Relay(relay, seat) = &mut self.source
            && self.offset < relay.end
        {
            match relay.chunks.try_recv() {
                Ok(Ok(bytes)) => {
                    relay.begun = true;
                    return self.pass(bytes);
                }
                Err(mpsc::error::TryRecvError::Empty) => return Chunk::Later,
                // Nothing of it came: the flight will.
                _ if !relay.begun => self.source = Source::Flight(seat.clone()),
                Ok(Err(error)) => return Chunk::Cut(error.into()),
                Err(mpsc::error::TryRecvError::Disconnected) => return Chunk::Cut(PullError::Lost),
            }
        }
        // What a relay sent is not in the file, nor is what is before a range that the flight did not reach.
        let in_order = matches!(self.source, Source::Flight(_));
        let (file, readable) = match &mut self.source {
            Source::File(file) => (&*file, self.end),
            Source::Passage(passage) => {
                return match passage.chunks.try_recv() {
                    Ok(Ok(bytes)) => self.pass(bytes),
                    Ok(Err(error)) => Chunk::Cut(error),
                    Err(mpsc::error::TryRecvError::Empty) => Chunk::Later,
                    Err(mpsc::error::TryRecvError::Disconnected) => Chunk::Cut(PullError::Lost),
                };
            }
            Source::Flight(seat) | Source::Relay(_, seat) => {
                let progress = seat.flight.progress();
                let progress = progress.borrow();
                let readable = progress.readable().min(self.end);
                match (seat.flight.file(), &progress.state) {
                    (Some(file), _) if readable > self.offset => (file, readable),
                    (_, State::Failed(PullError::Store(_))) if self.detour.is_some() => {
                        let sent = in_order && progress.written >= self.offset;
                        let sent = seat.flight.file().filter(|_| sent).cloned();
                        drop(progress);
                        let passage = |detour: &Detour| detour.start(self.offset, self.end, sent);
                        if let Some(passage) = self.detour.as_ref().map(passage) {
                            self.source = Source::Passage(passage);
                        }
                        return Chunk::Later;
                    }
                    (_, State::Failed(error)) => return Chunk::Cut(error.clone()),
                    _ => return Chunk::Later,
                }
            }
            Source::Nothing => return Chunk::End,
        };
        let want = usize::try_from(readable - self.offset).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = Buffer::take();
        match read_cached(file, &mut buffer.bytes_mut()[..want], self.offset) {
            Ok(count) if count > 0 => self.pass(buffer.freeze(count)),
            // Not in the page cache, not on this file system, or not there at all: elsewhere, where it may block.
            _ => Chunk::Later,
        }
    }

    /// The file does not give what it should. Of one that grows, the rest comes from upstream: its disk fails, and who
    /// asks again would meet it again; so it does where a stored one cannot be put aside. Mostly that one is out of the way
    /// when this client may ask again.
    async fn astray(&mut self, error: PullError) -> Result<(), PullError> {
        match (&self.source, &self.detour) {
            (Source::Flight(_) | Source::Relay(..), Some(detour)) => {
                let (name, digest) = (&detour.name, &detour.digest);
                log_name!(debug, name, oci_digest = %digest, error = %error, "passing on {name}@{digest}");
                self.source = Source::Passage(detour.start(self.offset, self.end, None));
                Ok(())
            }
            (Source::File(file), Some(blob)) => {
                if blob.pull.put_aside(&blob.digest, file, &error).await {
                    return Err(error);
                }
                let sent = Some(file.clone());
                self.source = Source::Passage(blob.start(self.offset, self.end, sent));
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn pass(&mut self, mut bytes: Bytes) -> Chunk {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        bytes.truncate(left);
        self.offset += bytes.len() as u64;
        Chunk::Bytes(bytes)
    }

    /// Waits until [`look`](Self::look) has something to say. What it finds out stays in the reader.
    pub async fn wait(mut self) -> (Self, Option<PullError>) {
        let error = self.wait_here().await.err();
        (self, error)
    }

    async fn wait_here(&mut self) -> Result<(), PullError> {
        if let Source::Relay(relay, seat) = &mut self.source
            && self.offset < relay.end
        {
            match relay.chunks.recv().await {
                Some(Ok(bytes)) => {
                    relay.begun = true;
                    self.ready = Some(bytes);
                }
                // Nothing of it came: the flight will.
                _ if !relay.begun => self.source = Source::Flight(seat.clone()),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(PullError::Lost),
            }
            return Ok(());
        }
        let (file, readable) = match &mut self.source {
            Source::File(file) => (file.clone(), self.end),
            Source::Passage(passage) => {
                self.ready = Some(passage.chunks.recv().await.ok_or(PullError::Lost)??);
                return Ok(());
            }
            Source::Flight(seat) | Source::Relay(_, seat) => {
                let mut progress = seat.flight.progress();
                let offset = self.offset;
                let moved = progress
                    .wait_for(|progress| progress.readable() > offset || progress.has_ended())
                    .await
                    .map_err(|_| PullError::Lost)?
                    .clone();
                match (seat.flight.file(), moved.readable()) {
                    (Some(file), readable) if readable > offset => (file.clone(), readable.min(self.end)),
                    // Ended: the next look says how.
                    _ if matches!(moved.state, State::Failed(_)) => return Ok(()),
                    _ => return Err(short(offset)),
                }
            }
            Source::Nothing => return Ok(()),
        };
        let want = usize::try_from(readable - self.offset).unwrap_or(CHUNK).min(CHUNK);
        let offset = self.offset;
        let mut buffer = Buffer::take();
        // Mostly what a flight has just written is in the page cache.
        match read_cached(&file, &mut buffer.bytes_mut()[..want], offset) {
            Ok(count) if count > 0 => {
                self.ready = Some(buffer.freeze(count));
                return Ok(());
            }
            _ => {}
        }
        let read = move || {
            let count = loop {
                match file.read_at(&mut buffer.bytes_mut()[..want], offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            Ok::<_, io::Error>((buffer, count))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((_, 0))) => self.astray(short(offset)).await,
            Ok(Ok((buffer, count))) => {
                self.ready = Some(buffer.freeze(count));
                Ok(())
            }
            Ok(Err(error)) => self.astray(failed(error)).await,
            Err(_) => Err(PullError::Lost),
        }
    }
}

/// Reads what the page cache has, and only that.
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut parts = [io::IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut parts, offset, rustix::io::ReadWriteFlags::NOWAIT) {
        // It has nothing else, and does not know the question.
        Err(Errno::OPNOTSUPP) if fstatfs(file).is_ok_and(|disk| disk.filesystem_type() == TMPFS_MAGIC) => {
            file.read_at(buffer, offset)
        }
        read => Ok(read?),
    }
}

pub(super) fn short(offset: u64) -> PullError {
    failed(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends at byte {offset}")))
}

pub(super) fn failed(source: io::Error) -> PullError {
    crate::store::StoreError { operation: "read", path: "blobs".into(), source }.into()
}

/// A range that upstream sends, handed over chunk by chunk from the runtime that it belongs to.
pub struct Relay {
    chunks: mpsc::Receiver<Result<Bytes, UpstreamError>>,
    /// Behind its last byte.
    end: u64,
    /// Something of it came.
    begun: bool,
}

impl Relay {
    /// Asks for the bytes `first..=last`.
    pub fn start(detour: &Detour, first: u64, last: u64) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let Detour { pull, name, digest, .. } = detour.clone();
        let (spawner, gone) = (pull.clone(), sender.clone());
        let relay = async move {
            let (upstream, slots) = (pull.upstream(&name.registry), pull.slots(&name));
            let open = async {
                let place = slots.relays.acquire().await.ok()?;
                Some((place, upstream.range(&name.repository, &digest, first, last).await.ok()?))
            };
            let Ok(Some((_place, mut download))) = timeout(RELAY_WITHIN, open).await else { return };
            while download.start() == first
                && let Some(item) = download.chunk().await.transpose()
            {
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    return;
                }
            }
        };
        spawner.spawn(async move {
            tokio::select! {
                () = relay => {}
                // Its place is for those who wait.
                () = gone.closed() => {}
            }
        });
        Self { chunks, end: last + 1, begun: false }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn what_is_in_memory_is_read_at_once() {
        let file = File::from(memfd_create("blob", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(b"bytes", 0).unwrap();
        let mut buffer = [0; 3];
        assert_eq!(read_cached(&file, &mut buffer, 2).unwrap(), 3);
        assert_eq!(&buffer, b"tes");
    }
}
