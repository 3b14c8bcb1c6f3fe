//! The disk's end of a large download: what the wire brings is gathered, and written a batch at a time in the blocking
//! pool. No thread is held while the wire brings nothing, however many downloads there are.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::PullError;
use super::flight::Flight;
use crate::oci::Name;
use crate::store::{Partial, StoreError};

/// Bytes that may wait for the disk; as many again are being written.
const GATHERED: usize = 512 << 10;

pub struct Sink {
    flight: Arc<Flight>,
    disk: Disk,
    gathered: Vec<Bytes>,
    /// Bytes in there.
    waiting: usize,
}

enum Disk {
    Idle(Box<Partial>),
    Busy(JoinHandle<Result<Box<Partial>, StoreError>>),
    /// It failed, and that was said.
    Lost,
}

impl Sink {
    /// Begins by asking the disk for space for `size` bytes, if so many are known to come.
    pub fn open(partial: Partial, name: &Name, size: Option<u64>, flight: Arc<Flight>) -> Self {
        let (name, mut partial) = (name.clone(), Box::new(partial));
        let work = spawn_blocking(move || {
            partial.expect(&name, size)?;
            Ok(partial)
        });
        Self { flight, disk: Disk::Busy(work), gathered: Vec::new(), waiting: 0 }
    }

    /// More must not be put in before something was written.
    pub fn is_full(&self) -> bool {
        self.waiting >= GATHERED
    }

    pub fn put(&mut self, chunk: Bytes) {
        self.waiting += chunk.len();
        self.gathered.push(chunk);
        self.write();
    }

    /// Returns when the disk has done what it is at; never when it has nothing to do. Dropping the future loses nothing.
    pub async fn written(&mut self) -> Result<(), PullError> {
        let Disk::Busy(work) = &mut self.disk else { return pending().await };
        let done = work.await;
        self.disk = Disk::Lost;
        self.disk = Disk::Idle(done.map_err(|_| PullError::Lost)??);
        self.write();
        Ok(())
    }

    /// Writes the rest.
    pub async fn finish(mut self) -> Result<Partial, PullError> {
        loop {
            match self.disk {
                Disk::Idle(partial) => return Ok(*partial),
                Disk::Busy(_) => self.written().await?,
                Disk::Lost => return Err(PullError::Lost),
            }
        }
    }

    /// Gives the disk what has gathered, if it has nothing to do.
    fn write(&mut self) {
        if self.gathered.is_empty() || !matches!(self.disk, Disk::Idle(_)) {
            return;
        }
        let Disk::Idle(mut partial) = std::mem::replace(&mut self.disk, Disk::Lost) else { return };
        let (batch, flight) = (std::mem::take(&mut self.gathered), self.flight.clone());
        self.waiting = 0;
        self.disk = Disk::Busy(spawn_blocking(move || {
            for chunk in batch {
                partial.append(&chunk)?;
            }
            flight.wrote(partial.length());
            Ok(partial)
        }));
    }
}
