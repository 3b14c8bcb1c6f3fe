//! One line a request, when `info` is on.

use std::fmt;
use std::time::Instant;

use http::{HeaderValue, Method, Request, Uri, header};

use super::listener::Peer;
use super::route::Endpoint;
use crate::oci::Name;
use crate::request_id::RequestId;

/// What is known of a request when its line is written: as it is dropped, so a client that hangs up is seen too.
pub struct Entry {
    id: RequestId,
    method: Method,
    uri: Uri,
    host: String,
    client: Peer,
    begun: Instant,
    pub status: u16,
    pub bytes: u64,
    /// hit, miss, stale; none where nothing was looked up.
    pub cache: Option<&'static str>,
    /// Where what we did not have came from.
    pub upstream: Option<String>,
    /// What was asked for, once that was understood.
    pub endpoint: Option<Endpoint>,
    /// Of what was answered with.
    pub digest: Option<HeaderValue>,
    /// Why there was no answer.
    pub error: Option<String>,
    /// Why its body ended early.
    pub cut: Option<String>,
}

impl Entry {
    /// None when nobody would read it.
    pub fn of<B>(request: &Request<B>, client: Peer) -> Option<Self> {
        if client == Peer::Probe || !tracing::enabled!(tracing::Level::INFO) {
            return None;
        }
        let host =
            request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Some(Self {
            id: RequestId::next(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: host.to_owned(),
            client,
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            cache: None,
            upstream: None,
            endpoint: None,
            digest: None,
            error: None,
            cut: None,
        })
    }

    /// Tells the request from all others.
    pub fn id(&self) -> RequestId {
        self.id
    }
}

/// Whether it has only what hosts and ports may have. A client can say anything: the rest stands between quotes, so
/// that it is no other field.
fn is_plain(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte))
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Self { method, uri, host, client, status, bytes, .. } = &*self;
        let latency = self.begun.elapsed();
        let plain = tracing::field::display(host);
        let host: &dyn tracing::Value = if is_plain(host) { &plain } else { &host.as_str() };
        let name = self.endpoint.as_ref().and_then(Endpoint::name);
        let reference = match &self.endpoint {
            Some(Endpoint::Manifest(image)) => Some(&image.reference),
            _ => None,
        };
        let told = self.digest.as_ref().and_then(|digest| digest.to_str().ok());
        let digest: Option<&dyn fmt::Display> = match &self.endpoint {
            Some(Endpoint::Blob(_, digest)) => Some(digest),
            _ => told.as_ref().map(|digest| digest as &dyn fmt::Display),
        };
        tracing::info!(
            status,
            bytes,
            ?latency,
            duration_ms = latency.as_secs_f64() * 1000.0,
            host,
            ip = %client,
            client = %client,
            cache = self.cache.map(tracing::field::display),
            error = self.error.as_deref(),
            cut = self.cut.as_deref(),
            upstream = self.upstream.as_deref(),
            oci_registry = name.map(|name: &Name| name.registry.as_str()),
            oci_repository = name.map(|name: &Name| name.repository.as_str()),
            oci_reference = reference.map(tracing::field::display),
            oci_digest = digest.map(tracing::field::display),
            request_id = %self.id,
            "{method}:{uri}",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_hosts_and_ports_have_is_plain() {
        for host in ["", "localhost:8080", "registry-1.example", "[fe80::1%25eth0]:80", "a_b"] {
            assert!(is_plain(host), "{host}");
        }
        for host in ["h status=999", "a=b", "a\"b", "a\tb"] {
            assert!(!is_plain(host), "{host}");
        }
    }
}
