//! ociregistry: a pull-only, pull-through, caching OCI registry.

pub mod config;
pub mod oci;
pub mod upstream;
