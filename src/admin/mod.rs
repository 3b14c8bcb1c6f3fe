//! Administration: what those who run the daemon ask and tell it.
//!
//! Side doors, beside the one that images are served at:
//! - [`SideDoor`]: a small HTTP server on an address of its own, for short answers
//! - [`Health`]: whether pulls would work
//!
//! Commands: HTTP over a Unix socket whose file says who may connect (0660, the daemon's group). Questions and answers
//! are JSON; an answer that comes bit by bit is a JSON value a line.
//! - `socket`: where it is, and who may use it
//! - `server`: the daemon's side; `desk` is what it does for whom
//! - `client`: the side of our own commands
//! - `answer`: what an answer is made of
//! - `status`, `reload`: what is said
//!
//! ```text
//! GET  /status   how the daemon is: Status
//! POST /reload   read the configuration anew, and say what came of it: Reloaded
//! ```

mod answer;
mod client;
mod desk;
mod health;
mod reload;
mod server;
mod side_door;
mod socket;
mod status;

pub use answer::lines;
pub use client::{AdminError, Client};
pub use desk::Desk;
pub use health::Health;
pub use reload::Reloaded;
pub use server::serve;
pub use side_door::SideDoor;
pub use socket::{FILE_NAME, bind};
pub use status::{Mention, Status, Underway};
