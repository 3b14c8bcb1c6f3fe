//! `multipart/byteranges` (RFC 9110, section 14.6): several ranges of a blob in one body. Pure.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::oci::Digest;

/// What blobs are, whole or in parts.
pub const BYTES: &str = "application/octet-stream";

/// A boundary has 70 characters at most (RFC 2046, section 5.1.1).
const BOUNDARY: usize = 64;

/// The body of a response, piece after piece: text, a range of the blob, text, …
#[derive(Clone)]
pub struct Multipart {
    boundary: String,
    size: u64,
    to_come: std::vec::IntoIter<RangeInclusive<u64>>,
    next: Next,
}

#[derive(Clone)]
enum Next {
    First,
    Range(RangeInclusive<u64>),
    Another,
    Nothing,
}

/// A piece of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(Bytes),
    /// These bytes of the blob.
    Range(RangeInclusive<u64>),
}

impl Multipart {
    /// Of a blob of `size` bytes, in this order. The ranges are inside of it.
    pub fn new(digest: &Digest, size: u64, ranges: Vec<RangeInclusive<u64>>) -> Self {
        // What has to appear nowhere in the blob is its own digest: nobody can make one that has it inside.
        let mut boundary = digest.hex();
        boundary.truncate(BOUNDARY);
        Self { boundary, size, to_come: ranges.into_iter(), next: Next::First }
    }

    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Of all that is to come, in bytes.
    pub fn length(&self) -> u64 {
        let length = |piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Range(range) => range.end() - range.start() + 1,
        };
        self.clone().map(length).sum()
    }
}

impl Iterator for Multipart {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let end_of_line = match std::mem::replace(&mut self.next, Next::Another) {
            Next::First => "",
            Next::Another => "\r\n",
            Next::Range(range) => return Some(Piece::Range(range)),
            Next::Nothing => {
                self.next = Next::Nothing;
                return None;
            }
        };
        let (boundary, size) = (&self.boundary, self.size);
        let text = match self.to_come.next() {
            Some(range) => {
                let (first, last) = (range.start(), range.end());
                let text = format!(
                    "{end_of_line}--{boundary}\r\nContent-Type: {BYTES}\r\n\
                     Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
                );
                self.next = Next::Range(range);
                text
            }
            None => {
                self.next = Next::Nothing;
                format!("{end_of_line}--{boundary}--\r\n")
            }
        };
        Some(Piece::Text(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_two_ranges() {
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let multipart = Multipart::new(&digest, 100, vec![5..=9, 0..=0]);
        let boundary = "ab".repeat(32);
        assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={boundary}"));
        let text = |text: String| Piece::Text(text.into());
        let head = |range: &str| {
            format!(
                "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}\r\n\r\n"
            )
        };
        let pieces = [
            text(head("5-9/100")),
            Piece::Range(5..=9),
            text(format!("\r\n{}", head("0-0/100"))),
            Piece::Range(0..=0),
            text(format!("\r\n--{boundary}--\r\n")),
        ];
        assert_eq!(multipart.clone().collect::<Vec<_>>(), pieces);
        let around = head("5-9/100").len() + 2 + head("0-0/100").len() + 2 + boundary.len() + 6;
        assert_eq!(multipart.length(), around as u64 + 5 + 1);
    }

    #[test]
    fn the_boundary_of_a_long_digest_is_as_long_as_one_may_be() {
        let digest: Digest = format!("sha512:{}", "ab".repeat(64)).parse().unwrap();
        let multipart = Multipart::new(&digest, 100, vec![]);
        assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={}", "ab".repeat(32)));
    }
}
