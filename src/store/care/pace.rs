//! How fast long work in the background goes, and when it is to stop.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::CareError;

/// A sleep is no longer than this, so that a stop is seen soon.
const NAP: Duration = Duration::from_millis(200);

/// Asked at every step of long work.
pub struct Pace<'a> {
    stop: Option<&'a dyn Fn() -> bool>,
    /// Bytes a second.
    rate: Option<u64>,
    begun: Instant,
    done: Cell<u64>,
}

impl<'a> Pace<'a> {
    /// As fast as it goes, to the end.
    pub fn free() -> Self {
        Self { stop: None, rate: None, begun: Instant::now(), done: Cell::new(0) }
    }

    /// Until `stop` says so.
    pub fn until(stop: &'a dyn Fn() -> bool) -> Self {
        Self { stop: Some(stop), ..Self::free() }
    }

    /// At most so many bytes a second.
    pub fn at_rate(self, rate: u64) -> Self {
        Self { rate: Some(rate.max(1)), ..self }
    }

    /// So many bytes were done. Sleeps as long as that was too fast; an error when it is time to stop.
    pub fn step(&self, bytes: u64) -> Result<(), CareError> {
        self.done.set(self.done.get() + bytes);
        loop {
            if self.stop.is_some_and(|stop| stop()) {
                return Err(CareError::Stopped);
            }
            let Some(rate) = self.rate else { return Ok(()) };
            let due = Duration::from_secs_f64(self.done.get() as f64 / rate as f64);
            let early = due.saturating_sub(self.begun.elapsed());
            if early < Duration::from_millis(10) {
                return Ok(());
            }
            std::thread::sleep(early.min(NAP));
        }
    }
}
