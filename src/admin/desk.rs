//! Where a request for the daemon's administration is understood and done.
//!
//! A command that tells as it goes is one line here: implement [`Command`], and have the [`Worker`] answer it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::answer::{Body, Cause, Complaint, json, not_by_this_method};
use super::client::CACHE;
use super::command::Command;
use super::pull::{PullRequest, RefreshRequest, pull, refresh};
use super::work::{Asker, Worker, read};
use super::{Reloaded, Status};
use crate::pull::Pull;
use crate::store::care::{BlobsRequest, CheckRequest, ListRequest, PinRequest, PruneRequest, RepairRequest};

/// There is nothing to say of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reload {}

/// A look at how the daemon is.
pub type Looking = Pin<Box<dyn Future<Output = Status> + Send>>;

/// What commands act on. The parts that they need come from the daemon.
pub struct Desk {
    pub status: Box<dyn Fn() -> Looking + Send + Sync>,
    /// Whoever reloads gets each request, and answers it.
    pub reload: mpsc::Sender<oneshot::Sender<Reloaded>>,
    pub worker: Worker,
    pub pull: Arc<Pull>,
    /// Ends the daemon, as SIGTERM does.
    pub stop: Box<dyn Fn() + Send + Sync>,
}

impl Desk {
    pub async fn answer<B>(&self, request: Request<B>, asker: &Asker) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(complaint) = self.is_elsewhere(&request) {
            return complaint.respond();
        }
        let worker = &self.worker;
        match (request.uri().path(), request.method()) {
            ("/status", &Method::GET) => json(StatusCode::OK, &(self.status)().await),
            ("/status", _) => not_by_this_method("GET"),
            ("/reload", _) => match read("/reload", request).await {
                Ok(Reload {}) => self.reload().await,
                Err(refusal) => refusal,
            },
            (ListRequest::PATH, _) => worker.answer::<ListRequest, B>(request, asker).await,
            (BlobsRequest::PATH, _) => worker.answer::<BlobsRequest, B>(request, asker).await,
            (PruneRequest::PATH, _) => worker.answer::<PruneRequest, B>(request, asker).await,
            (PinRequest::PATH, _) => worker.answer::<PinRequest, B>(request, asker).await,
            (CheckRequest::PATH, _) => worker.answer::<CheckRequest, B>(request, asker).await,
            (RepairRequest::PATH, _) => worker.answer::<RepairRequest, B>(request, asker).await,
            (PullRequest::PATH, _) => pull(self.pull.clone(), request, *asker).await,
            (RefreshRequest::PATH, _) => refresh(&self.pull, request).await,
            (path, method) => {
                let what =
                    format!("no such command: {method} {path}; is this program newer than the daemon?");
                Complaint::new(Cause::Command, what).respond()
            }
        }
    }

    /// Who names a cache must mean ours.
    fn is_elsewhere<B>(&self, request: &Request<B>) -> Option<Complaint> {
        let wanted = request.headers().get(CACHE)?;
        let ours = self.worker.store().folder_id().to_string();
        (wanted.as_bytes() != ours.as_bytes())
            .then(|| Complaint::new(Cause::Elsewhere, "this daemon writes to another cache"))
    }

    async fn reload(&self) -> Response<Body> {
        let (answer, answered) = oneshot::channel();
        let reloaded = match self.reload.send(answer).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        match reloaded {
            Some(reloaded) if reloaded.refused.is_none() => json(StatusCode::OK, &reloaded),
            Some(refused) => json(StatusCode::UNPROCESSABLE_ENTITY, &refused),
            None => Complaint::new(Cause::Ending, "the daemon is ending").respond(),
        }
    }
}
