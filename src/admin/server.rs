//! The daemon's side of commands: the admin socket, and an address on the network for whoever has the token.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::answer::{Body, Cause, Complaint};
use super::old::{self, Ends};
use super::places::{Place, Places};
use super::token::Token;
use super::work::Asker;
use super::{Desk, SideDoor};

/// Connections at once, at either door. One that asks for nothing gives way to others.
const CONNECTIONS: usize = 64;

/// For the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Between two words in the log of those who have no token.
const STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// A pause after an accept that failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers commands at the socket until dropped; those under way are dropped with it.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>) -> io::Result<Infallible> {
    let door = Socket(tokio::net::UnixListener::from_std(listener)?);
    Ok(serve_at(door, desk).await)
}

/// The same for whoever bears the token, with the commands of earlier programs besides.
pub async fn serve_network(door: SideDoor, token: Arc<Token>, desk: Arc<Desk>) -> io::Result<Infallible> {
    let door = Network {
        listener: TcpListener::from_std(door.into_listener())?,
        token,
        strangers: Mutex::default(),
    };
    Ok(serve_at(door, desk).await)
}

/// Where commands come in.
trait Door: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Asker)>> + Send;

    fn answer(
        &self,
        desk: &Desk,
        request: Request<Incoming>,
        asker: &Asker,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Who may connect its file says.
struct Socket(tokio::net::UnixListener);

impl Door for Socket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Asker)> {
        let (stream, _) = self.0.accept().await?;
        let asker = Asker::User(stream.peer_cred().ok().map(|peer| peer.uid()));
        Ok((stream, asker))
    }

    async fn answer(&self, desk: &Desk, request: Request<Incoming>, asker: &Asker) -> Response<Body> {
        desk.answer(request, asker).await
    }
}

struct Network {
    listener: TcpListener,
    token: Arc<Token>,
    /// Requests without the token that the log has not heard of, and when it last did.
    strangers: Mutex<(u64, Option<Instant>)>,
}

impl Network {
    /// However many try, the log hears of it once a minute.
    fn stranger(&self, asker: &Asker) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.0 += 1;
        if strangers.1.is_none_or(|told| told.elapsed() >= STRANGERS_EVERY) {
            let count = strangers.0;
            tracing::warn!("requests for commands without the token: {count}, the last one from {asker}");
            *strangers = (0, Some(Instant::now()));
        }
    }
}

impl Door for Network {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Asker)> {
        let (stream, address) = self.listener.accept().await?;
        Ok((stream, Asker::Address(SocketAddr::new(address.ip().to_canonical(), address.port()))))
    }

    async fn answer(&self, desk: &Desk, request: Request<Incoming>, asker: &Asker) -> Response<Body> {
        if !self.token.is_in(request.headers()) {
            self.stranger(asker);
            let mut response =
                Complaint::new(Cause::Token, "want Authorization: Bearer and the token").respond();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        match request.uri().path().starts_with("/cmd/") {
            true => old::answer(&desk.worker, &request, asker).await,
            false => desk.answer(request, asker).await,
        }
    }
}

async fn serve_at<D: Door>(door: D, desk: Arc<Desk>) -> Infallible {
    let door = Arc::new(door);
    let places = Places::new(CONNECTIONS);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        match door.accept().await {
            Ok((stream, asker)) => {
                let (door, desk, place) = (door.clone(), desk.clone(), places.take().await);
                tasks.spawn(async move { connection(&*door, &desk, stream, asker, &place).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a command");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

async fn connection<D: Door>(door: &D, desk: &Desk, stream: D::Stream, asker: Asker, place: &Arc<Place>) {
    let ends = AtomicBool::new(false);
    let service = service_fn(async |request| {
        let busy = place.work();
        let response = door.answer(desk, request, &asker).await;
        ends.fetch_or(response.extensions().get::<Ends>().is_some(), Ordering::Relaxed);
        // Until the last of it is handed over.
        Ok::<_, Infallible>(response.map(|body| {
            body.map_frame(move |frame| {
                let _ = &busy;
                frame
            })
        }))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // It comes first: a request may be there.
        biased;
        ended = serving => if let Err(error) = ended {
            tracing::debug!(%error, "a command's connection ended");
        },
        () = place.is_wanted() => tracing::debug!("an idle connection made room for another"),
    }
    // Once the answer is out.
    if ends.into_inner() {
        (desk.stop)();
    }
}
