//! The `Range` header (RFC 9110, section 14): ranges of bytes. Pure.

use std::ops::RangeInclusive;

/// The most ranges of one request: what podman asks for at most.
pub const MOST: usize = 1024;

/// One range as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// `a-b` and `a-`
    From { first: u64, last: Option<u64> },
    /// `-n`
    Suffix(u64),
}

/// The ranges of one header, in its order: at least one, at most [`MOST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

/// What a request comes to for a blob of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Whole,
    One(RangeInclusive<u64>),
    /// Two or more, in the order asked for; they may touch and overlap.
    Several(Vec<RangeInclusive<u64>>),
    /// Nothing of it is there: 416.
    Nothing,
}

/// More than one answer is made for: 400, on which podman and stargz come back and ask for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    #[error("more than {MOST} ranges in one request: ask for fewer")]
    Ranges,
    #[error("the ranges come to more bytes than the blob has, which is {size}: ask for each byte once")]
    Bytes { size: u64 },
}

impl Range {
    /// None for what makes no sense.
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
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

    /// The bytes meant, of a blob that ends with byte `end`; an end behind that is clipped.
    fn of(self, end: u64) -> Option<RangeInclusive<u64>> {
        match self {
            Self::From { first, .. } if first > end => None,
            Self::From { first, last } => Some(first..=last.unwrap_or(end).min(end)),
            Self::Suffix(0) => None,
            Self::Suffix(count) => Some((end + 1).saturating_sub(count)..=end),
        }
    }

    /// Where it begins, as far as that can be said without the size.
    fn first(self) -> u64 {
        match self {
            Self::From { first, .. } => first,
            Self::Suffix(_) => 1,
        }
    }
}

