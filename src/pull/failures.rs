//! Failed pulls in the log: of what one upstream does to us, the first time at once, and then once a minute how
//! often it did so again. Otherwise an upstream that is down writes a line for every request.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{Cause, PullError};
use crate::oci::{Name, Registry};

/// Failures of a kind are summed up for so long.
const TOGETHER: Duration = Duration::from_secs(60);

/// Registries and kinds that are told apart; what is beyond is summed up as one.
const KINDS: usize = 256;

/// Logs a failed pull with the fields that the log knows it by.
macro_rules! log_failure {
    ($level:ident, $name:expr, $reference:expr, $error:expr, $($message:tt)+) => {
        tracing::$level!(
            error = %$error,
            oci_registry = %$name.registry,
            oci_repository = %$name.repository,
            oci_reference = %$reference,
            upstream = $error.upstream(),
            request_id = $crate::request_id::RequestId::current().map(tracing::field::display),
            $($message)+
        )
    };
}
pub(super) use log_failure;

/// Logs what was done for an image, likewise; more fields may stand before the message.
macro_rules! log_image {
    ($level:ident, $image:expr, $($rest:tt)+) => {
        $crate::pull::log_name!($level, $image.name, oci_reference = %$image.reference, $($rest)+)
    };
}
pub(crate) use log_image;

/// The same for a repository, or what is in it.
macro_rules! log_name {
    ($level:ident, $name:expr, $($rest:tt)+) => {
        tracing::$level!(
            oci_registry = %$name.registry,
            oci_repository = %$name.repository,
            request_id = $crate::request_id::RequestId::current().map(tracing::field::display),
            $($rest)+
        )
    };
}
pub(crate) use log_name;

/// Those of late.
#[derive(Default)]
pub struct Failures {
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    last: Option<(SystemTime, String)>,
    kinds: HashMap<(Option<Registry>, Cause), Kind>,
}

struct Kind {
    since: Instant,
    /// Not logged.
    more: u64,
    last: Last,
}

/// The last of those that were not logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    pub what: String,
    pub error: String,
    pub upstream: Option<String>,
}

/// What was not logged one by one.
#[derive(Debug, PartialEq, Eq)]
pub struct Sum {
    /// None for those of registries too many to tell apart.
    pub registry: Option<Registry>,
    pub more: u64,
    pub last: Last,
}

impl Failures {
    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs one, unless its like was logged of late. `what` says what came of it, as in "cannot pull x".
    pub fn warn(&self, name: &Name, reference: impl Display, error: &PullError, what: &str) {
        if self.note(&name.registry, what, error) {
            log_failure!(warn, name, reference, error, "{what}");
        }
    }

    /// The same for what is worse than an upstream that is down.
    pub fn error(&self, name: &Name, reference: impl Display, error: &PullError, what: &str) {
        if self.note(&name.registry, what, error) {
            log_failure!(error, name, reference, error, "{what}");
        }
    }

    /// Remembers one, and says whether it is to be logged now.
    fn note(&self, registry: &Registry, what: &str, error: &PullError) -> bool {
        let mut recent = self.lock();
        let text = format!("{what}: {error}");
        recent.last = Some((SystemTime::now(), text));
        let mut key = (Some(registry.clone()), error.cause());
        if recent.kinds.len() >= KINDS && !recent.kinds.contains_key(&key) {
            key.0 = None;
        }
        match recent.kinds.get_mut(&key) {
            Some(kind) => {
                kind.more += 1;
                let upstream = error.upstream().map(str::to_owned);
                kind.last = Last { what: what.to_owned(), error: error.to_string(), upstream };
                false
            }
            None => {
                recent.kinds.insert(key, Kind { since: Instant::now(), more: 0, last: Last::default() });
                true
            }
        }
    }

    /// The last one and when it was.
    pub fn last(&self) -> Option<(SystemTime, String)> {
        self.lock().last.clone()
    }

    /// What has gathered for a minute at `now`. A kind that has not come again is logged at once the next time.
    fn sums(&self, now: Instant) -> Vec<Sum> {
        let mut sums = Vec::new();
        self.lock().kinds.retain(|(registry, _), kind| {
            if now.duration_since(kind.since) < TOGETHER {
                return true;
            }
            if kind.more == 0 {
                return false;
            }
            let last = std::mem::take(&mut kind.last);
            sums.push(Sum { registry: registry.clone(), more: std::mem::take(&mut kind.more), last });
            kind.since = now;
            true
        });
        sums
    }

    /// Logs what has gathered, until dropped.
    pub async fn sum_up(&self) {
        loop {
            tokio::time::sleep(TOGETHER / 12).await;
            for Sum { registry, more, last } in self.sums(Instant::now()) {
                tracing::warn!(
                    error = %last.error,
                    oci_registry = registry.as_ref().map(Registry::as_str),
                    upstream = last.upstream,
                    repeated = more,
                    "and {more} more of: {}",
                    last.what
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamError;

    fn unavailable() -> PullError {
        UpstreamError::Unavailable { host: "a.b".to_owned(), reason: "gone".to_owned() }.into()
    }

    #[test]
    fn the_first_is_logged_and_the_rest_is_summed_up_each_minute() {
        let failures = Failures::default();
        let (registry, other) = ("a.b".parse().unwrap(), "c.d".parse().unwrap());
        let begun = Instant::now();
        assert!(failures.note(&registry, "one", &unavailable()));
        assert!(!failures.note(&registry, "two", &unavailable()));
        assert!(!failures.note(&registry, "three", &unavailable()));
        assert!(failures.note(&registry, "another kind", &PullError::TooLate));
        assert!(failures.note(&other, "another registry", &unavailable()));
        assert!(failures.sums(begun).is_empty());
        let last = Last {
            what: "three".to_owned(),
            error: unavailable().to_string(),
            upstream: Some("a.b".to_owned()),
        };
        let sum = Sum { registry: Some(registry.clone()), more: 2, last };
        assert_eq!(failures.sums(begun + TOGETHER * 2), [sum]);
        // Others were forgotten, this one goes on for another minute.
        assert!(failures.note(&other, "another registry", &unavailable()));
        assert!(!failures.note(&registry, "four", &unavailable()));
        assert!(failures.last().unwrap().1.starts_with("four: "));
    }

    #[test]
    fn memory_is_bounded_whatever_clients_name() {
        let failures = Failures::default();
        for n in 0..2 * KINDS {
            failures.note(&format!("r{n}.example").parse().unwrap(), "pull", &unavailable());
        }
        assert_eq!(failures.lock().kinds.len(), KINDS + 1);
    }
}
