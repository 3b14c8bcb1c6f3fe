//! How fast long work in the background goes, and when it is to stop.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::CareError;

/// A sleep is no longer than this, so that a stop is seen soon.
const NAP: Duration = Duration::from_millis(200);

/// What was slower than the rate is caught up with over so long, and no longer.
const CREDIT: Duration = Duration::from_secs(1);

/// Asked at every step of long work.
pub struct Pace<'a> {
    stop: Option<&'a dyn Fn() -> bool>,
    /// Bytes a second.
    rate: Option<u64>,
    /// When what was done so far is due to be done.
    due: Cell<Instant>,
}

impl<'a> Pace<'a> {
    /// As fast as it goes, to the end.
    pub fn free() -> Self {
        Self { stop: None, rate: None, due: Cell::new(Instant::now()) }
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
        let Some(rate) = self.rate else { return self.go_on() };
        let now = Instant::now();
        let from = now.checked_sub(CREDIT).map_or(self.due.get(), |earliest| self.due.get().max(earliest));
        let due = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.due.set(due);
        loop {
            self.go_on()?;
            let early = due.saturating_duration_since(Instant::now());
            if early < Duration::from_millis(10) {
                return Ok(());
            }
            std::thread::sleep(early.min(NAP));
        }
    }

    fn go_on(&self) -> Result<(), CareError> {
        if self.stop.is_some_and(|stop| stop()) { Err(CareError::Stopped) } else { Ok(()) }
    }
}
