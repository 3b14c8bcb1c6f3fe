//! The side of our own commands.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::answer::{Cause, Complaint, Line};
use super::command::Command;
use super::socket;
use crate::store::FolderId;

/// The header that names the cache which is meant: [`FolderId`].
pub const CACHE: &str = "ociregistry-cache";

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
    Refused(Complaint),
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
    folder: Option<FolderId>,
}

impl Client {
    /// Does not connect yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), folder: None }
    }

    /// Only when it writes to this cache.
    pub fn of(self, folder: FolderId) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Whether a daemon takes commands there, of the cache that is meant. Blocks.
    pub fn reach(&self) -> Result<(), AdminError> {
        self.ask::<IgnoredAny>(Method::GET, "/status").map(drop)
    }

    /// Asks, and gives the answer: also that of a status 422, by which a typed refusal is told. Waits for as long
    /// as the daemon needs. Blocks.
    pub fn ask<A: DeserializeOwned>(&self, method: Method, target: &str) -> Result<A, AdminError> {
        block_on(self.answer(method, target))
    }

    /// The same for who is in a runtime already.
    pub async fn answer<A: DeserializeOwned>(&self, method: Method, target: &str) -> Result<A, AdminError> {
        let answer = self.send(method, target, Bytes::new()).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => read(&body),
            status => Err(complaint(status, &body)),
        }
    }

    /// Has a command done; hands over each item as it comes, and what there is to note. Blocks.
    pub fn command<C: Command, E: From<AdminError>>(
        &self,
        command: &C,
        note: &mut dyn FnMut(&str),
        each: &mut dyn FnMut(C::Item) -> Result<(), E>,
    ) -> Result<C::Done, E> {
        self.lines(C::PATH, command, note, each)
    }

    /// The same for what is no command on the cache.
    pub fn lines<I: DeserializeOwned, D: DeserializeOwned, E: From<AdminError>>(
        &self,
        path: &str,
        request: &impl Serialize,
        note: &mut dyn FnMut(&str),
        each: &mut dyn FnMut(I) -> Result<(), E>,
    ) -> Result<D, E> {
        let request = serde_json::to_vec(request).map_err(|error| AdminError::Io(error.into()))?;
        block_on(async {
            let answer = self.send(Method::POST, path, request.into()).await?;
            let status = answer.status();
            let mut body = answer.into_body();
            if status != StatusCode::OK {
                let body = body.collect().await.map_err(AdminError::from)?.to_bytes();
                return Err(complaint(status, &body).into());
            }
            let mut waiting = BytesMut::new();
            while let Some(frame) = body.frame().await {
                waiting.extend_from_slice(&frame.map_err(AdminError::from)?.into_data().unwrap_or_default());
                while let Some(end) = waiting.iter().position(|&byte| byte == b'\n') {
                    match read(&waiting.split_to(end + 1))? {
                        Line::<I, D>::Item(item) => each(item)?,
                        Line::Note(text) => note(&text),
                        Line::Done(done) => return Ok(done),
                        Line::Error(complaint) => return Err(AdminError::Refused(complaint).into()),
                    }
                }
            }
            Err(AdminError::Answer("it broke off".to_owned()).into())
        })
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, AdminError> {
        let path = || self.path.clone();
        let stream = socket::connect(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => AdminError::NotAllowed { path: path(), source },
            _ => AdminError::NoDaemon { path: path(), source },
        })?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(target).header(HOST, "ociregistry");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(folder) = self.folder {
            request = request.header(CACHE, folder.to_string());
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        // It ends with the runtime.
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

fn block_on<T, E: From<AdminError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(AdminError::Io)?.block_on(work)
}

fn read<A: DeserializeOwned>(body: &[u8]) -> Result<A, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::Answer(format!("{error}; is it another version?")))
}

fn complaint(status: StatusCode, body: &[u8]) -> AdminError {
    match serde_json::from_slice(body) {
        Ok(Line::<(), ()>::Error(complaint)) => AdminError::Refused(complaint),
        _ => AdminError::Answer(status.to_string()),
    }
}

impl AdminError {
    /// Whether nobody there could be asked about this cache: nobody at all, or the daemon of another one.
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::NoDaemon { .. } => true,
            Self::Refused(complaint) => complaint.kind == Cause::Elsewhere,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use serde::{Deserialize, Serialize};
    use tokio::sync::mpsc;

    use super::super::answer::{Body, lines};
    use super::super::command::Tell;
    use super::*;
    use crate::store::Store;
    use crate::store::care::{CareError, Pace};

    /// Asks for numbers up to one, or without end.
    #[derive(Serialize, Deserialize)]
    struct Numbers {
        to: Option<u64>,
    }

    impl Command for Numbers {
        const PATH: &'static str = "/numbers";
        type On = Arc<Store>;
        type Item = u64;
        type Done = String;

        fn run(&self, _: &Arc<Store>, _: &Pace<'_>, _: &mut Tell<'_, u64>) -> Result<String, CareError> {
            Err(CareError::NothingChosen)
        }
    }

    /// Tells when nobody listens any more; 4 is where it breaks off, and of more than 100 it complains.
    async fn answer(request: Request<Incoming>, gone: mpsc::Sender<()>) -> Response<Body> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let Numbers { to } = serde_json::from_slice(&body).unwrap();
        if to.is_some_and(|to| to > 100) {
            return Complaint::request("too many").respond();
        }
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _ = sender.send(Line::Note("counting".to_owned())).await;
            for number in 0..to.unwrap_or(u64::MAX) {
                if sender.send(Line::Item(number)).await.is_err() {
                    let _ = gone.send(()).await;
                    return;
                }
            }
            if to != Some(4) {
                let _ = sender.send(Line::Done("all".to_owned())).await;
            }
        });
        lines(receiver).await
    }

    #[test]
    fn items_are_handed_over_as_they_come_and_only_an_end_is_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = socket::bind(&path, None).unwrap();
        let (gone, mut is_gone) = mpsc::channel(1);
        let server = std::thread::spawn(move || {
            block_on::<_, AdminError>(async {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                for _ in 0..4 {
                    let stream = TokioIo::new(listener.accept().await?.0);
                    let service = service_fn(async |request: Request<Incoming>| {
                        Ok::<_, Infallible>(answer(request, gone.clone()).await)
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                }
                Ok(())
            })
            .unwrap();
        });
        let client = Client::new(&path);
        let mut got = Vec::new();
        let mut notes = Vec::new();
        let mut ask = |to, most: usize| {
            got.clear();
            let result =
                client.command(&Numbers { to }, &mut |note| notes.push(note.to_owned()), &mut |number| {
                    got.push(number);
                    if got.len() < most { Ok(()) } else { Err(AdminError::Answer("enough".to_owned())) }
                });
            (result, got.clone())
        };
        let (enough, got) = ask(None, 10);
        assert!(matches!(enough, Err(AdminError::Answer(what)) if what == "enough"));
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        assert_eq!(is_gone.blocking_recv(), Some(()));
        let (all, got) = ask(Some(3), 10);
        assert_eq!((all.unwrap(), got), ("all".to_owned(), vec![0, 1, 2]));
        let (short, got) = ask(Some(4), 10);
        assert!(matches!(short, Err(AdminError::Broken(_))), "{short:?}");
        assert!([0, 1, 2, 3].starts_with(&got), "{got:?}");
        let (refused, _) = ask(Some(101), 10);
        assert!(matches!(refused, Err(AdminError::Refused(what)) if what == Complaint::request("too many")));
        assert_eq!(notes, ["counting"; 3]);
        server.join().unwrap();
    }
}
