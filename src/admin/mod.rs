//! What those who run the daemon ask it: side doors beside the one that images are served at.
//!
//! - [`SideDoor`]: a small HTTP server on an address of its own, for short answers
//! - [`Health`]: whether pulls would work

mod health;
mod side_door;

pub use health::Health;
pub use side_door::SideDoor;
