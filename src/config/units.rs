//! Durations and sizes as people write them.

use std::time::Duration;

/// `300ms`, `30s`, `10m`, `1h`, `7d` or `0`; one number, one unit, at most 100 years.
pub fn duration(text: &str) -> Option<Duration> {
    const CENTURY: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        _ => return None,
    };
    let total = number.checked_mul(milliseconds)?;
    (total <= CENTURY).then(|| Duration::from_millis(total))
}

/// Bytes: `500MB` (decimal), `50GiB` or `50G` (binary), `0`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        "" if number == 0 => 1,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// `15%`, up to 100.
pub fn percent(text: &str) -> Option<u64> {
    match split(text)? {
        (number @ 0..=100, "%") => Some(number),
        _ => None,
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("30s", 30.0), ("300ms", 0.3), ("10m", 600.0), ("1h", 3600.0), ("7d", 604_800.0)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for text in
            ["", "s", "5", "1.5s", "-1s", "1 s", "1h30m", "1w", "36501d", "99999999999999999999d", "٣s"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("500MB", 500_000_000),
            ("50GiB", 50 << 30),
            ("1kB", 1000),
            ("7B", 7),
            ("50G", 50 << 30),
            ("0", 0),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "5", "GB", "1.5GB", "1 GB", "99999999999TB", "1gb"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(percent("15%"), Some(15));
        assert_eq!(percent("101%"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "[0-9]{0,25}(ms|s|d|%|TiB|.*)") {
            let _ = (duration(&text), size(&text), percent(&text));
        }
    }
}
