//! All that is here the compiler cannot check: calls whose promises are kept by what stands beside each.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc::{M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};

/// Memory in pieces of so many bytes, and so many unused ones at the end of a heap, go back to the kernel when they
/// are freed.
const GOES_BACK: i32 = 1 << 20;

/// A descriptor that systemd has opened for us and told us of.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: LISTEN_FDS and LISTEN_PID say that it was opened for this process, sd-notify has just found it open,
    // and nothing else here knows of it: this is called once for each, before any thread or file is opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has large pieces of memory given back. By itself glibc takes the first that is freed for a sign that more will be
/// wanted, and keeps up to 32 MiB of each thread's: what one look through a large cache took would stay with us.
pub fn give_memory_back() {
    // SAFETY: these are numbers that glibc takes at any time, under a lock of its own; one that it refused would
    // leave things as they were.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, GOES_BACK);
        mallopt(M_TRIM_THRESHOLD, GOES_BACK);
    }
}
