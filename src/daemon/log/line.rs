//! From an event to the bytes of its line.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::admin::Mention;

/// Fields that are for readers only: programs find the same in another one.
const TEXT_ONLY: [&str; 2] = ["latency", "ip"];

/// Fields that are for programs only: the text says the same in other words.
const DATA_ONLY: [&str; 8] = [
    "oci_registry",
    "oci_repository",
    "oci_reference",
    "oci_digest",
    "upstream",
    "client",
    "duration_ms",
    "request_id",
];

/// Of one value, in bytes; the rest is cut off.
const LONGEST: usize = 8 << 10;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-01-31T12:00:00.123456Z INFO  message: error field=value …`
    Text,
    /// An object.
    Json,
    /// The journal's native protocol: `NAME=value`, a line each.
    Journal,
}

/// The last event of level error.
#[derive(Clone, Default)]
pub struct LastError(Arc<Mutex<Option<Mention>>>);

impl LastError {
    pub fn get(&self) -> Option<Mention> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, what: &str) {
        let mention = Mention { at: Timestamp::now(), what: what.to_owned() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(mention);
    }
}

/// As of syslog(3).
pub fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Makes a line of each event, and queues it.
pub struct Lines {
    format: Format,
    queue: NonBlocking,
    last_error: LastError,
}

impl Lines {
    pub fn new(format: Format, queue: NonBlocking, last_error: LastError) -> Self {
        Self { format, queue, last_error }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::new(self.format);
        event.record(&mut line);
        if *event.metadata().level() == Level::ERROR {
            self.last_error.set(&line.text);
        }
        // The queue counts what it cannot take.
        let _ = self.queue.clone().write_all(&line.finish(event.metadata(), Timestamp::now()));
    }
}

/// A line that is being put together.
struct Line {
    format: Format,
    /// What a reader sees, all but time and level.
    text: String,
    /// The fields as programs read them.
    data: Vec<u8>,
    value: String,
    /// What was added last, so that an error may follow right behind the message.
    after_message: bool,
}

/// What a value is to a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    /// Text that readers see between quotes.
    Quoted,
    Number,
}

impl Line {
    fn new(format: Format) -> Self {
        Self { format, text: String::new(), data: Vec::new(), value: String::new(), after_message: false }
    }

    fn add(&mut self, field: &Field, of: Type, write: fmt::Arguments<'_>) {
        let name = field.name();
        let shown = !DATA_ONLY.contains(&name);
        let kept = self.format != Format::Text && !TEXT_ONLY.contains(&name);
        if !shown && !kept {
            return;
        }
        self.value.clear();
        // Writing to a string does not fail.
        let _ = self.value.write_fmt(write);
        if self.value.is_empty() && !shown {
            return;
        }
        if self.value.len() > LONGEST {
            self.value.truncate(self.value.floor_char_boundary(LONGEST));
            self.value.push('…');
        }
        if shown {
            let value = &self.value;
            let _ = match name {
                "message" => write!(self.text, "{value}"),
                "error" if self.after_message => write!(self.text, ": {value}"),
                _ if of == Type::Quoted => write!(self.text, " {name}={value:?}"),
                _ => write!(self.text, " {name}={value}"),
            };
            self.after_message = name == "message";
        }
        if !kept {
            return;
        }
        match self.format {
            Format::Text => {}
            Format::Json => {
                self.data.push(b',');
                self.json_string(name);
                self.data.push(b':');
                if of == Type::Number {
                    self.data.extend_from_slice(self.value.as_bytes());
                } else {
                    let value = std::mem::take(&mut self.value);
                    self.json_string(&value);
                    self.value = value;
                }
            }
            // The journal's message is the whole text.
            Format::Journal if name == "message" => {}
            Format::Journal => {
                let value = std::mem::take(&mut self.value);
                self.journal_field(&name.to_ascii_uppercase(), &value);
                self.value = value;
            }
        }
    }

    fn json_string(&mut self, text: &str) {
        // A string always is JSON, and memory takes what is written.
        let _ = serde_json::to_writer(&mut self.data, text);
    }

    /// <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: a value of several lines stands behind its length.
    fn journal_field(&mut self, name: &str, value: &str) {
        self.data.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.data.push(b'\n');
            self.data.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.data.push(b'=');
        }
        self.data.extend_from_slice(value.as_bytes());
        self.data.push(b'\n');
    }

    fn finish(mut self, event: &Metadata<'_>, now: Timestamp) -> Vec<u8> {
        let level = event.level();
        match self.format {
            Format::Text => {
                // A message of several lines is told from the next by its indent.
                let text = self.text.replace('\n', "\n    ");
                format!("{now:.6} {level:<5} {text}\n").into_bytes()
            }
            Format::Json => {
                let head = format!(
                    "{{\"timestamp\":\"{now:.6}\",\"level\":\"{level}\",\"target\":\"{}\"",
                    event.target()
                );
                let mut line = head.into_bytes();
                line.append(&mut self.data);
                line.extend_from_slice(b"}\n");
                line
            }
            Format::Journal => {
                self.journal_field("PRIORITY", priority(*level));
                self.journal_field("SYSLOG_IDENTIFIER", "ociregistry");
                let text = std::mem::take(&mut self.text);
                self.journal_field("MESSAGE", &text);
                if let (Some(file), Some(line)) = (event.file(), event.line()) {
                    self.journal_field("CODE_FILE", file);
                    self.journal_field("CODE_LINE", &line.to_string());
                }
                self.data
            }
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Type::Text, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let of = if field.name() == "message" { Type::Text } else { Type::Quoted };
        self.add(field, of, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Type::Number, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Type::Number, format_args!("{value}"));
    }

    /// Thousandths are enough for all that we measure.
    fn record_f64(&mut self, field: &Field, value: f64) {
        let of = if value.is_finite() { Type::Number } else { Type::Text };
        self.add(field, of, format_args!("{value:.3}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Type::Number, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Hands over each line.
    struct Caught(Format, mpsc::Sender<String>);

    impl<S: Subscriber> Layer<S> for Caught {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = Line::new(self.0);
            event.record(&mut line);
            let bytes = line.finish(event.metadata(), Timestamp::UNIX_EPOCH);
            self.1.send(String::from_utf8(bytes).unwrap()).unwrap();
        }
    }

    fn lines(format: Format, events: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        let subscriber = tracing_subscriber::registry().with(Caught(format, sender));
        tracing::subscriber::with_default(subscriber, events);
        receiver.try_iter().collect()
    }

    fn events() {
        tracing::info!(
            status = 200,
            bytes = 5_u64,
            latency = ?std::time::Duration::from_micros(1500),
            duration_ms = 1.5,
            ip = %"127.0.0.1",
            client = %"127.0.0.1",
            cache = "hit",
            oci_registry = %"docker.io",
            absent = None::<u64>,
            "GET:/v2/"
        );
        tracing::warn!(path = %"/a b", error = %"no\n\"way\"", "cannot read");
    }

    #[test]
    fn text_is_for_readers() {
        assert_eq!(
            lines(Format::Text, events),
            [
                "1970-01-01T00:00:00.000000Z INFO  GET:/v2/ status=200 bytes=5 latency=1.5ms ip=127.0.0.1 cache=\"hit\"\n",
                "1970-01-01T00:00:00.000000Z WARN  cannot read path=/a b error=no\n    \"way\"\n",
            ]
        );
        let error_first = || tracing::error!(error = %"gone", path = %"/a", "cannot read");
        assert_eq!(
            lines(Format::Text, error_first),
            ["1970-01-01T00:00:00.000000Z ERROR cannot read: gone path=/a\n"]
        );
    }

    #[test]
    fn json_has_every_fact_once() {
        let lines = lines(Format::Json, events);
        let parsed: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            parsed[0],
            serde_json::json!({
                "timestamp": "1970-01-01T00:00:00.000000Z", "level": "INFO",
                "target": "ociregistry::daemon::log::line::tests", "message": "GET:/v2/", "status": 200,
                "bytes": 5, "duration_ms": 1.5, "client": "127.0.0.1", "cache": "hit", "oci_registry": "docker.io",
            })
        );
        assert_eq!(parsed[1]["error"], "no\n\"way\"");
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
    }

    #[test]
    fn the_journal_gets_fields_of_its_own() {
        let lines = lines(Format::Journal, events);
        for field in [
            "STATUS=200",
            "BYTES=5",
            "DURATION_MS=1.500",
            "CLIENT=127.0.0.1",
            "CACHE=hit",
            "OCI_REGISTRY=docker.io",
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=ociregistry",
            "MESSAGE=GET:/v2/ status=200 bytes=5 latency=1.5ms ip=127.0.0.1 cache=\"hit\"",
        ] {
            assert!(lines[0].lines().any(|line| line == field), "{field}\n{}", lines[0]);
        }
        assert!(!lines[0].contains("IP=") && !lines[0].contains("LATENCY="), "{}", lines[0]);
        assert!(lines[1].contains("ERROR\n\u{8}\0\0\0\0\0\0\0no\n\"way\"\n"), "{:?}", lines[1]);
        assert!(lines[1].contains("PRIORITY=4\n"));
    }

    #[test]
    fn a_value_has_its_limit() {
        let long = "ä".repeat(LONGEST);
        let lines = lines(Format::Text, || tracing::info!("{long}"));
        assert!(lines[0].len() < LONGEST + 100 && lines[0].ends_with("…\n"));
    }
}
