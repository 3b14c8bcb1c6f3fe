//! A small HTTP server on an address of its own: short answers to a few who ask often.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::places::Places;

/// Connections at once; more take the place of those that ask for nothing.
const CONNECTIONS: usize = 64;

/// For the head of a request, and for the next request on a connection that is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A pause after an accept that failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound address.
pub struct SideDoor {
    listener: TcpListener,
}

impl SideDoor {
    /// Binds and listens.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::new(TcpListener::bind(address)?)
    }

    /// One that somebody else has bound.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Not blocking.
    pub fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Serves for ever on the runtime that this is called on. `answer` is asked with the path of each GET and HEAD;
    /// None is 404.
    pub async fn serve<A, F>(self, answer: A) -> io::Result<()>
    where
        A: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Response<String>>> + Send,
    {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let (answer, places) = (Arc::new(answer), Places::new(CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (answer, place) = (answer.clone(), places.take().await);
            tokio::spawn(async move {
                let service = service_fn(|request| async {
                    let _busy = place.work();
                    Ok::<_, Infallible>(respond(&*answer, request).await)
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    biased;
                    // How it ends is the asker's business.
                    _ = connection => {}
                    () = place.is_wanted() => {}
                }
            });
        }
    }
}

async fn respond<A, F, B>(answer: &A, request: Request<B>) -> Response<String>
where
    A: Fn(String) -> F,
    F: Future<Output = Option<Response<String>>>,
{
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        let found = answer(request.uri().path().to_owned()).await;
        found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found\n"))
    } else {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "want GET or HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
