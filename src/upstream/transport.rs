//! One request on the wire: the HTTP clients, direct or by proxy, redirects followed under our own rules, and
//! errors told in plain words.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Origin, Url};

use super::address::{Forbidden, Reach};
use super::error::{UpstreamError, UpstreamsError};
use super::ledger::Ledger;
use super::retry::{Again, Failure};
use super::tls::Tls;
use crate::config::Proxy;

const CONNECT: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 5;

/// Silence in the middle of a small body after which it is given up: so a second and a third attempt are made while
/// a client still waits.
const SMALL_SILENCE: Duration = Duration::from_secs(5);

/// Which requests go by a proxy. Names and passwords of proxies stay in here.
pub(super) struct Proxies {
    setting: Proxy,
    matcher: Matcher,
}

impl Proxies {
    pub(super) fn new(setting: &Proxy) -> Result<Self, UpstreamsError> {
        let matcher = match setting {
            Proxy::Environment => Matcher::from_env(),
            Proxy::Explicit { url, except } => {
                let all = Matcher::builder().all(url.reveal()).build();
                if all.intercept(&Uri::from_static("https://registry.example/")).is_none() {
                    return Err(UpstreamsError::Proxy);
                }
                Matcher::builder().all(url.reveal()).no(except.join(",")).build()
            }
        };
        let setting = setting.clone();
        Ok(Self { setting, matcher })
    }

    fn apply_to(&self, url: &Url) -> bool {
        // The matcher takes a `*` for all names, but not for addresses.
        if let Proxy::Explicit { except, .. } = &self.setting
            && except.iter().any(|host| host == "*")
        {
            return false;
        }
        Uri::try_from(url.as_str()).is_ok_and(|uri| self.matcher.intercept(&uri).is_some())
    }
}

/// How one registry, or all that have no entry, are reached. Connections are shared by all their requests.
pub(super) struct Transport {
    pub(super) reach: Reach,
    pub(super) tls: Tls,
    pub(super) proxies: Arc<Proxies>,
    pub(super) via: HeaderValue,
    /// Silence after which a connection is given up.
    pub(super) silence: Duration,
    pub(super) direct: OnceLock<Client>,
    pub(super) proxied: OnceLock<Client>,
}

/// A request as it leaves us.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// The answer is checked against a digest, so the way it came does not matter.
    pub(super) by_digest: bool,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), by_digest: false }
    }

    pub(super) fn header(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        if let Some(value) = value {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Transport {
    /// Sends it, and again to where it is redirected to. Whatever the final status is, that is an answer.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut headers = ask.headers.clone();
        headers.insert(VIA, self.via.clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut asked = vec![ask.url.clone()];
        let mut url = ask.url.clone();
        loop {
            let answer = self.hop(&ask.method, &url, &headers).await?;
            if !is_redirect(answer.status()) {
                return Ok(answer);
            }
            let insecure = self.reach == Reach::Anywhere && ask.by_digest;
            let next = next_hop(&url, answer.headers(), insecure)?;
            if asked.len() > MAX_REDIRECTS || asked.contains(&next) {
                return Err(UpstreamError::invalid(host(&url), "redirects in a loop").into());
            }
            if next.origin() != ask.url.origin() {
                headers.remove(AUTHORIZATION);
            }
            asked.push(next.clone());
            url = next;
        }
    }

    async fn hop(&self, method: &Method, url: &Url, headers: &HeaderMap) -> Result<Answer, Failure> {
        let host = host(url);
        let proxied = self.proxies.apply_to(url);
        self.reach.check(url, proxied).map_err(|Forbidden(reason)| UpstreamError::refused(&host, reason))?;
        let request = self
            .client(proxied)
            .map_err(|reason| UpstreamError::unavailable(&host, reason))?
            .request(method.clone(), url.clone())
            .headers(headers.clone());
        let limit = HEADERS.min(self.silence);
        match timeout(limit, request.send()).await {
            Ok(Ok(response)) => {
                let (origin, silence) = (url.origin(), self.silence);
                Ok(Answer { response, origin, host, silence, give_up: None, ledger: None })
            }
            Ok(Err(error)) if proxied => Err(failure(&error, &format!("{host} (by proxy)"))),
            Ok(Err(error)) => Err(failure(&error, &host)),
            Err(_) => Err(UpstreamError::unavailable(host, format!("no answer within {limit:?}")).into()),
        }
    }

    fn client(&self, proxied: bool) -> Result<&Client, &'static str> {
        let cell = if proxied { &self.proxied } else { &self.direct };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let tls = self.tls.client_config().map_err(|_| "its TLS settings cannot be used")?;
        let builder = self.builder().tls_backend_preconfigured(tls);
        let client = if proxied {
            match &self.proxies.setting {
                Proxy::Environment => builder.build(),
                Proxy::Explicit { url, .. } => {
                    reqwest::Proxy::all(url.reveal()).and_then(|proxy| builder.proxy(proxy).build())
                }
            }
        } else {
            builder.no_proxy().dns_resolver(self.reach).build()
        };
        let client = client.map_err(|_| "no client could be made for it")?;
        Ok(cell.get_or_init(|| client))
    }

    pub(super) fn builder(&self) -> reqwest::ClientBuilder {
        Client::builder()
            .user_agent(concat!("ociregistry/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT.min(self.silence))
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(32)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .http2_max_frame_size(64 << 10)
            .http2_max_header_list_size(64 << 10)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
    }
}

/// Host, and port where it is not the scheme's own: how messages name who was asked.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
fn next_hop(from: &Url, headers: &HeaderMap, insecure: bool) -> Result<Url, UpstreamError> {
    let mut next = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host())
        .ok_or_else(|| UpstreamError::invalid(host(from), "redirects to nowhere"))?;
    if from.scheme() == "https" && next.scheme() == "http" && !insecure {
        let reason = format!("redirects to plain http at {}", host(&next));
        return Err(UpstreamError::refused(host(from), reason));
    }
    // The client would make credentials of what stands before an `@`. These parts of an http URL can be unset.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.set_fragment(None);
    Ok(next)
}

/// The headers of an answer, and its body still to come.
pub(super) struct Answer {
    response: Response,
    /// Who answered: after a redirect not who was asked.
    pub(super) host: String,
    pub(super) origin: Origin,
    silence: Duration,
    /// When the wait for the next bytes is over, while there is one.
    give_up: Option<Instant>,
    /// Where its bytes are counted.
    pub(super) ledger: Option<Arc<Ledger>>,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Content-Length, read as it stands: that of a HEAD is the body's that a GET would bring.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Bytes are only of use to us as they are.
    pub(super) fn is_identity(&self) -> Result<(), UpstreamError> {
        match self.header(CONTENT_ENCODING).map(str::trim) {
            None | Some("" | "identity") if self.headers().get_all(CONTENT_ENCODING).iter().count() <= 1 => {
                Ok(())
            }
            _ => Err(self.invalid("sent an encoding that was not asked for")),
        }
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> UpstreamError {
        UpstreamError::invalid(&self.host, reason)
    }

    /// The next bytes of the body. Dropping the future loses none of them, and the wait goes on where it was.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let give_up = *self.give_up.get_or_insert_with(|| Instant::now() + self.silence);
        let read = timeout_at(give_up, self.response.chunk()).await;
        self.give_up = None;
        match read {
            Ok(Ok(bytes)) => {
                if let (Some(ledger), Some(bytes)) = (&self.ledger, &bytes) {
                    ledger.received(bytes.len() as u64);
                }
                Ok(bytes)
            }
            Ok(Err(error)) => Err(failure(&error, &self.host)),
            Err(_) => {
                let reason = format!("sent nothing for {:?}", self.silence);
                Err(UpstreamError::unavailable(&self.host, reason).into())
            }
        }
    }

    /// The whole body, when it is no longer than `limit`.
    pub(super) async fn bytes(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let too_large = |answer: &Self| answer.invalid(format!("sent more than {limit} bytes"));
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large(self).into());
        }
        self.silence = self.silence.min(SMALL_SILENCE);
        let mut whole = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if whole.len() + bytes.len() > limit {
                return Err(too_large(self).into());
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.into())
    }
}

