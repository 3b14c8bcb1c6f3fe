//! HTTP in: listeners, routing, answers. It knows [`Pull`](crate::pull::Pull), and never an upstream.
//!
//! Connections are accepted in one place and dealt out in turn to one single-threaded runtime per core, where
//! they stay. `connection` tells what becomes of one there.

mod access;
mod activity;
mod blob;
mod body;
mod conditions;
mod connection;
mod counters;
mod failure;
mod limits;
mod listener;
mod lists;
mod manifest;
pub(crate) mod multipart;
mod passwords;
mod probe;
mod protocol;
pub(crate) mod range;
mod request_log;
mod respond;
pub(crate) mod route;
mod server;
mod socket;
mod stream;
mod tls;

pub use counters::Counters;
pub use listener::{ListenError, Listener, Peer};
pub use probe::Probe;
pub use respond::Responder;
pub use server::{Server, TlsSwitch};
pub use tls::server_config;

#[cfg(test)]
mod tests;
