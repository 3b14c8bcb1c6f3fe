//! The same page on a terminal again and again, in place.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use http::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::page::page;
use crate::admin::{AdminError, Client, Status};
use crate::cli::Error;

/// Ctrl-C, when the terminal makes no signal of it.
const INTERRUPT: u8 = 3;

/// Shows how the daemon is until q or Ctrl-C. A daemon that has gone is waited for.
pub fn watch(client: &Client, every: Duration) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Output)?;
    runtime.block_on(async {
        let mut events = Events::listen().map_err(Error::Output)?;
        let mut resized = signal(SignalKind::window_change()).map_err(Error::Output)?;
        // Found out before the screen is taken.
        let mut shown = Shown::of(ask(client).await?, every);
        let screen = Screen::take().map_err(Error::Output)?;
        loop {
            screen.paint(&shown.lines()).map_err(Error::Output)?;
            let next = Instant::now() + every;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    _ = resized.recv() => screen.paint(&shown.lines()).map_err(Error::Output)?,
                    () = events.ended() => return Ok(()),
                }
            }
            tokio::select! {
                answer = ask(client) => match answer {
                    Ok(status) => shown = Shown::of(status, every),
                    Err(error) => shown.error = Some(error.to_string()),
                },
                () = events.ended() => return Ok(()),
            }
        }
    })
}

async fn ask(client: &Client) -> Result<Status, AdminError> {
    client.answer(Method::GET, "/status").await
}

/// What is on the screen.
struct Shown {
    status: Status,
    every: Duration,
    /// Why it is old.
    error: Option<String>,
}

impl Shown {
    fn of(status: Status, every: Duration) -> Self {
        Self { status, every, error: None }
    }

    /// As many as there is room for, and no wider.
    fn lines(&self) -> Vec<String> {
        let (width, height) = terminal_size::terminal_size()
            .map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        let mut lines = page(&self.status, Some(width));
        let footer = match &self.error {
            None => vec![String::new(), format!("every {} s; q ends", self.every.as_secs())],
            Some(error) => vec![String::new(), format!("as it was; {error}"), "q ends".to_owned()],
        };
        let room = height.saturating_sub(footer.len());
        if lines.len() > room {
            lines.truncate(room.saturating_sub(1));
            lines.push("…".to_owned());
        }
        lines.extend(
            footer.into_iter().map(|line| line.replace(char::is_control, " ").chars().take(width).collect()),
        );
        lines.truncate(height);
        lines
    }
}

/// What may end it.
struct Events {
    keys: mpsc::Receiver<u8>,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Events {
    fn listen() -> io::Result<Self> {
        let (sender, keys) = mpsc::channel(16);
        // It waits for a key when the process ends.
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            for byte in io::stdin().lock().bytes() {
                let Ok(byte) = byte else { return };
                if sender.blocking_send(byte).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            keys,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    async fn ended(&mut self) {
        loop {
            tokio::select! {
                // Without a terminal to type at there are no keys.
                Some(key) = self.keys.recv() => if matches!(key, b'q' | b'Q' | INTERRUPT) { return },
                _ = self.interrupted.recv() => return,
                _ = self.terminated.recv() => return,
                _ = self.hung_up.recv() => return,
            }
        }
    }
}

/// The terminal's other screen, given back when dropped.
struct Screen {
    /// How keys were read before; none when they do not come from a terminal.
    before: Option<Termios>,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut keys = before.clone();
            keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            tcsetattr(io::stdin(), OptionalActions::Now, &keys)?;
        }
        let screen = Self { before };
        // The other screen, without a cursor.
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// In one write, each line over the one before: nothing flickers. Where the terminal knows how (mode 2026), it
    /// shows all of it at once.
    fn paint(&self, lines: &[String]) -> io::Result<()> {
        let text = lines.join("\x1b[K\r\n");
        write(&format!("\x1b[?2026h\x1b[H{text}\x1b[K\x1b[J\x1b[?2026l"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
