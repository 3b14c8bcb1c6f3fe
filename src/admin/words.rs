//! Numbers, sizes and times as people read them.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `1,204`
pub struct Number(pub u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// `1.2 GB`
pub struct Bytes(pub u64);

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

/// `1 request`, `1,204 requests`
pub fn count(number: u64, noun: &str) -> String {
    plural(number, noun, &format!("{noun}s"))
}

pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", Number(number), if number == 1 { one } else { many })
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`
pub fn lasted(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// The local time of day, with the date unless it is today.
pub fn clock(at: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned_datetime(zone.clone()), Timestamp::now().to_zoned_datetime(zone));
    let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
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
    fn numbers_for_people() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1204, "1,204"), (123_456, "123,456"), (1_000_000, "1,000,000")]
        {
            assert_eq!(Number(number).to_string(), text);
        }
        assert_eq!(count(1, "image"), "1 image");
        assert_eq!(count(1204, "image"), "1,204 images");
    }
}
