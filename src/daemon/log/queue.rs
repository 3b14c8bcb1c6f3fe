//! What waits between those who log and the thread that writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Line;
use super::output::Output;

/// Lines that may wait.
const WAITING: usize = 8192;

/// How long the end waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes lines, and never blocks.
#[derive(Clone)]
pub struct Queue {
    /// None is the end.
    lines: SyncSender<Option<Line>>,
    dropped: Arc<AtomicU64>,
}

/// Writes what waits when it is dropped, if that takes no longer than a second.
pub struct Guard {
    lines: SyncSender<Option<Line>>,
    ended: Receiver<()>,
}

/// Starts the thread that writes.
pub fn start(mut output: Output) -> io::Result<(Queue, Guard)> {
    let (lines, waiting) = sync_channel::<Option<Line>>(WAITING);
    let (end, ended) = sync_channel::<()>(0);
    let write = move || {
        let _end = end;
        while let Ok(Some(line)) = waiting.recv() {
            output.write(&line);
        }
    };
    thread::Builder::new().name("log".to_owned()).spawn(write)?;
    Ok((Queue { lines: lines.clone(), dropped: Arc::default() }, Guard { lines, ended }))
}

impl Queue {
    /// Drops what it cannot take, and counts it.
    pub fn put(&self, line: Line) {
        if self.lines.try_send(Some(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.lines.try_send(None), Err(TrySendError::Full(_))) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // It ends by the other side's going.
        let _ = self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}
