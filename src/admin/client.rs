//! The side of our own commands.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use super::answer::Complaint;
use super::socket;

/// Why the daemon did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("no daemon takes commands at {}: {source}", path.display())]
    NoDaemon { path: PathBuf, source: io::Error },
    #[error(
        "no commands may be given by way of {}: {source}; root may give them, and the daemon's group (usermod -a -G ociregistry <user>)",
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

impl Client {
    /// Does not connect yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks, and gives the answer: also that of a status 422, by which a typed refusal is told. Waits for as long
    /// as the daemon needs. Blocks.
    pub fn ask<A: DeserializeOwned>(&self, method: Method, target: &str) -> Result<A, AdminError> {
        block_on(async {
            let answer = self.send(method, target).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            match status {
                StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => read(&body),
                status => Err(complaint(status, &body)),
            }
        })
    }

    /// Asks, and hands over each line of the answer as it comes. Blocks.
    pub fn ask_lines<A: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        mut each: impl FnMut(A) -> Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        block_on(async {
            let answer = self.send(method, target).await?;
            let status = answer.status();
            let mut body = answer.into_body();
            if status != StatusCode::OK {
                return Err(complaint(status, &body.collect().await?.to_bytes()));
            }
            let mut waiting = BytesMut::new();
            while let Some(frame) = body.frame().await {
                waiting.extend_from_slice(&frame?.into_data().unwrap_or_default());
                while let Some(end) = waiting.iter().position(|&byte| byte == b'\n') {
                    each(read(&waiting.split_to(end + 1))?)?;
                }
            }
            if waiting.is_empty() { Ok(()) } else { Err(AdminError::Answer("it broke off".to_owned())) }
        })
    }

    async fn send(&self, method: Method, target: &str) -> Result<Response<Incoming>, AdminError> {
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
        Ok(sender.send_request(request).await?)
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, AdminError>>) -> Result<T, AdminError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn read<A: DeserializeOwned>(body: &[u8]) -> Result<A, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::Answer(format!("{error}; is it another version?")))
}

fn complaint(status: StatusCode, body: &[u8]) -> AdminError {
    match serde_json::from_slice::<Complaint>(body) {
        Ok(complaint) => AdminError::Refused(complaint.error),
        Err(_) => AdminError::Answer(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use tokio::sync::mpsc;

    use super::super::answer::{Body, error, lines};
    use super::*;

    /// Numbers without end to whoever asks for them; tells when nobody listens any more.
    async fn answer(target: &str, gone: mpsc::Sender<()>) -> Response<Body> {
        if target != "/numbers" {
            return error(StatusCode::NOT_FOUND, "no such thing");
        }
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut number = 0_u64;
            while sender.send(number).await.is_ok() {
                number += 1;
            }
            let _ = gone.send(()).await;
        });
        lines(receiver)
    }

    #[test]
    fn lines_are_handed_over_as_they_come_until_the_client_has_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = socket::bind(&path, None).unwrap();
        let (gone, mut is_gone) = mpsc::channel(1);
        let server = std::thread::spawn(move || {
            let serve = async {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                for _ in 0..2 {
                    let stream = TokioIo::new(listener.accept().await?.0);
                    let service = service_fn(async |request: Request<Incoming>| {
                        Ok::<_, Infallible>(answer(request.uri().path(), gone.clone()).await)
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                }
                Ok(())
            };
            block_on(serve).unwrap();
        });
        let client = Client::new(&path);
        let mut got = Vec::new();
        let enough = client.ask_lines(Method::GET, "/numbers", |number: u64| {
            got.push(number);
            if number < 9 { Ok(()) } else { Err(AdminError::Answer("enough".to_owned())) }
        });
        assert!(matches!(enough, Err(AdminError::Answer(what)) if what == "enough"));
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        assert_eq!(is_gone.blocking_recv(), Some(()));
        let refused = client.ask_lines(Method::GET, "/letters", |_: u64| Ok(()));
        assert!(matches!(refused, Err(AdminError::Refused(what)) if what == "no such thing"));
        server.join().unwrap();
    }
}
