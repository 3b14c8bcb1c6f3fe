//! Whatever a `Range` says, what comes of it is inside the blob, and no more than the blob.

use std::ops::RangeInclusive;

use ociregistry::fuzzing::{MOST, Ranges, Selection};

/// The size of the blob, a space, the header.
pub fn run(input: &[u8]) {
    if let Some((size, header)) = size_and_header(input) {
        check(size, header);
    }
}

pub fn size_and_header(input: &[u8]) -> Option<(u64, &str)> {
    let (size, header) = std::str::from_utf8(input).ok()?.split_once(' ')?;
    Some((size.parse().ok()?, header))
}

/// The ranges that are served, checked.
pub fn check(size: u64, header: &str) -> Vec<RangeInclusive<u64>> {
    let ranges = match Ranges::parse(header) {
        Ok(Some(ranges)) => match ranges.of(size) {
            Ok(Selection::One(range)) => vec![range],
            Ok(Selection::Several(ranges)) => {
                assert!((2..=MOST).contains(&ranges.len()));
                ranges
            }
            _ => vec![],
        },
        Ok(None) => vec![],
        Err(_) => {
            assert!(header.split(',').count() > MOST);
            vec![]
        }
    };
    let length = |range: &RangeInclusive<u64>| {
        assert!(range.start() <= range.end() && *range.end() < size, "{range:?} of {size}");
        u128::from(range.end() - range.start()) + 1
    };
    assert!(ranges.iter().map(length).sum::<u128>() <= u128::from(size));
    ranges
}
