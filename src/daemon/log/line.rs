//! From an event to its line.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::field::{Field, Value, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::Queue;
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
    /// A message and fields.
    Journal,
}

/// A line as the log's thread writes it.
#[derive(Debug)]
pub enum Line {
    /// With its end.
    Bytes(Vec<u8>),
    Entry(Box<Entry>),
}

/// An event that has left its thread.
#[derive(Debug)]
pub struct Entry {
    metadata: &'static Metadata<'static>,
    /// Of each of the event's fields, as they are declared.
    values: Vec<Option<String>>,
}

impl Entry {
    /// Makes an event of it again, for a subscriber that takes it in this thread. It is not a dispatcher's: that would
    /// have every thread make every event, if only for the subscriber to want none of it.
    pub fn tell(&self, to: &dyn Subscriber) {
        let values: Vec<_> =
            self.values.iter().map(|value| value.as_ref().map(|value| value as &dyn Value)).collect();
        to.event(&Event::new(self.metadata, &self.metadata.fields().value_set_all(&values)));
    }
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
    queue: Queue,
    last_error: LastError,
}

impl Lines {
    pub fn new(format: Format, queue: Queue, last_error: LastError) -> Self {
        Self { format, queue, last_error }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut draft = Draft::new(self.format, event.metadata());
        event.record(&mut draft);
        if *event.metadata().level() == Level::ERROR {
            self.last_error.set(&draft.text);
        }
        self.queue.put(draft.finish(Timestamp::now()));
    }
}

/// A line that is being put together.
struct Draft {
    metadata: &'static Metadata<'static>,
    /// What a reader sees, all but time and level.
    text: String,
    data: Data,
    value: String,
    /// What was added last, so that an error may follow right behind the message.
    after_message: bool,
}

/// The fields as programs read them.
enum Data {
    None,
    Json(Vec<u8>),
    Entry(Vec<Option<String>>),
}

/// What a value is to a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    /// Text that readers see between quotes.
    Quoted,
    Number,
}

impl Draft {
    fn new(format: Format, metadata: &'static Metadata<'static>) -> Self {
        let data = match format {
            Format::Text => Data::None,
            Format::Json => Data::Json(Vec::new()),
            Format::Journal => Data::Entry(vec![None; metadata.fields().len()]),
        };
        Self { metadata, text: String::new(), data, value: String::new(), after_message: false }
    }

    fn add(&mut self, field: &Field, of: Type, write: fmt::Arguments<'_>) {
        let name = field.name();
        let shown = !DATA_ONLY.contains(&name);
        let kept = !matches!(self.data, Data::None) && !TEXT_ONLY.contains(&name);
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
        match &mut self.data {
            Data::None => {}
            Data::Json(json) => {
                json.push(b',');
                json_string(json, name);
                json.push(b':');
                match of {
                    Type::Number => json.extend_from_slice(self.value.as_bytes()),
                    Type::Text | Type::Quoted => json_string(json, &self.value),
                }
            }
            Data::Entry(values) => {
                if let Some(place) = values.get_mut(field.index()) {
                    *place = Some(self.value.clone());
                }
            }
        }
    }

    fn finish(self, now: Timestamp) -> Line {
        let level = self.metadata.level();
        match self.data {
            Data::None => {
                // A message of several lines is told from the next by its indent.
                let text = self.text.replace('\n', "\n    ");
                Line::Bytes(format!("{now:.6} {level:<5} {text}\n").into_bytes())
            }
            Data::Json(mut json) => {
                let head = format!(
                    "{{\"timestamp\":\"{now:.6}\",\"level\":\"{level}\",\"target\":\"{}\"",
                    self.metadata.target()
                );
                let mut line = head.into_bytes();
                line.append(&mut json);
                line.extend_from_slice(b"}\n");
                Line::Bytes(line)
            }
            Data::Entry(mut values) => {
                // The journal's message is the whole text.
                let message = self.metadata.fields().field("message");
                if let Some(place) = message.and_then(|field| values.get_mut(field.index())) {
                    *place = Some(self.text);
                }
                Line::Entry(Box::new(Entry { metadata: self.metadata, values }))
            }
        }
    }
}

fn json_string(json: &mut Vec<u8>, text: &str) {
    // A string always is JSON, and memory takes what is written.
    let _ = serde_json::to_writer(json, text);
}

impl Visit for Draft {
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
    struct Caught(Format, mpsc::Sender<Line>);

    impl<S: Subscriber> Layer<S> for Caught {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut draft = Draft::new(self.0, event.metadata());
            event.record(&mut draft);
            self.1.send(draft.finish(Timestamp::UNIX_EPOCH)).unwrap();
        }
    }

    fn caught(format: Format, events: impl FnOnce()) -> Vec<Line> {
        let (sender, receiver) = mpsc::channel();
        let subscriber = tracing_subscriber::registry().with(Caught(format, sender));
        tracing::subscriber::with_default(subscriber, events);
        receiver.try_iter().collect()
    }

    fn lines(format: Format, events: impl FnOnce()) -> Vec<String> {
        let text = |line| match line {
            Line::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            Line::Entry(entry) => panic!("{entry:?}"),
        };
        caught(format, events).into_iter().map(text).collect()
    }

    /// What a subscriber of the log's thread hears.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(Level, String, String)>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
                let fact = (*event.metadata().level(), field.name().to_owned(), format!("{value:?}"));
                self.0.lock().unwrap().push(fact);
            });
        }
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
        let heard = Heard::default();
        let journal = tracing_subscriber::registry().with(heard.clone());
        for line in caught(Format::Journal, events) {
            let Line::Entry(entry) = line else { panic!("{line:?}") };
            entry.tell(&journal);
        }
        let message = r#"GET:/v2/ status=200 bytes=5 latency=1.5ms ip=127.0.0.1 cache="hit""#;
        let told = [
            (Level::INFO, "message", message),
            (Level::INFO, "status", "200"),
            (Level::INFO, "bytes", "5"),
            (Level::INFO, "duration_ms", "1.500"),
            (Level::INFO, "client", "127.0.0.1"),
            (Level::INFO, "cache", "hit"),
            (Level::INFO, "oci_registry", "docker.io"),
            (Level::WARN, "message", "cannot read path=/a b error=no\n\"way\""),
            (Level::WARN, "path", "/a b"),
            (Level::WARN, "error", "no\n\"way\""),
        ];
        let told = told.map(|(level, name, value)| (level, name.to_owned(), format!("{value:?}")));
        assert_eq!(*heard.0.lock().unwrap(), told);
    }

    #[test]
    fn a_value_has_its_limit() {
        let long = "ä".repeat(LONGEST);
        let lines = lines(Format::Text, || tracing::info!("{long}"));
        assert!(lines[0].len() < LONGEST + 100 && lines[0].ends_with("…\n"));
    }
}
