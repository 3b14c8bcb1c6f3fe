//! What became of the requests to a registry: how many, what they brought, and how the last one went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::error::UpstreamError;

/// How a registry is, by what came of asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was not asked since the start.
    NeverAsked,
    /// It answered when it was last asked.
    Reachable,
    /// It answers nothing of use since then.
    Failing { since: SystemTime },
    /// It wants to be left alone, until then if it said so.
    Limited { since: SystemTime, until: Option<SystemTime> },
}

/// A registry's account since the start.
#[derive(Clone, Debug)]
pub struct Account {
    pub condition: Condition,
    /// The last error and when it was, whatever has come of it since.
    pub last_error: Option<(SystemTime, String)>,
    /// Each try counts; those to its token service and to where it redirects do not.
    pub requests: u64,
    /// Of the bodies of its answers, also from where it redirects.
    pub bytes: u64,
}

/// Kept as long as the registry is known, across reloads.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Bytes that came from all registries.
    total: Arc<AtomicU64>,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Short critical sections, one a request to upstream.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// Since when nothing good came; none when the last answer was good.
    trouble: Option<Trouble>,
    error: Option<(SystemTime, String)>,
}

#[derive(Debug)]
enum Trouble {
    Failing { since: SystemTime },
    Limited { since: SystemTime, until: Option<SystemTime> },
}

impl Ledger {
    pub(super) fn new(total: &Arc<AtomicU64>) -> Self {
        Self { total: Arc::clone(total), ..Self::default() }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asks(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It answered. That it has no such thing, or does not give it to us, is an answer.
    pub(super) fn answered(&self) {
        self.last().trouble = None;
    }

    /// It gave nothing of use.
    pub(super) fn failed(&self, error: &UpstreamError) {
        let now = SystemTime::now();
        let mut last = self.last();
        if !matches!(last.trouble, Some(Trouble::Failing { .. })) {
            last.trouble = Some(Trouble::Failing { since: now });
        }
        last.error = Some((now, error.to_string()));
    }

    /// 429, with what `Retry-After` said.
    pub(super) fn limited(&self, error: &UpstreamError, retry_after: Option<Duration>) {
        let now = SystemTime::now();
        let until = retry_after.and_then(|pause| now.checked_add(pause));
        let mut last = self.last();
        let since = match last.trouble {
            Some(Trouble::Limited { since, .. }) => since,
            _ => now,
        };
        last.trouble = Some(Trouble::Limited { since, until });
        last.error = Some((now, error.to_string()));
    }

    pub(super) fn account(&self) -> Account {
        let requests = self.requests.load(Ordering::Relaxed);
        let last = self.last();
        let condition = match last.trouble {
            Some(Trouble::Failing { since }) => Condition::Failing { since },
            // What it asked for is over.
            Some(Trouble::Limited { until: Some(until), .. }) if until <= SystemTime::now() => {
                Condition::Reachable
            }
            Some(Trouble::Limited { since, until }) => Condition::Limited { since, until },
            None if requests == 0 => Condition::NeverAsked,
            None => Condition::Reachable,
        };
        let bytes = self.bytes.load(Ordering::Relaxed);
        Account { condition, last_error: last.error.clone(), requests, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(reason: &str) -> UpstreamError {
        UpstreamError::unavailable("a.b", reason)
    }

    #[test]
    fn trouble_lasts_from_the_first_failure_to_the_next_answer() {
        let ledger = Ledger::default();
        assert_eq!(ledger.account().condition, Condition::NeverAsked);
        ledger.asks();
        ledger.answered();
        assert_eq!(ledger.account().condition, Condition::Reachable);
        ledger.failed(&unavailable("one"));
        let Condition::Failing { since } = ledger.account().condition else { panic!() };
        ledger.failed(&unavailable("two"));
        assert_eq!(ledger.account().condition, Condition::Failing { since });
        ledger.answered();
        let account = ledger.account();
        assert_eq!(account.condition, Condition::Reachable);
        assert_eq!(account.last_error.unwrap().1, "a.b: two");
    }

    #[test]
    fn a_limit_is_over_when_upstream_said_so() {
        let ledger = Ledger::default();
        ledger.asks();
        ledger.limited(&unavailable("too many"), Some(Duration::from_secs(60)));
        let Condition::Limited { since, until: Some(until) } = ledger.account().condition else { panic!() };
        assert!(until >= since + Duration::from_secs(60));
        ledger.limited(&unavailable("too many"), None);
        assert_eq!(ledger.account().condition, Condition::Limited { since, until: None });
        ledger.limited(&unavailable("too many"), Some(Duration::ZERO));
        assert_eq!(ledger.account().condition, Condition::Reachable);
        // A number that nobody means is no end at all.
        ledger.limited(&unavailable("too many"), Some(Duration::MAX));
        assert_eq!(ledger.account().condition, Condition::Limited { since, until: None });
    }
}