impl Ranges {
    /// Reads a header. None for what is to be ignored: another unit, or nonsense in any of its ranges (section
    /// 14.2).
    pub fn parse(header: &str) -> Result<Option<Self>, Excess> {
        let Some((unit, set)) = header.split_once('=') else { return Ok(None) };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Ok(None);
        }
        let mut ranges = Vec::new();
        // A list may have empty elements (section 5.6.1).
        for text in set.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let Some(range) = Range::parse(text) else { return Ok(None) };
            if ranges.len() == MOST {
                return Err(Excess::Ranges);
            }
            ranges.push(range);
        }
        Ok((!ranges.is_empty()).then_some(Self(ranges)))
    }

    /// The bytes meant. Ranges of which nothing is there are left out. All of a blob of zero bytes, rather than
    /// nothing: containerd asks for `bytes=0-` whatever the size.
    pub fn of(&self, size: u64) -> Result<Selection, Excess> {
        let Some(end) = size.checked_sub(1) else { return Ok(Selection::Whole) };
        let mut ranges: Vec<_> = self.0.iter().filter_map(|range| range.of(end)).collect();
        let mut left = size;
        for range in &ranges {
            // Not the length, which for all 2^64 bytes does not fit.
            let more = range.end() - range.start();
            left =
                left.checked_sub(more).and_then(|left| left.checked_sub(1)).ok_or(Excess::Bytes { size })?;
        }
        Ok(match ranges.len() {
            0 => Selection::Nothing,
            1 => ranges.pop().map_or(Selection::Nothing, Selection::One),
            _ => Selection::Several(ranges),
        })
    }

    /// The furthest beginning of them, as far as that can be said without the size.
    pub fn furthest(&self) -> u64 {
        self.0.iter().map(|range| range.first()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn select(header: &str, size: u64) -> Result<Selection, Excess> {
        Ranges::parse(header)?.map_or(Ok(Selection::Whole), |ranges| ranges.of(size))
    }

    fn one(range: RangeInclusive<u64>) -> Result<Selection, Excess> {
        Ok(Selection::One(range))
    }

    fn several<const N: usize>(ranges: [RangeInclusive<u64>; N]) -> Result<Selection, Excess> {
        Ok(Selection::Several(ranges.into()))
    }

    #[test]
    fn ranges_are_resolved() {
        assert_eq!(select("bytes=0-0", 10), one(0..=0));
        assert_eq!(select("bytes=3-", 10), one(3..=9));
        assert_eq!(select("bytes=-4", 10), one(6..=9));
        assert_eq!(select("bytes=-40", 10), one(0..=9));
        assert_eq!(select("BYTES = 1 - 2", 10), one(1..=2));
        assert_eq!(select("bytes=0-", u64::MAX), one(0..=u64::MAX - 1));
    }

    #[test]
    fn several_keep_their_order_and_are_not_merged() {
        assert_eq!(select("bytes=0-1,2-3,5-", 10), several([0..=1, 2..=3, 5..=9]));
        assert_eq!(select("bytes=-1, 0-3 ,2-4", 10), several([9..=9, 0..=3, 2..=4]));
        assert_eq!(select("bytes=,0-0,, 1-1,", 10), several([0..=0, 1..=1]));
    }

    #[test]
    fn an_end_behind_the_end_is_clipped() {
        assert_eq!(select("bytes=5-10", 10), one(5..=9));
        assert_eq!(select("bytes=5-99999999999999999999999", 10), one(5..=9));
        assert_eq!(select("bytes=0-1,5-99", 10), several([0..=1, 5..=9]));
    }

    #[test]
    fn what_begins_behind_the_end_is_nothing() {
        assert_eq!(select("bytes=10-", 10), Ok(Selection::Nothing));
        assert_eq!(select("bytes=-0", 10), Ok(Selection::Nothing));
        assert_eq!(select("bytes=10-11,12-", 10), Ok(Selection::Nothing));
        assert_eq!(select("bytes=10-,2-3", 10), one(2..=3));
        assert_eq!(select("bytes=2-3,10-,5-6", 10), several([2..=3, 5..=6]));
    }

    #[test]
    fn of_a_blob_without_bytes_there_is_only_the_whole() {
        for header in ["bytes=0-", "bytes=5-9", "bytes=-1", "bytes=0-0,1-1"] {
            assert_eq!(select(header, 0), Ok(Selection::Whole));
        }
    }

    #[test]
    fn what_makes_no_sense_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,x",
            "bytes=0-1,5-4",
            "bytes=0-1;3-4",
        ] {
            assert_eq!(select(header, 10), Ok(Selection::Whole), "{header}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let set =
            |count: u64| format!("bytes={}", (0..count).map(|n| format!("{n}-{n},")).collect::<String>());
        assert!(matches!(select(&set(1024), 5000), Ok(Selection::Several(ranges)) if ranges.len() == 1024));
        assert_eq!(select(&set(1025), 5000), Err(Excess::Ranges));
        assert_eq!(select("bytes=0-,0-0", 10), Err(Excess::Bytes { size: 10 }));
        assert_eq!(select("bytes=0-4,5-9", 10), several([0..=4, 5..=9]));
        assert_eq!(select("bytes=0-,0-", u64::MAX), Err(Excess::Bytes { size: u64::MAX }));
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_inside(
            header in "bytes=[0-9]{0,25}-[0-9]{0,25}|bytes=([0-9]{0,3}-[0-9]{0,3} ?,){0,5}|.*",
            size in prop_oneof![0u64..1000, any::<u64>()],
        ) {
            let ranges = match select(&header, size) {
                Ok(Selection::One(range)) => vec![range],
                Ok(Selection::Several(ranges)) => {
                    prop_assert!(ranges.len() > 1);
                    ranges
                }
                _ => vec![],
            };
            let mut sum = 0;
            for range in ranges {
                prop_assert!(range.start() <= range.end() && *range.end() < size);
                sum += u128::from(range.end() - range.start()) + 1;
            }
            prop_assert!(sum <= u128::from(size));
        }

        #[test]
        fn what_is_printed_parses_back(
            ranges in proptest::collection::vec((any::<u64>(), proptest::option::of(0u64..1000)), 1..30)
        ) {
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(first, more)| Range::From { first, last: more.map(|more| first.saturating_add(more)) })
                .collect();
            let print = |range: &Range| match range {
                Range::From { first, last } => {
                    format!("{first}-{}", last.map(|last| last.to_string()).unwrap_or_default())
                }
                Range::Suffix(count) => format!("-{count}"),
            };
            let header = format!("bytes={}", ranges.iter().map(print).collect::<Vec<_>>().join(","));
            prop_assert_eq!(Ranges::parse(&header), Ok(Some(Ranges(ranges))));
        }
    }
}
