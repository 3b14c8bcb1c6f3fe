//! The check of the whole cache, now and then, in idle time.

use std::thread;
use std::time::{Duration, SystemTime};

use thread_priority::unix::{set_thread_priority_and_policy, thread_native_id};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::{AFTER_START, Shared};
use crate::store::care::CareError;

/// Bytes that are read in a second at most.
const RATE: u64 = 32 << 20;

/// A check that failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Runs until the daemon ends.
pub fn run(shared: &Shared) {
    // Idle for the processor is idle for the disk as well (ioprio_set(2)). Where it is not allowed, the rate has to do.
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        tracing::debug!("the check runs like everything else, not in idle time: {error:?}");
    }
    let (mut since, mut pause) = (SystemTime::now(), AFTER_START);
    // A full disk does not keep what it finds.
    let mut finished = None;
    while !shared.is_over() {
        let Some(every) = shared.settings.load().1.every else {
            thread::park();
            continue;
        };
        let due = (last(shared, finished) + every).max(since + pause.min(every));
        if let Ok(early) = due.duration_since(SystemTime::now())
            && !early.is_zero()
        {
            thread::park_timeout(early);
            continue;
        }
        let result = shared.paced(|pace| shared.store.check_and_repair(&pace.at_rate(RATE), &mut |_| {}));
        if result.is_ok() {
            finished = Some(SystemTime::now());
        }
        match result {
            Ok(report) if report.wrong == 0 => tracing::info!("{report}"),
            Ok(report) => tracing::error!("{report}"),
            Err(CareError::Stopped) => return,
            Err(error) => {
                tracing::error!("cannot check the cache: {error}");
                (since, pause) = (SystemTime::now(), AGAIN);
            }
        }
    }
}

/// When a check last came to its end, ours or another; for a cache that never had one, when it was made. What is still
/// to come was noted by a clock that was wrong: it counts as none.
fn last(shared: &Shared, ours: Option<SystemTime>) -> SystemTime {
    let latest = SystemTime::now() + Duration::from_secs(60);
    let folder = shared.store.folder();
    let finished = folder.last_check().map(|report| report.finished.as_second());
    let finished = finished.map(|second| SystemTime::UNIX_EPOCH + Duration::from_secs(second.unsigned_abs()));
    let past = |time: Option<SystemTime>| time.filter(|time| *time <= latest);
    past(finished).max(past(ours)).or(past(folder.made())).unwrap_or(SystemTime::UNIX_EPOCH)
}
