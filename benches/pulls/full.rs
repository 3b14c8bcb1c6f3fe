//! Files in such numbers that walking over them takes its time.

use std::fs::File;
use std::path::Path;

/// Makes so many empty files, named as content is.
pub fn fill(folder: &Path, count: usize) {
    for number in 0..count {
        File::create(folder.join(spread(number))).expect("make a file");
    }
}

/// 64 hex digits, spread as those of digests are.
pub fn spread(number: usize) -> String {
    // Odd, so that no two numbers give the same.
    let spread = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{spread:016x}{number:048x}")
}
