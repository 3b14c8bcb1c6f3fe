//! The `Range` header (RFC 9110, section 14): one range of bytes.

use std::ops::RangeInclusive;

/// One range as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// `bytes=a-b` and `bytes=a-`
    From { first: u64, last: Option<u64> },
    /// `bytes=-n`
    Suffix(u64),
}

/// What a request's range comes to for a blob of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Of(RangeInclusive<u64>),
    /// Nothing of it is there: 416.
    None,
}

impl Range {
    /// Reads a header. None for what is to be ignored: another unit, several ranges, nonsense (section 14.2).
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // More digits than fit stand for a place behind any end.
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (first.trim(), last.trim()) {
            ("", last) => number(last).map(Self::Suffix),
            (first, "") => Some(Self::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// The bytes meant; an end behind the blob's is clipped.
    pub fn of(self, size: u64) -> Part {
        let Some(end) = size.checked_sub(1) else { return Part::None };
        match self {
            Self::From { first, .. } if first > end => Part::None,
            Self::From { first, last } => Part::Of(first..=last.unwrap_or(end).min(end)),
            Self::Suffix(0) => Part::None,
            Self::Suffix(count) => Part::Of(size.saturating_sub(count)..=end),
        }
    }

    /// Where it begins, as far as that can be said without the size.
    pub fn first(self) -> u64 {
        match self {
            Self::From { first, .. } => first,
            Self::Suffix(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(header: &str, size: u64) -> Part {
        Range::parse(header).map_or(Part::Whole, |range| range.of(size))
    }

    #[test]
    fn ranges_are_resolved() {
        assert_eq!(part("bytes=0-0", 10), Part::Of(0..=0));
        assert_eq!(part("bytes=3-", 10), Part::Of(3..=9));
        assert_eq!(part("bytes=-4", 10), Part::Of(6..=9));
        assert_eq!(part("bytes=-40", 10), Part::Of(0..=9));
        assert_eq!(part("BYTES = 1 - 2", 10), Part::Of(1..=2));
    }

    #[test]
    fn an_end_behind_the_end_is_clipped() {
        assert_eq!(part("bytes=5-10", 10), Part::Of(5..=9));
        assert_eq!(part("bytes=5-99999999999999999999999", 10), Part::Of(5..=9));
    }

    #[test]
    fn what_begins_behind_the_end_is_nothing() {
        assert_eq!(part("bytes=10-", 10), Part::None);
        assert_eq!(part("bytes=-0", 10), Part::None);
        assert_eq!(part("bytes=0-", 0), Part::None);
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,3-4",
        ] {
            assert_eq!(part(header, 10), Part::Whole, "{header}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_inside(header in "bytes=[0-9]{0,25}-[0-9]{0,25}|.*", size: u64) {
            if let Part::Of(range) = part(&header, size) {
                prop_assert!(range.start() <= range.end() && *range.end() < size);
            }
        }

        #[test]
        fn what_is_printed_parses_back(first: u64, more in 0u64..1000) {
            let last = first.saturating_add(more);
            let range = Range::From { first, last: Some(last) };
            prop_assert_eq!(Range::parse(&format!("bytes={first}-{last}")), Some(range));
        }
    }
}
