//! One line a request, when `info` is on.

use std::time::Instant;

use http::{Method, Request, Uri, header};

use super::listener::Peer;

/// What is known of a request when its line is written: as it is dropped, so a client that hangs up is seen too.
pub struct Entry {
    method: Method,
    uri: Uri,
    host: String,
    client: Peer,
    begun: Instant,
    pub status: u16,
    pub bytes: u64,
    /// hit, miss, stale; none where nothing was looked up.
    pub cache: Option<&'static str>,
    /// Why the body ended early.
    pub cut: Option<String>,
}

impl Entry {
    /// None when nobody would read it.
    pub fn of<B>(request: &Request<B>, client: Peer) -> Option<Self> {
        if !tracing::enabled!(tracing::Level::INFO) {
            return None;
        }
        let host =
            request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: host.to_owned(),
            client,
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            cache: None,
            cut: None,
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Self { method, uri, host, client, status, bytes, .. } = self;
        tracing::info!(
            status,
            bytes,
            latency = ?self.begun.elapsed(),
            host = %host,
            ip = %client,
            cache = self.cache.map(tracing::field::display),
            cut = self.cut,
            "{method}:{uri}",
        );
    }
}
