//! The packages, installed in a machine that systemd booted. `make e2e` builds the packages and runs this.
#![allow(clippy::unwrap_used)] // A test may panic.

#[path = "../support/mod.rs"]
mod support;

mod arm;
mod deb;
mod life;
mod machine;
mod privileges;
mod rpm;
mod symbols;
mod use_of_it;
