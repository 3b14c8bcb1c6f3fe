//! How the daemon is: for people, for programs, and in one line for systemd.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Reloaded;

/// All that `ociregistry status` tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: Timestamp,
    pub uptime_seconds: u64,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    pub image_path: String,
    /// Since the start, those under way included.
    pub requests: u64,
    pub requests_under_way: u64,
    /// Of bodies, to clients, since the start.
    pub bytes_served: u64,
    /// Manifests and blobs that were in the cache, that were not, and tags served though upstream did not confirm them.
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
    pub downloads: Vec<Underway>,
    /// Why nothing is kept just now: the disk is full, read-only or failing. Pulls go on.
    pub disk_trouble: Option<String>,
    pub last_error: Option<Mention>,
    /// What came of reading the configuration anew, if that was ever done.
    pub last_reload: Option<Reloaded>,
    /// Lines of the log that were not written because what reads it was too slow.
    pub log_lines_dropped: u64,
}

/// Something said, and when.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mention {
    pub at: Timestamp,
    pub what: String,
}

/// A download that is not over.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Underway {
    pub digest: String,
    /// In bytes, once somebody said so.
    pub size: Option<u64>,
    /// Bytes that are there.
    pub written: u64,
    /// Clients that wait for it.
    pub readers: usize,
}

impl Status {
    /// On one line, as short as it goes.
    pub fn line(&self) -> String {
        let mut line = format!(
            "Serving on {}: {}, {} under way; {} served, {}, {}, {} stale",
            self.addresses.join(", "),
            count(self.requests_under_way, "request"),
            count(self.downloads.len() as u64, "download"),
            Bytes(self.bytes_served),
            count(self.hits, "hit"),
            plural(self.misses, "miss", "misses"),
            self.stale,
        );
        if let Some(trouble) = &self.disk_trouble {
            line.push_str(&format!("; nothing is kept, the disk is {trouble}"));
        }
        if let Some((at, reason)) = self.refused() {
            let first = reason.lines().next().unwrap_or_default();
            line.push_str(&format!("; the configuration of {} is refused: {first}", clock(at)));
        }
        if let Some(Mention { at, what }) = &self.last_error {
            line.push_str(&format!("; last error at {}: {}", clock(*at), what.replace('\n', " ")));
        }
        line
    }

    /// When the last reload was refused, and why.
    fn refused(&self) -> Option<(Timestamp, &str)> {
        let reload = self.last_reload.as_ref()?;
        Some((reload.at, reload.refused.as_deref()?))
    }
}

/// A fact a line.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<13}{value}");
        line("version", &self.version)?;
        line("process", &format!("{}, up {}", self.pid, uptime(self.uptime_seconds)))?;
        line("addresses", &self.addresses.join(", "))?;
        line("images in", &self.image_path)?;
        line("requests", &format!("{}, {} under way", self.requests, self.requests_under_way))?;
        line("served", &Bytes(self.bytes_served))?;
        let of_cache = format!(
            "{}, {}, {} stale",
            count(self.hits, "hit"),
            plural(self.misses, "miss", "misses"),
            self.stale
        );
        line("cache", &of_cache)?;
        if self.downloads.is_empty() {
            line("downloads", &"none under way")?;
        }
        for (number, download) in self.downloads.iter().enumerate() {
            line(if number == 0 { "downloads" } else { "" }, download)?;
        }
        if let Some(trouble) = &self.disk_trouble {
            line("disk", &format!("nothing is kept, it is {trouble}"))?;
        }
        if let Some((at, reason)) = self.refused() {
            line("refused", &format!("the configuration of {}\n{reason}", clock(at)))?;
        }
        if self.log_lines_dropped > 0 {
            line("log", &format!("{} lines dropped", self.log_lines_dropped))?;
        }
        match &self.last_error {
            None => line("last error", &"none"),
            Some(Mention { at, what }) => {
                line("last error", &format!("{}: {}", clock(*at), what.lines().next().unwrap_or_default()))
            }
        }
    }
}

/// `sha256:… 12.0 MB of 34.5 MB (34%), 2 clients wait`
impl fmt::Display for Underway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, size, written, readers } = self;
        write!(f, "{digest} {}", Bytes(*written))?;
        if let Some(size) = size {
            write!(f, " of {}", Bytes(*size))?;
            if let Some(percent) = (u128::from(*written) * 100).checked_div(u128::from(*size)) {
                write!(f, " ({percent}%)")?;
            }
        }
        match readers {
            0 => Ok(()),
            1 => f.write_str(", 1 client waits"),
            _ => write!(f, ", {readers} clients wait"),
        }
    }
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn count(number: u64, noun: &str) -> String {
    plural(number, noun, &format!("{noun}s"))
}

fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The local time of day, with the date unless it is today.
fn clock(at: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned_datetime(zone.clone()), Timestamp::now().to_zoned_datetime(zone));
    let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
}

/// `1.2 GB`
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // What would be rounded to 1000 belongs to the next unit.
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (12_340_000_000, "12.3 GB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn one_line_says_how_it_is() {
        let status = Status {
            version: "2.0.0".to_owned(),
            pid: 7,
            started: Timestamp::UNIX_EPOCH,
            uptime_seconds: 5,
            addresses: vec!["127.0.0.1:8080".to_owned()],
            image_path: "/i".to_owned(),
            requests: 9,
            requests_under_way: 1,
            bytes_served: 1_500,
            hits: 2,
            misses: 1,
            stale: 0,
            downloads: Vec::new(),
            disk_trouble: None,
            last_error: None,
            last_reload: None,
            log_lines_dropped: 0,
        };
        assert_eq!(
            status.line(),
            "Serving on 127.0.0.1:8080: 1 request, 0 downloads under way; 1.5 kB served, 2 hits, 1 miss, 0 stale"
        );
    }
}
