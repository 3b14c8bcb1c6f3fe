//! Where a request for the daemon's administration is understood and done.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{Reloaded, Status};

/// An answer's body; of bytes at hand, or of lines to come.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What commands act on. The parts that they need come from the daemon.
pub struct Desk {
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Whoever reloads gets each request, and answers it.
    pub reload: mpsc::Sender<oneshot::Sender<Reloaded>>,
}

impl Desk {
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/status") => json(StatusCode::OK, &(self.status)()),
            (&Method::POST, "/reload") => match self.reload().await {
                Some(reloaded) if reloaded.refused.is_none() => json(StatusCode::OK, &reloaded),
                Some(refused) => json(StatusCode::UNPROCESSABLE_ENTITY, &refused),
                None => error(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending"),
            },
            (_, "/status" | "/reload") => error(StatusCode::METHOD_NOT_ALLOWED, "not by this method"),
            (method, path) => {
                let what =
                    format!("no such command: {method} {path}; is this program newer than the daemon?");
                error(StatusCode::NOT_FOUND, &what)
            }
        }
    }

    async fn reload(&self) -> Option<Reloaded> {
        let (answer, answered) = oneshot::channel();
        self.reload.send(answer).await.ok()?;
        answered.await.ok()
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let (status, mut bytes) = match serde_json::to_vec(value) {
        Ok(bytes) => (status, bytes),
        // Nothing of ours is such a value.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    };
    bytes.push(b'\n');
    let mut response = Response::new(Full::from(bytes).boxed_unsync());
    *response.status_mut() = status;
    let media_type = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn error(status: StatusCode, what: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "error": what }))
}
