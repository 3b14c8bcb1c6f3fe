//! Where log lines go. They pass through a bounded queue: a reader of stderr that stalls stalls nobody, and what
//! does not fit is dropped and counted.

use std::fmt;
use std::fs::File;
use std::io;

use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, time};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::ServeError;
use crate::config::{Log, LogFormat};

/// Lines that may wait.
const WAITING: usize = 8192;

/// Starts logging. What waits is written when the guard is dropped.
pub fn start(log: &Log) -> Result<WorkerGuard, ServeError> {
    let (writer, guard) = match &log.file {
        Some(path) => {
            let open = File::options().append(true).create(true).open(path);
            let file = open.map_err(|source| ServeError::Log { path: path.display().to_string(), source })?;
            builder().finish(file)
        }
        None => builder().finish(io::stderr()),
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_target("ociregistry", log.level)
        .with_default(log.level.min(tracing::level_filters::LevelFilter::WARN));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => registry.with(layer.event_format(Line)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    // Only a second start in one process fails, and then logging is there already.
    let _ = started;
    Ok(guard)
}

fn builder() -> NonBlockingBuilder {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).thread_name("log")
}

/// `2026-01-31T12:00:00.123456Z INFO message field=value …`
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        time::FormatTime::format_time(&time::SystemTime, &mut writer)?;
        write!(writer, " {:<5} ", event.metadata().level())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
