//! HTTP in: listeners, routing, answers. It knows [`Pull`](crate::pull::Pull), and never an upstream.
//!
//! Connections are accepted in one place and dealt out in turn to one single-threaded runtime per core, where
//! they stay.

mod access;
mod blob;
mod body;
mod conditions;
mod failure;
mod listener;
mod lists;
mod manifest;
pub(crate) mod multipart;
mod passwords;
mod pulse;
pub(crate) mod range;
mod request_log;
mod respond;
pub(crate) mod route;
mod server;
mod socket;

pub use listener::{Listener, Peer};
pub use pulse::Pulse;
pub use respond::Responder;
pub use server::Server;
