//! Where the log's bytes go: the standard error, a file, or the journal.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::line::Format;
use super::stderr;
use crate::config::{self, LogFormat};

const JOURNAL: &str = "/run/systemd/journal/socket";

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
    Journal(UnixDatagram, PathBuf),
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
            LogFormat::Auto if stderr::is_journal() => journal(Path::new(JOURNAL)),
            LogFormat::Auto | LogFormat::Text | LogFormat::Json => None,
        };
        Ok(match journal {
            Some(journal) => Self::new(journal, Format::Journal),
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
            Place::Stderr | Place::Journal(..) => Box::new(|| Ok(())),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// None where it does not listen.
fn journal(path: &Path) -> Option<Place> {
    let socket = UnixDatagram::unbound().ok()?;
    // It takes no notice of a message without a field.
    socket.send_to(&[], path).ok()?;
    Some(Place::Journal(socket, path.to_owned()))
}

/// One call is one line. What fails is counted: there is nobody to tell.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = match &mut self.place {
            Place::Stderr => io::stderr().write_all(line),
            Place::File { file, .. } => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line),
            // Waits while the journal's queue is full: that is what our own queue is for.
            Place::Journal(socket, path) => socket.send_to(line, path).map(drop),
        };
        if written.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        output.write_all(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        output.write_all(b"two\n").unwrap();
        reopen().unwrap();
        output.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read(folder.path().join("log.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_line_is_one_message_to_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut output = Output::new(super::journal(&path).unwrap(), Format::Journal);
        let mut buffer = [0; 64];
        assert_eq!(journal.recv(&mut buffer).unwrap(), 0);
        output.write_all(b"MESSAGE=one\n").unwrap();
        output.write_all(b"MESSAGE=two\n").unwrap();
        let length = journal.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"MESSAGE=one\n");
        drop(journal);
        output.write_all(b"MESSAGE=three\n").unwrap();
        assert_eq!(output.lost().load(Ordering::Relaxed), 1);
    }
}
