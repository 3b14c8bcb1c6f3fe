//! ociregistry: a pull-only, pull-through, caching OCI registry. This is the map of the house; ARCHITECTURE.md
//! tells the way of a pull through it.
//!
//! Arrows point one way: `cli → daemon → {admin, serve} → pull → {store, upstream} → oci`.
//!
//! The shell:
//! - [`cli`]: the command line, one file a subcommand
//! - [`daemon`]: the composition root: builds the parts, starts and ends them, logs
//! - [`admin`]: what those who run the daemon ask and tell it
//! - [`config`]: from a file and the command line to settings that are valid by construction
//! - [`mirror`]: pointing containerd, podman, docker and k3s at the daemon, and taking that back
//!
//! The way of a pull:
//! - [`serve`]: HTTP in; from a request to a typed question, and from its answer to a response
//! - [`pull`]: what to do for it: hit, miss, stale; one download for many readers
//! - [`upstream`]: one registry spoken to: credentials, redirects, retries, resume
//! - [`store`]: the folder on disk: read, resume, verify, make durable
//!
//! The vocabulary:
//! - [`hello`]: one image out of the program itself; pure
//! - [`request_id`]: which request is being answered, for the log
//! - [`oci`]: digests, names, media types, manifests, error codes; pure

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod hello;
pub mod mirror;
pub mod oci;
pub mod pull;
pub mod request_id;
pub mod serve;
pub mod store;
pub mod upstream;

/// Pure functions of the rooms, for `fuzz/` and the test that goes through its corpora; for nobody else.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::serve::multipart::{Multipart, Piece};
    pub use crate::serve::range::{MOST, Ranges, Selection};
    pub use crate::serve::route::{Endpoint, Refusal, Route, Rules, route};
    pub use crate::upstream::challenge::parse as challenges;
    pub use crate::upstream::link::next as next_page;
}
