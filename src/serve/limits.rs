//! How much is served at once.

use nix::sys::resource::{Resource, getrlimit};

/// Connections, however many files may be open: what each may hold in memory adds up.
const MOST: usize = 8192;

/// So many there are always.
const LEAST: usize = 16;

/// Descriptors that are left for upstreams, downloads, the store and the log.
const SPARED: u64 = 256;

/// Connections at once, and HTTP/2 streams that are answered at once beside them: each of both may hold a file.
pub fn connections() -> usize {
    // 1,024 is what there is where nobody says more.
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    of(descriptors)
}

/// A third of the descriptors each: sockets, files on them, files of HTTP/2 streams.
fn of(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(SPARED) / 3).unwrap_or(MOST).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_the_rest() {
        assert_eq!(of(1024), 256);
        assert_eq!(of(64), LEAST);
        assert_eq!(of(u64::MAX), MOST);
    }
}
