//! Debian's form of CHANGELOG.md.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

/// `today` is the date of a version that is not released.
pub fn debian(changes: &str, today: Timestamp) -> Result<String, String> {
    let mut text = String::new();
    for section in changes.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        let (version, date) =
            heading.strip_suffix(')').and_then(|heading| heading.split_once(" (")).ok_or_else(|| {
                format!("{heading:?}: want a version and, in parentheses, a date or `unreleased`")
            })?;
        let date = match date {
            "unreleased" => today,
            date => date
                .parse::<Date>()
                .and_then(|date| date.to_zoned_datetime(TimeZone::UTC))
                .map_err(|error| format!("{heading:?}: {error}"))?
                .timestamp(),
        };
        let date =
            rfc2822::to_string(&date.to_zoned_datetime(TimeZone::UTC)).map_err(|error| error.to_string())?;
        text += &format!("ociregistry ({}-1) unstable; urgency=medium\n\n", version.replace('-', "~"));
        for entry in entries(body) {
            text += &format!("  * {entry}\n");
        }
        text += &format!("\n -- {}  {date}\n\n", env!("CARGO_PKG_AUTHORS"));
    }
    Ok(text)
}

/// Each bullet with its further lines, as lines of up to 80 columns below one another.
fn entries(body: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in body.lines() {
        match (line.strip_prefix("- "), entries.last_mut()) {
            (Some(begin), _) => entries.push(begin.to_owned()),
            (None, Some(entry)) if line.starts_with("  ") => *entry += &format!(" {}", line.trim_start()),
            _ => {}
        }
    }
    entries.iter().map(|entry| wrapped(entry)).collect()
}

fn wrapped(entry: &str) -> String {
    let mut lines = String::new();
    let mut column = 4;
    for word in entry.split_whitespace() {
        if column > 4 && column + 1 + word.chars().count() > 80 {
            lines += "\n   ";
            column = 3;
        }
        if !lines.is_empty() {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += word.chars().count();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_is_one_of_debians() {
        let changes = "# Changelog\n\n## 2.1.0-rc1 (unreleased)\n\nProse.\n\n- One\n  and more.\n- Two.\n\n\
                       ## 2.0.0 (2026-01-31)\n\n- First.\n";
        let text = debian(changes, Timestamp::from_second(1_800_000_000).unwrap()).unwrap();
        assert!(
            text.starts_with(
                "ociregistry (2.1.0~rc1-1) unstable; urgency=medium\n\n  * One and more.\n  * Two.\n"
            ),
            "{text}"
        );
        assert!(text.contains("  Fri, 15 Jan 2027 08:00:00 +0000\n\nociregistry (2.0.0-1)"), "{text}");
        assert!(text.contains("  * First.\n\n -- "), "{text}");
        assert!(text.ends_with("  Sat, 31 Jan 2026 00:00:00 +0000\n\n"), "{text}");
        assert!(debian("# C\n\n## 2.0.0\n", Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn ours_begins_with_the_version_of_this_program() {
        let text = debian(crate::CHANGES, Timestamp::UNIX_EPOCH).unwrap();
        assert!(text.starts_with(&format!("ociregistry ({}-1) ", env!("CARGO_PKG_VERSION"))), "{text}");
        let fits = |line: &str| line.starts_with(" -- ") || line.chars().count() <= 80;
        assert!(text.lines().all(fits), "{text}");
    }
}
