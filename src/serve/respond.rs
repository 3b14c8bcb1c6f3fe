//! From a typed request to an answer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Access;
use super::body::Body;
use super::conditions::CONTENT_DIGEST;
use super::counters::Counters;
use super::failure::Failure;
use super::listener::Peer;
use super::lists::next_page;
use super::request_log::Entry;
use super::route::{Endpoint, Route, Rules, route};
use crate::config::Settings;
use crate::oci::{Code, Registry};
use crate::pull::{Origin, Pull, Want};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// A request waits so long for its place, before the time that it has for its answer.
const PLACE_WITHIN: Duration = Duration::from_secs(5);

/// What answering goes by.
pub struct Responder {
    pub(super) pull: Arc<Pull>,
    terms: ArcSwap<Terms>,
    /// Names by which requests may call ourselves.
    own: Vec<Registry>,
    /// Stands in the `Via` of every request that we send: seeing it again means that we asked ourselves.
    id: String,
    pub counters: Arc<Counters>,
}

/// What a reload replaces.
struct Terms {
    rules: Rules,
    access: Access,
}

/// An answer and where it came from.
pub struct Answer {
    pub response: Response<Body>,
    pub origin: Option<Origin>,
}

impl Responder {
    /// `own` are names by which requests may call ourselves, `id` stands in the `Via` of every request that we send.
    pub fn new(pull: Arc<Pull>, settings: &Settings, own: Vec<Registry>, id: String) -> Self {
        let terms = ArcSwap::from_pointee(Terms::new(settings, &own));
        Self { pull, terms, own, id, counters: Arc::default() }
    }

    /// Puts other settings in force, from the next request on.
    pub fn reload(&self, settings: &Settings) {
        self.terms.store(Arc::new(Terms::new(settings, &self.own)));
    }

    /// Answers one request. The line of the log is written when the body is done with. Where there are `places`, what
    /// is not refused takes one until then.
    pub async fn respond<B>(
        &self,
        request: Request<B>,
        client: Peer,
        mut log: Option<Entry>,
        places: Option<Arc<Semaphore>>,
    ) -> Response<Body> {
        let answer = self.answer(client, &request, &mut log, places).await;
        let Answer { mut response, origin } = answer.unwrap_or_else(|failure| {
            let id = log.as_mut().map(|log| {
                log.error = Some(failure.message.clone());
                log.id().to_string()
            });
            let mut answer = failure.into_answer();
            // What went well nobody looks up.
            if let Some(Ok(id)) = id.map(HeaderValue::try_from) {
                answer.response.headers_mut().insert(REQUEST_ID, id);
            }
            answer
        });
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if let Some(log) = &mut log {
            log.status = response.status().as_u16();
            log.cache = origin.map(Origin::as_str);
            if origin == Some(Origin::Miss) {
                let name = log.endpoint.as_ref().and_then(Endpoint::name);
                log.upstream = name.map(|name| self.pull.host(&name.registry));
            }
            log.digest = response.headers().get(CONTENT_DIGEST).cloned();
        }
        if request.method() == Method::HEAD {
            // The length stays as a header; hyper sends no body.
            return response.map(|body| {
                drop(body);
                Body::bytes(Bytes::new()).logged(log)
            });
        }
        response.map(|body| body.logged(log).content(origin.is_some()))
    }

    async fn answer<B>(
        &self,
        client: Peer,
        request: &Request<B>,
        log: &mut Option<Entry>,
        places: Option<Arc<Semaphore>>,
    ) -> Result<Answer, Failure> {
        let headers = request.headers();
        let terms = self.terms.load_full();
        terms.access.admit(client, headers).await?;
        if headers.get_all(header::VIA).iter().any(|via| contains(via, &self.id)) {
            let message =
                "this request came from this registry itself: a mirror must not have itself as its upstream";
            return Err(Failure::new(508, Code::Denied, message));
        }
        // RFC 9112, 3.2.
        if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
            return Err(Failure::new(400, Code::Unsupported, "a request of HTTP/1.1 has one header Host"));
        }
        let Route { endpoint, namespace } = route(&terms.rules, request.method(), request.uri(), headers)?;
        if let Some(log) = log {
            log.endpoint = Some(endpoint.clone());
        }
        let mut answer = match terms.access.permit(&endpoint) {
            Ok(()) => self.permitted(endpoint, request, places).await,
            Err(refusal) => Err(refusal.into()),
        };
        let headers = match &mut answer {
            Ok(answer) => answer.response.headers_mut(),
            Err(failure) => &mut failure.headers,
        };
        if let Some(Ok(namespace)) = namespace.map(|registry| HeaderValue::from_str(registry.as_str())) {
            headers.insert(NAMESPACE, namespace);
        }
        answer
    }

    async fn permitted<B>(
        &self,
        endpoint: Endpoint,
        request: &Request<B>,
        places: Option<Arc<Semaphore>>,
    ) -> Result<Answer, Failure> {
        let place = match places {
            Some(places) => Some(place(places).await?),
            None => None,
        };
        let headers = request.headers();
        let want = if request.method() == Method::HEAD { Want::Head } else { Want::Body };
        let Answer { response, origin } = match endpoint {
            Endpoint::Base => base(),
            Endpoint::Manifest(image) => self.manifest(&image, want, headers).await?,
            Endpoint::Blob(name, digest) => self.blob(&name, &digest, want, headers).await?,
            Endpoint::Tags { name, asked, page } => {
                let header = headers.contains_key("x-registry").then_some(&name.registry);
                self.tags(&name, &asked, &page, |last| next_page(request.uri(), header, &page, last)).await?
            }
            Endpoint::Referrers { subject, types } => self.referrers(&subject, &types).await?,
        };
        Ok(Answer { response: response.map(|body| body.placed(place)), origin })
    }
}

impl Terms {
    fn new(settings: &Settings, own: &[Registry]) -> Self {
        Self { rules: Rules::new(settings, own), access: Access::new(settings) }
    }
}

async fn place(places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    // They are never closed.
    let place = tokio::time::timeout(PLACE_WITHIN, places.acquire_owned()).await.ok().and_then(Result::ok);
    place.ok_or_else(|| {
        let message = "as many requests over HTTP/2 are being answered as can be: try again";
        Failure::new(503, Code::Unavailable, message)
    })
}

fn contains(value: &HeaderValue, text: &str) -> bool {
    value.to_str().is_ok_and(|value| value.contains(text))
}

fn base() -> Answer {
    let mut response = Response::new(Body::bytes(Bytes::from_static(b"{}")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, 2.into());
    Answer { response, origin: None }
}
