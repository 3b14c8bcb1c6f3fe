//! Buffers for file bytes, used again and again: a fresh one of this size costs an mmap and its page faults.

use std::cell::RefCell;

use bytes::Bytes;

/// Bytes read from a file at a time.
pub const CHUNK: usize = 128 << 10;

/// So many at most are copied: a few bytes that wait to be sent, as parts of a multipart do, must not hold a buffer.
const FEW: usize = 16 << 10;

/// Buffers that a thread keeps.
const KEPT: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`CHUNK`] bytes, given back to a thread's pool when the last of its bytes are dropped.
pub struct Buffer {
    bytes: Option<Box<[u8]>>,
    length: usize,
}

impl Buffer {
    pub fn take() -> Self {
        let bytes = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; CHUNK].into());
        Self { bytes: Some(bytes), length: CHUNK }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_deref_mut().unwrap_or_default()
    }

    /// The first `length` bytes, to be sent.
    pub fn freeze(mut self, length: usize) -> Bytes {
        self.length = length;
        if length <= FEW {
            return Bytes::copy_from_slice(self.as_ref());
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_deref().and_then(|bytes| bytes.get(..self.length)).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        // A thread that is ending has no pool any more.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}
