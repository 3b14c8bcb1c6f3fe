//! Images that are to be in the cache before anybody asks, and tags that are to be asked for now.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::answer::{Body, Cause, Complaint, LINES, Line, lines};
use super::words;
use super::work::{Asker, read};
use crate::oci::Image;
use crate::pull::{self, Platforms, Pull, PullError, Refreshed, Step, Warmed, log_image};

/// One image, to be fetched whole. The answer tells each [`Step`], then what it came to: [`Warmed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    pub image: Image,
    /// Of an index; none is the daemon's own platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Platforms>,
}

impl PullRequest {
    pub const PATH: &'static str = "/pull";
}

/// One image, to be asked for now. The answer is [`Refreshed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    pub image: Image,
}

impl RefreshRequest {
    pub const PATH: &'static str = "/refresh";
}

/// Fetches, and tells how far it is, for as long as somebody listens: nobody waits any longer for the downloads of a
/// client that has gone, and what becomes of those the configuration says (`abandoned`).
pub async fn pull<B>(pull: Arc<Pull>, request: Request<B>, asker: Asker) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request = match read(PullRequest::PATH, request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let (sender, receiver) = mpsc::channel(LINES);
    tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = tell(&pull, &request, asker, sender) => {}
            () = gone.closed() => {}
        }
    });
    lines(receiver).await
}

async fn tell(
    pull: &Arc<Pull>,
    request: &PullRequest,
    asker: Asker,
    sender: mpsc::Sender<Line<Step, Warmed>>,
) {
    let platforms = request.platforms.clone().unwrap_or_else(|| Platforms::Only(pull.platform()));
    // Steps that a client does not take are left out.
    let (steps, mut taken) = mpsc::channel(LINES);
    let pass_on = async {
        while let Some(step) = taken.recv().await {
            if sender.send(Line::Item(step)).await.is_err() {
                return;
            }
        }
    };
    let work = async {
        let warmed = pull.warm(&request.image, &platforms, &steps).await;
        // Its last sender: what is on its way is passed on, and the result after it.
        drop(steps);
        warmed
    };
    let (warmed, ()) = tokio::join!(work, pass_on);
    let line = match warmed {
        Ok(warmed) => {
            log_image!(
                info,
                request.image,
                "by {asker}: pulled \"{}\", {} fetched",
                request.image,
                words::Bytes(warmed.fetched)
            );
            Line::Done(warmed)
        }
        Err(error) => Line::Error(about(&request.image, error.cause(), &error.to_string())),
    };
    let _ = sender.send(line).await;
}

/// A complaint that says of which image it is.
fn about(image: &Image, cause: pull::Cause, what: &str) -> Complaint {
    let image = image.to_string();
    let message = if what.starts_with(&image) { what.to_owned() } else { format!("{image}: {what}") };
    Complaint::new(cause.into(), message)
}

/// Why upstream did not say what an image is now.
pub fn not_refreshed(error: &PullError) -> String {
    match error.cause() {
        pull::Cause::Missing if error.upstream().is_some() => {
            format!("upstream has it no more, and it is forgotten here ({error})")
        }
        _ => error.to_string(),
    }
}

/// Asks upstream, and fetches what has changed.
pub async fn refresh<B>(pull: &Arc<Pull>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request: RefreshRequest = match read(RefreshRequest::PATH, request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let (sender, receiver) = mpsc::channel::<Line<(), Refreshed>>(1);
    let line = match pull.refresh(&request.image).await {
        Ok(refreshed) => Line::Done(refreshed),
        Err(error) => Line::Error(about(&request.image, error.cause(), &not_refreshed(&error))),
    };
    let _ = sender.send(line).await;
    lines(receiver).await
}

impl From<pull::Cause> for Cause {
    fn from(cause: pull::Cause) -> Self {
        match cause {
            pull::Cause::Missing
            | pull::Cause::Denied
            | pull::Cause::Invalid
            | pull::Cause::Unavailable
            | pull::Cause::Late => Self::Upstream,
            pull::Cause::Internal => Self::Disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back() {
        let image: Image = "localhost:5000/a/b:1".parse().unwrap();
        let platforms = [None, Some(Platforms::All), Some(Platforms::Only("linux/arm/v7".parse().unwrap()))];
        for platforms in platforms {
            let request = PullRequest { image: image.clone(), platforms };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<PullRequest>(&text).unwrap(), request, "{text}");
        }
        for (text, wrong) in [
            (r#"{"image": "nginx", "platforms": "linux"}"#, "`linux` is no platform"),
            (r#"{"image": "nginx", "platform": "linux/amd64"}"#, "unknown field `platform`"),
            (r#"{"image": "NGINX"}"#, "`NGINX` is no"),
            ("{}", "missing field `image`"),
        ] {
            let error = serde_json::from_str::<PullRequest>(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
