//! ociregistry: a pull-only, pull-through, caching OCI registry.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod oci;
pub mod upstream;
