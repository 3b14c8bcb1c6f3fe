//! Any `WWW-Authenticate` is read, and what was read of it is, printed, read again as the same.

use ociregistry::fuzzing::challenges;

pub fn run(input: &[u8]) {
    let Ok(line) = std::str::from_utf8(input) else { return };
    let read = challenges(line);
    let printed = read.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(challenges(&printed), read, "printed as {printed}");
}
