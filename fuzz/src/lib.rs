//! What is fuzzed, one file a target. `tests/corpora.rs` runs the same over the corpora.

pub mod targets;
