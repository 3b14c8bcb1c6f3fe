//! Tells the program when it was built: `SOURCE_DATE_EPOCH` where that is set, so that builds can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().expect("SOURCE_DATE_EPOCH is not a number of seconds"),
        Err(_) => now(),
    };
    println!("cargo::rustc-env=BUILD_SECONDS={seconds}");
}
