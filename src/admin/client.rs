//! The side of our own commands.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::socket;

/// Why the daemon did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("no daemon takes commands at {}: {source}", path.display())]
    NoDaemon { path: PathBuf, source: io::Error },
    #[error(
        "may not give commands at {}: {source}; root may, and the daemon's group (usermod -a -G ociregistry <user>)",
        path.display()
    )]
    NotAllowed { path: PathBuf, source: io::Error },
    #[error("the daemon says: {0}")]
    Refused(String),
    #[error("the daemon's answer cannot be used: {0}")]
    Answer(String),
    #[error("the connection to the daemon broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("cannot ask the daemon: {0}")]
    Io(#[from] io::Error),
}

/// A daemon, by its admin socket.
pub struct Client {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Complaint {
    error: String,
}

impl Client {
    /// Does not connect yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks, and gives the answer: also that of a status 422, by which a typed refusal is told. Waits for as long
    /// as the daemon needs. Blocks.
    pub fn ask<A: DeserializeOwned>(&self, method: Method, target: &str) -> Result<A, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (status, body) = self.send(method, target).await?;
            match status {
                StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => serde_json::from_slice(&body)
                    .map_err(|error| AdminError::Answer(format!("{error}; is it another version?"))),
                status => Err(match serde_json::from_slice::<Complaint>(&body) {
                    Ok(complaint) => AdminError::Refused(complaint.error),
                    Err(_) => AdminError::Answer(status.to_string()),
                }),
            }
        })
    }

    async fn send(&self, method: Method, target: &str) -> Result<(StatusCode, Bytes), AdminError> {
        let path = || self.path.clone();
        let stream = socket::connect(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => AdminError::NotAllowed { path: path(), source },
            _ => AdminError::NoDaemon { path: path(), source },
        })?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "ociregistry")
            .body(Full::<Bytes>::default())
            .map_err(io::Error::other)?;
        // It ends with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
