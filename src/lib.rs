//! ociregistry: a pull-only, pull-through, caching OCI registry.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod oci;
pub mod pull;
pub mod serve;
pub mod store;
pub mod upstream;
