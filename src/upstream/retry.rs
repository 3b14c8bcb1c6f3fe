//! What a failed attempt means for the next one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::error::UpstreamError;

/// A failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    pub(super) again: Again,
}

/// Whether another attempt is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// Only if this was the first attempt.
    Once,
    /// After the pause that upstream asked for, or ours.
    After(Option<Duration>),
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        let again = match error {
            UpstreamError::Unavailable { .. } => Again::After(None),
            _ => Again::Never,
        };
        Self { error, again }
    }
}

/// All attempts at one thing have to be over after this.
const DEADLINE: Duration = Duration::from_secs(20);

/// Between the attempts; so there are three.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// No `Retry-After` makes us wait longer: a client waits with us.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The attempts at one thing.
pub(super) struct Attempts {
    deadline: Instant,
    failed: usize,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + DEADLINE, failed: 0 }
    }

    /// Makes one attempt, cut off at the deadline of all.
    pub(super) async fn make<T>(
        &self,
        host: &str,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match timeout_at(self.deadline, attempt).await {
            Ok(result) => result,
            Err(_) => Err(Failure {
                error: UpstreamError::unavailable(host, format!("no answer within {} s", DEADLINE.as_secs())),
                again: Again::Never,
            }),
        }
    }

    /// Waits until the next attempt is due, or gives the error back because there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), UpstreamError> {
        let pause = PAUSES.get(self.failed).copied();
        self.failed += 1;
        let pause = match (failure.again, pause) {
            (Again::After(asked), Some(ours)) => {
                asked.map_or(jittered(ours), |asked| asked.min(LONGEST_PAUSE))
            }
            (Again::Once, Some(ours)) if self.failed == 1 => jittered(ours),
            _ => return Err(failure.error),
        };
        if Instant::now() + pause >= self.deadline {
            return Err(failure.error);
        }
        tracing::debug!(error = %failure.error, ?pause, "asking again");
        sleep(pause).await;
        Ok(())
    }
}

/// Three quarters to five quarters of it, so that hosts that failed together do not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    pause * (768 + random as u32) / 1024
}
