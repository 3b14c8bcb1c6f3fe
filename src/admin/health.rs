//! Whether a pull would work: 200 with `ok`, or `degraded` where the disk takes nothing but pulls go on, and 503 where
//! not. That an upstream is down is its own affair: what is in the cache is served all the same.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::pull::Shared;
use crate::serve::Probe;
use crate::store::{Store, StoreError, TroubleKind};

/// What does not answer in this time does not answer.
const WITHIN: Duration = Duration::from_secs(5);

/// What is looked at.
pub struct Health {
    store: Arc<Store>,
    probe: Probe,
    ready: watch::Receiver<bool>,
    shutdown: watch::Receiver<bool>,
    /// However many ask, one file is written.
    writes: Shared<(), Result<(), Arc<StoreError>>>,
}

/// What it comes to, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    Degraded(String),
    Unavailable(String),
}

impl Health {
    /// `ready` is true from when the start is over, `shutdown` from when the daemon is told to end.
    pub fn new(
        store: Arc<Store>,
        probe: Probe,
        ready: watch::Receiver<bool>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { store, probe, ready, shutdown, writes: Shared::default() }
    }

    /// For [`SideDoor::serve`](super::SideDoor::serve): answers `/health`.
    pub async fn answer(&self, path: &str) -> Option<Response<String>> {
        match path {
            "/health" => Some(self.look().await.into_response()),
            _ => None,
        }
    }

    async fn look(&self) -> Verdict {
        if *self.shutdown.borrow() {
            return Verdict::Unavailable("the server is ending".to_owned());
        }
        if !*self.ready.borrow() {
            return Verdict::Unavailable("images are being preloaded".to_owned());
        }
        if !matches!(tokio::time::timeout(WITHIN, self.probe.answered()).await, Ok(Ok(()))) {
            return Verdict::Unavailable("a serving thread does not answer".to_owned());
        }
        let store = self.store.clone();
        let runtime = Handle::current();
        let written = self.writes.run(&runtime, &(), || try_writing(store));
        match tokio::time::timeout(WITHIN, written).await {
            Ok(Some(Ok(()))) => match self.store.trouble() {
                // It takes a page, but not what was to be kept of late.
                Some(trouble) => not_kept(trouble.kind, &trouble.error),
                None => Verdict::Well,
            },
            Ok(Some(Err(error))) => match error.trouble() {
                Some(kind) => not_kept(kind, &error.to_string()),
                None => Verdict::Unavailable(error.to_string()),
            },
            Ok(None) => Verdict::Unavailable("the store cannot be looked at".to_owned()),
            Err(_) => Verdict::Unavailable("the disk does not answer".to_owned()),
        }
    }
}

fn not_kept(kind: TroubleKind, error: &str) -> Verdict {
    Verdict::Degraded(format!("the disk is {}: {error}. Pulls go on; what is new is not kept", kind.as_str()))
}

async fn try_writing(store: Arc<Store>) -> Result<(), Arc<StoreError>> {
    let written = tokio::task::spawn_blocking(move || store.try_writing()).await;
    written.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic())).map_err(Arc::new)
}

impl Verdict {
    fn into_response(self) -> Response<String> {
        let (code, status, reason) = match self {
            Self::Well => (StatusCode::OK, "ok", None),
            Self::Degraded(reason) => (StatusCode::OK, "degraded", Some(reason)),
            Self::Unavailable(reason) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some(reason)),
        };
        let body = match reason {
            None => serde_json::json!({ "status": status }),
            Some(reason) => serde_json::json!({ "status": status, "reason": reason }),
        };
        let mut response = Response::new(format!("{body}\n"));
        *response.status_mut() = code;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