/// The client's error in our words. It is searched down to its sources, for it shows a URL with its query, and
/// the refusal of our own resolver is among them.
fn failure(error: &reqwest::Error, host: &str) -> Failure {
    let mut innermost = String::new();
    let mut again = Again::After(None);
    let mut next = error.source();
    while let Some(mut cause) = next {
        // An I/O error shows what it wraps, perhaps another one, but does not name it as its source.
        while let Some(wrapped) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = wrapped;
        }
        if let Some(Forbidden(reason)) = cause.downcast_ref() {
            return UpstreamError::refused(host, reason).into();
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && error.is_parse()
        {
            return UpstreamError::invalid(host, format!("speaks no HTTP we understand: {error}")).into();
        }
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            again = Again::Never;
        }
        innermost = cause.to_string();
        next = cause.source();
    }
    let reason = match (error.is_connect(), error.is_timeout()) {
        (true, true) => "cannot connect in time".to_owned(),
        (true, false) => format!("cannot connect: {innermost}"),
        _ if innermost.is_empty() => "the request failed".to_owned(),
        _ => innermost,
    };
    let error = UpstreamError::unavailable(host, reason);
    Failure { error, again, limited: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, location: &str, insecure: bool) -> Result<String, UpstreamError> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
        next_hop(&Url::parse(from).unwrap(), &headers, insecure).map(String::from)
    }

    #[test]
    fn redirects_lead_to_http_without_credentials() {
        let from = "https://a.example/v2/x";
        assert_eq!(hop(from, "/y?q=1#f", false).unwrap(), "https://a.example/y?q=1");
        assert_eq!(hop(from, "https://me:secret@b.example/", false).unwrap(), "https://b.example/");
        assert!(hop(from, "file:///etc/passwd", false).is_err());
        assert!(hop(from, "", false).is_ok());
        assert!(next_hop(&Url::parse(from).unwrap(), &HeaderMap::new(), false).is_err());
    }

    #[test]
    fn a_downgrade_to_http_is_refused_but_for_what_a_digest_checks() {
        let from = "https://a.example/v2/x";
        let refused = hop(from, "http://b.example/?signature=s", false).unwrap_err();
        assert_eq!(refused.to_string(), "a.example: refused: redirects to plain http at b.example");
        assert!(hop(from, "http://b.example/", true).is_ok());
        assert!(hop("http://a.example/", "http://b.example/", false).is_ok());
    }
}
