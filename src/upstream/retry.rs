//! What a failed attempt means for the next one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::error::UpstreamError;
use crate::request_id::RequestId;

/// A failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    pub(super) again: Again,
    /// It was 429.
    pub(super) limited: Option<Limited>,
}

/// Upstream wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    /// For so long, if it said so.
    pub(super) retry_after: Option<Duration>,
}

/// Whether another attempt is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// Only if this was the first attempt.
    Once,
    /// After the pause that upstream asked for, or after ours where that is longer.
    After(Option<Duration>),
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        let again = match error {
            UpstreamError::Unavailable { .. } => Again::After(None),
            _ => Again::Never,
        };
        Self { error, again, limited: None }
    }
}

impl Failure {
    /// How long to wait before another attempt, `ours` or what upstream asked for; none where there is no use in one.
    pub(super) fn pause(&self, ours: Duration) -> Option<Duration> {
        match self.again {
            Again::After(Some(asked)) if asked <= LONGEST_PAUSE => Some(asked.max(jittered(ours))),
            Again::After(None) => Some(jittered(ours)),
            _ => None,
        }
    }
}

/// 429, of the registry or of its token service.
pub(super) fn too_many(host: &str, reason: impl Into<String>, header: Option<&str>) -> Failure {
    let retry_after = header.and_then(retry_after);
    Failure {
        error: UpstreamError::unavailable(host, reason),
        again: Again::After(retry_after),
        limited: Some(Limited { retry_after }),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// All attempts at one thing have to be over after this.
const DEADLINE: Duration = Duration::from_secs(20);

/// Between the attempts; so there are three.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// A longer `Retry-After` is not waited for, nor asked before: a client waits with us, and upstream wants to be left
/// alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

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
                limited: None,
            }),
        }
    }

    /// Waits until the next attempt is due, or gives the error back because there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), UpstreamError> {
        let ours = PAUSES.get(self.failed).copied();
        self.failed += 1;
        let pause = match failure.again {
            Again::Once if self.failed == 1 => ours.map(jittered),
            _ => ours.and_then(|ours| failure.pause(ours)),
        };
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < self.deadline) else {
            return Err(failure.error);
        };
        tracing::debug!(
            error = %failure.error,
            upstream = failure.error.host(),
            ?pause,
            request_id = RequestId::current().map(tracing::field::display),
            "asking again"
        );
        sleep(pause).await;
        Ok(())
    }
}

/// Three quarters to five quarters of it, so that hosts that failed together do not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    pause * (768 + random as u32) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(retry_after("Fri, 31 Dec 2100 23:59:59 GMT").is_some_and(|pause| !pause.is_zero()));
        for text in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
