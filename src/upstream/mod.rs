//! One registry spoken to: client, credentials, retries, resume.

mod error;

pub use error::UpstreamError;
