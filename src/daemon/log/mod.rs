//! Where log lines go. They pass through a bounded queue and a thread of its own: a reader of stderr, a disk or a
//! journal that stalls stalls nobody, and what does not fit is dropped and counted.
//!
//! - `line`: from an event to its line: text, JSON, or the journal's fields
//! - `queue`: where lines wait, and the thread that writes them
//! - `output`: where they go
//! - `stderr`: what is said there past all that
//!
//! The names of fields are those of JSON and, in capitals, of the journal: an event says `oci_registry`,
//! `oci_repository`, `oci_reference`, `oci_digest`, `upstream`, `error` where it knows them.

mod line;
mod output;
mod queue;
mod stderr;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::Mention;
use line::{LastError, Lines};
pub use output::Output;
use queue::Guard;
pub use stderr::say;

/// The log while the daemon runs.
pub struct Log {
    filter: Handle<Targets, Registry>,
    reopen: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    dropped: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    last_error: LastError,
    is_file: bool,
}

/// Starts logging, also of threads that die. What waits is written when the guard is dropped, if that takes no longer
/// than a second. Fails when the system gives no thread.
pub fn start(output: Output, level: LevelFilter) -> io::Result<(Arc<Log>, Guard)> {
    let format = output.format();
    let (reopen, lost, is_file) = (output.reopener(), output.lost(), output.is_file());
    let (queue, guard) = queue::start(output)?;
    let dropped = queue.dropped();
    let last_error = LastError::default();
    let (filter, handle) = reload::Layer::new(targets(level));
    // Only a second start in one process fails, and then logging is there already.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(Lines::new(format, queue, last_error.clone()))
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let seen = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = seen.then(|| tracing::field::display(format!("{backtrace}")));
        tracing::error!(backtrace, "thread {} {panic}", thread.name().unwrap_or("without a name"));
    }));
    Ok((Arc::new(Log { filter: handle, reopen, dropped, lost, last_error, is_file }), guard))
}

/// What other crates say is of interest only when something is wrong.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_target("ociregistry", level).with_default(level.min(LevelFilter::WARN))
}

impl Log {
    pub fn set_level(&self, level: LevelFilter) {
        // Fails only when the subscriber is gone, and with it the log.
        let _ = self.filter.reload(targets(level));
    }

    /// Opens the log file anew, for a program that has moved it away. Without one there is nothing to do.
    pub fn reopen(&self) -> io::Result<()> {
        (self.reopen)()
    }

    /// Whether it goes to a file of its own.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// Lines that were not written, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed)
    }

    /// The last event of level error.
    pub fn last_error(&self) -> Option<Mention> {
        self.last_error.get()
    }
}
