//! The folder on disk, and the only room that touches it. It knows nothing of HTTP.
//!
//! **The file system is the database.** Content is named by its digest, so a file's name says whether we have it
//! and its bytes prove themselves. Memory holds only caches of what is on disk, and what is on its way there.
//!
//! ```text
//! <image_path>
//! ├── store.json                            {"version": 1, "id": …}
//! ├── blobs/<hex>                           a blob: whole, verified, never changed, only unlinked
//! ├── img/<hex>                             a manifest's or index's bytes as upstream sent them; same promises
//! ├── refs/<registry>/<repository>/
//! │   ├── _tags/<tag>                       digest, mediaType, size, fetched, checked
//! │   ├── _manifests/<hex>                  mediaType, size, fetched, asked
//! │   ├── _tags.json                        checked, list: upstream's tags, in its order
//! │   └── _referrers/<hex>                  checked, list: upstream's unfiltered index of what refers to a manifest
//! ├── partial/<hex>, partial/<hex>.json     a download under way or to be resumed, and what is known of it
//! ├── partial/<hex>.bad                     what was found wrong, kept for a day
//! ├── pins.json                             images that are never pruned
//! ├── check.json                            the result of the last check
//! └── lock                                  flock; holds pid and admin socket of the process that writes
//! ```
//!
//! What it promises:
//! - a name under `blobs/` or `img/` appears by a rename of a file that was verified and synced, and the folder is
//!   synced before a reference to it appears: after a crash, what is there is whole;
//! - a reference to bytes that are gone is a miss, a reference or list that cannot be read is a miss;
//! - a list has at most 200,000 entries in 16 MiB;
//! - only [`Partial::finish`] makes a [`Verified`], and only that can be published;
//! - publishing is written behind ([`publish`]): what waits there is already found by every read;
//! - names go before the content that they lead to ([`care`]).

mod cache;
pub mod care;
mod error;
mod layout;
mod list;
mod lock;
mod memory;
mod open;
mod partial;
mod publish;
mod record;
mod syncs;
#[cfg(test)]
mod tests;
mod touch;
mod trouble;
mod work;
mod writer;

pub use cache::Store;
pub use error::{OpenError, StoreError};
pub use layout::Kind;
pub use list::Kept;
pub use lock::{FolderId, Holder};
pub use partial::{Partial, Verified, Wrong};
pub use record::Record;
pub use trouble::{Trouble, TroubleKind};

/// Blobs up to this size are sent once verified and leave nothing behind that could be resumed, in bytes.
pub const SMALL: u64 = 1 << 20;
