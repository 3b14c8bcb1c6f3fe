//! What systemd is told (sd_notify(3)), in order, by a thread of its own: one that does not read its socket holds
//! up nobody here. Where nobody listens there is no thread.

use std::collections::VecDeque;
use std::io;
use std::mem::discriminant;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// While we start or drain, systemd is asked for so much more time, so often, for so many times.
const EXTEND: Duration = Duration::from_secs(15);
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTENSIONS: u32 = 60;

/// In bytes.
const LONGEST_STATUS: usize = 1000;

/// One thing to tell.
#[derive(Debug)]
pub enum News {
    /// The start takes its time: how far it is. Asks for more time for it.
    Starting(String),
    /// The start is over: requests are answered.
    Ready(String),
    Reloading,
    /// Whatever came of it.
    Reloaded(String),
    /// In words, for `systemctl status`.
    Status(String),
    /// A request was answered just now by every thread that serves.
    Alive,
    /// We end, and may need some time for it.
    Stopping(String),
}

/// Where news goes. Cheap to clone.
#[derive(Clone)]
pub struct Systemd {
    waiting: Option<Arc<Waiting>>,
}

/// News that waits to be told. However long systemd takes none, there is one of a kind at most, the latest: none of those
/// that change the unit's state is lost, and what they change it to is the last word.
#[derive(Default)]
struct Waiting {
    news: Mutex<VecDeque<News>>,
    came: Condvar,
}

impl Waiting {
    fn add(&self, new: News) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.retain(|old| discriminant(old) != discriminant(&new));
        news.push_back(new);
        self.came.notify_one();
    }

    /// None: there was none for so long.
    fn next(&self, limit: Duration) -> Option<News> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.came.wait_timeout_while(news, limit, |news| news.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

impl Systemd {
    /// Listens to the environment: `NOTIFY_SOCKET`.
    pub fn start() -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self { waiting: None });
        }
        let waiting = Arc::<Waiting>::default();
        let told = waiting.clone();
        thread::Builder::new().name("systemd".to_owned()).spawn(move || pass_on(&told))?;
        Ok(Self { waiting: Some(waiting) })
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.waiting.is_some()
    }

    /// Never waits for systemd.
    pub fn tell(&self, news: News) {
        if let Some(waiting) = &self.waiting {
            waiting.add(news);
        }
    }
}

/// How often systemd wants to hear that we live, if it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// To the end of the process.
fn pass_on(waiting: &Waiting) -> ! {
    let mut extensions = 0;
    // A reload before the start is over is none to systemd: its end would be taken for that of the start.
    let mut ready = false;
    loop {
        let news = waiting.next(EXTEND_EVERY);
        if extensions > 0 {
            extensions -= 1;
            notify(&[NotifyState::ExtendTimeoutUsec(EXTEND.as_micros() as u32)]);
        }
        let Some(news) = news else { continue };
        match news {
            News::Starting(status) => notify(&[
                NotifyState::Status(&short(status)),
                NotifyState::ExtendTimeoutUsec(EXTEND.as_micros() as u32),
            ]),
            News::Ready(status) => {
                ready = true;
                notify(&[NotifyState::Ready, NotifyState::Status(&short(status))]);
            }
            News::Reloading | News::Reloaded(_) if !ready => {}
            News::Reloaded(status) => notify(&[NotifyState::Ready, NotifyState::Status(&short(status))]),
            News::Status(status) => notify(&[NotifyState::Status(&short(status))]),
            News::Reloading => match NotifyState::monotonic_usec_now() {
                // In one message, or it is no reload to systemd.
                Ok(now) => notify(&[NotifyState::Reloading, now]),
                Err(error) => tracing::warn!(%error, "cannot tell the time"),
            },
            News::Alive => notify(&[NotifyState::Watchdog]),
            News::Stopping(status) => {
                extensions = EXTENSIONS;
                notify(&[
                    NotifyState::Stopping,
                    NotifyState::Status(&short(status)),
                    NotifyState::ExtendTimeoutUsec(EXTEND.as_micros() as u32),
                ]);
            }
        }
    }
}

/// A message of more than 4,096 bytes is passed over as a whole, and a line ends a status.
fn short(status: String) -> String {
    let mut status = status.replace(char::is_control, " ");
    if status.len() > LONGEST_STATUS {
        status.truncate(status.floor_char_boundary(LONGEST_STATUS));
        status.push('…');
    }
    status
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell systemd how we are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_matters_is_lost_however_long_systemd_takes_none() {
        let waiting = Waiting::default();
        waiting.add(News::Ready("ready".to_owned()));
        for n in 0..1000 {
            waiting.add(News::Reloading);
            waiting.add(News::Status(format!("{n}")));
            waiting.add(News::Alive);
            waiting.add(News::Reloaded(format!("{n}")));
        }
        waiting.add(News::Stopping("ending".to_owned()));
        let told: Vec<_> =
            std::iter::from_fn(|| waiting.next(Duration::ZERO)).map(|news| format!("{news:?}")).collect();
        let latest = ["Reloading", "Status(\"999\")", "Alive", "Reloaded(\"999\")", "Stopping(\"ending\")"];
        assert_eq!(told[0], "Ready(\"ready\")");
        assert_eq!(told[1..], latest);
    }

    #[test]
    fn a_status_is_one_line_that_systemd_takes() {
        assert_eq!(short("one\ntwo".to_owned()), "one two");
        let long = short("ä".repeat(9000));
        assert!(long.len() < LONGEST_STATUS + 4 && long.ends_with("ä…"), "{long}");
    }
}
