//! What is printed as multipart/byteranges is read back, whatever the blob has in it.

use ociregistry::fuzzing::{Multipart, Piece};
use ociregistry::oci::{Algorithm, Digest};

use super::range::{check, size_and_header};

#[path = "../../../tests/support/multipart.rs"]
mod reader;

/// The line of the target `range`, then the beginning of the blob.
pub fn run(input: &[u8]) {
    let end_of_line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, content) = input.split_at(end_of_line);
    let Some((size, header)) = size_and_header(line).filter(|(size, _)| *size <= 1 << 16) else { return };
    let mut blob = content.to_vec();
    blob.resize(usize::try_from(size).unwrap_or_default(), b'-');
    let ranges = check(size, header);
    let digest = Digest::of(Algorithm::Sha256, &blob);
    let multipart = Multipart::new(&digest, size, ranges.clone());
    let (content_type, length) = (multipart.content_type(), multipart.length());
    let slice = |first: u64, last: u64| &blob[first as usize..=last as usize];
    let mut body = Vec::new();
    for piece in multipart {
        match piece {
            Piece::Text(text) => body.extend_from_slice(&text),
            Piece::Range(range) => body.extend_from_slice(slice(*range.start(), *range.end())),
        }
    }
    assert_eq!(length, body.len() as u64);
    let parts = match reader::read(&content_type, &body) {
        Ok(parts) => parts,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(parts.iter().map(|part| part.first..=part.last).collect::<Vec<_>>(), ranges);
    for part in parts {
        assert_eq!((part.size, &*part.content_type), (size, "application/octet-stream"));
        assert!(part.body == slice(part.first, part.last), "{}-{}", part.first, part.last);
    }
}
