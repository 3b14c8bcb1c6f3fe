//! Each target is a function of bytes that panics when something is wrong.

pub mod challenge;
pub mod link;
pub mod list;
pub mod multipart;
pub mod range;
pub mod route;
