//! Any `Link` is read, and where it leads on to, printed, is read again as the same.

use ociregistry::fuzzing::next_page;

pub fn run(input: &[u8]) {
    let Ok(field) = std::str::from_utf8(input) else { return };
    let Some(target) = next_page(field) else { return };
    assert!(!target.contains('>') && field.contains(target));
    assert_eq!(next_page(&format!("</>; rel=prev, <{target}>; rel=\"next\"")), Some(target));
}
