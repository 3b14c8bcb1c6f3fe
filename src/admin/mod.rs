//! Administration: what those who run the daemon ask and tell it.
//!
//! Side doors, beside the one that images are served at:
//! - [`SideDoor`]: a small HTTP server on an address of its own, for short answers
//! - [`Health`]: whether pulls would work
//!
//! Commands: HTTP over a Unix socket whose file says who may connect (0660, the daemon's group). docs/admin-api.md says
//! what there is; a test holds it against the code.
//! - `socket`: where it is, and who may use it
//! - `server`: the daemon's side, also of an address on the network, for whoever bears the `token`; `desk` is what it
//!   does for whom, `old` the same by the names that an earlier program had for it
//! - [`command`]: a typed request for work that takes its time, wherever it is done; `care`: those on the cache
//! - `work`: how the daemon does them, each on a thread of its own
//! - `client`: the side of our own commands
//! - `answer`: what an answer is made of
//! - `status`, `reload`, `pull`: what is said
//! - `text`, `table`, `words`: what people read of it
//!
//! To add a command on the cache that tells as it goes: a request that implements [`Command`], and a line in `desk`.

mod answer;
mod care;
mod client;
pub mod command;
mod desk;
mod health;
mod old;
mod places;
mod pull;
mod reload;
mod server;
mod side_door;
mod socket;
mod status;
mod table;
pub mod text;
mod token;
pub mod words;
mod work;

pub use answer::{Cause, Complaint, Line, lines};
pub use client::{AdminError, Client};
pub use command::Command;
pub use desk::{Desk, Looking};
pub use health::Health;
pub use pull::{PullRequest, RefreshRequest, not_refreshed};
pub use reload::Reloaded;
pub use server::{serve, serve_network};
pub use side_door::SideDoor;
pub use socket::{FILE_NAME, bind};
pub use status::{
    CacheSize, DiskSpace, DiskTrouble, LastCheck, Mention, PruneRound, Status, Underway, UpstreamState,
    UpstreamStatus,
};
pub use table::{Column, Cut, Table};
pub use token::Token;
pub use work::{Asker, Worker};
