//! The parts that the tests are made of, one a file. All of them are plain threads and blocking sockets: a fault is
//! easiest to put exactly where it belongs when nothing else touches the socket.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, which clippy does not see these to be
#![allow(dead_code)] // every test file is a program of its own and uses its share of the parts

pub mod cache;
pub mod client;
pub mod curl;
pub mod daemon;
pub mod disk;
pub mod failing;
pub mod http2;
pub mod layout;
pub mod multipart;
pub mod process;
pub mod recorder;
pub mod registry;
pub mod runtimes;
pub mod skip;
pub mod systemd;
pub mod terminal;
pub mod tls;
pub mod token;
pub mod trace;
pub mod upstream;
