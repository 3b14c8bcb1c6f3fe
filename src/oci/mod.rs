//! The vocabulary of the OCI specifications: digests, names, media types, manifests, error codes.
//!
//! Rule of the room: pure. No I/O, no async, nothing of HTTP but the numbers of its statuses. Whatever is
//! constructed here is valid: a [`Digest`] has the right length, a [`Repository`] is safe as a path.

mod bounded;
mod digest;
mod error;
mod list;
mod manifest;
mod media_type;
mod name;
mod platform;
mod referrers;
mod tags;

pub use bounded::MAX_LISTED;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::{Code, ErrorBody};
pub use list::{InvalidLine, read_list};
pub use manifest::{Descriptor, MAX_MANIFEST, Manifest};
pub use media_type::{ACCEPT, Kind, MediaType};
pub use name::{Image, InvalidName, Name, Reference, Registry, Repository, Tag};
pub use platform::{InvalidPlatform, Platform};
pub use referrers::{GrowingReferrers, Referrers, Subject};
pub use tags::{GrowingTags, InvalidList, Page, TagList, TagPage, tags_of};
