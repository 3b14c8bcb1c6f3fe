//! Where the log's bytes go: the standard error, a file, or the journal.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;

use super::line::{Format, Line};
use super::stderr;
use crate::config::{self, LogFormat};

/// An open output, and how lines look there.
pub struct Output {
    place: Place,
    format: Format,
    /// Lines that could not be written.
    lost: Arc<AtomicU64>,
}

enum Place {
    Stderr,
    File { path: PathBuf, file: Arc<Mutex<File>> },
    Journal(Box<dyn Subscriber + Send + Sync>),
}

impl Output {
    /// Opens what the configuration says. The standard error is the journal when systemd says that it is.
    pub fn open(log: &config::Log) -> io::Result<Self> {
        let text_or_json = if log.format == LogFormat::Json { Format::Json } else { Format::Text };
        if let Some(path) = &log.file {
            let file = Arc::new(Mutex::new(open(path)?));
            return Ok(Self::new(Place::File { path: path.clone(), file }, text_or_json));
        }
        let journal = match log.format {
            LogFormat::Auto if stderr::is_journal() => journal(),
            LogFormat::Auto | LogFormat::Text | LogFormat::Json => None,
        };
        Ok(match journal {
            Some(journal) => Self::new(Place::Journal(Box::new(journal)), Format::Journal),
            None => Self::new(Place::Stderr, text_or_json),
        })
    }

    fn new(place: Place, format: Format) -> Self {
        Self { place, format, lost: Arc::default() }
    }

    pub fn lost(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Waits for whoever reads: that is what the queue is for. What fails is counted: there is nobody to tell.
    pub fn write(&mut self, line: &Line) {
        let written = match (&mut self.place, line) {
            (Place::Journal(journal), Line::Entry(entry)) => {
                entry.tell(&**journal);
                Ok(())
            }
            (Place::File { file, .. }, Line::Bytes(bytes)) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
            }
            (Place::Stderr, Line::Bytes(bytes)) => io::stderr().write_all(bytes),
            // Lines are made in the format of this very place.
            (Place::Journal(_), Line::Bytes(_)) | (_, Line::Entry(_)) => Err(ErrorKind::InvalidData.into()),
        };
        if written.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn reopener(&self) -> Box<dyn Fn() -> io::Result<()> + Send + Sync> {
        match &self.place {
            Place::File { path, file } => {
                let (path, file) = (path.clone(), file.clone());
                Box::new(move || {
                    let new = open(&path)?;
                    *file.lock().unwrap_or_else(PoisonError::into_inner) = new;
                    Ok(())
                })
            }
            Place::Stderr | Place::Journal(_) => Box::new(|| Ok(())),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// None where it does not listen.
fn journal() -> Option<impl Subscriber + Send + Sync> {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let journal = tracing_journald::layer().ok()?;
    let journal = journal.with_field_prefix(None).with_syslog_identifier("ociregistry".to_owned());
    Some(tracing_subscriber::registry().with(journal.with_priority_mappings(priorities)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = config::Log {
            level: tracing::level_filters::LevelFilter::INFO,
            file: Some(path.clone()),
            format: LogFormat::Auto,
        };
        let mut output = Output::open(&log).unwrap();
        assert_eq!(output.format(), Format::Text);
        let reopen = output.reopener();
        output.write(&Line::Bytes(b"one\n".to_vec()));
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        output.write(&Line::Bytes(b"two\n".to_vec()));
        reopen().unwrap();
        output.write(&Line::Bytes(b"three\n".to_vec()));
        assert_eq!(std::fs::read(folder.path().join("log.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }
}
