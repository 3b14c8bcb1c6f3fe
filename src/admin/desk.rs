//! Where a request for the daemon's administration is understood and done.

use http::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::answer::{Body, error, json};
use super::{Reloaded, Status};

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
