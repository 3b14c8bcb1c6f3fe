//! One connection, from its first byte to its close.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Uri};
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::activity::{Activity, Exchange, Order};
use super::body::{Body, CutShort};
use super::listener::{Connection, Peer};
use super::protocol::{PLAIN_HERE, Protocol, TLS_HERE, bad_request};
use super::request_log::Entry;
use super::respond::Responder;
use super::socket::Socket;
use super::stream::Stream;
use super::tls::{self, Reason, Refused};
use crate::request_id::RequestId;

/// For a head (podman's Range of 1,024 parts has 20 kB), and for bytes that wait to be sent, in bytes.
const BUFFER: usize = 64 << 10;

/// Bytes read to see which protocol it is; a request seldom has more.
const FIRST: usize = 4096;

/// How long a connection that is told to finish has for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Requests at once on one connection.
const STREAMS: u32 = 100;

/// Streams that a client may have reset before we came to look at them, and that we may reset for its errors, before
/// it is taken for an attack ("rapid reset") and its connection ended.
const RESETS: usize = 50;

/// What a client may send unread: we read no body.
const WINDOW: u32 = 64 << 10;

/// A response of HTTP/2 waits in pieces of so many bytes for its turn on the wire.
const SEND_BUFFER: usize = 256 << 10;

/// A client that is gone without a word is found by asking it.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// What the connections of a thread have in common.
#[derive(Clone)]
pub struct Common {
    pub responder: Arc<Responder>,
    /// None: TCP is plain too.
    pub tls: Arc<ArcSwapOption<ServerConfig>>,
    /// Places for requests of HTTP/2, of which a connection can have many.
    pub streams: Arc<Semaphore>,
}

/// Serves a connection until it ends, or is told to.
pub async fn serve(connection: Connection, common: Common, activity: Rc<Activity>) {
    let Ok((stream, client)) = connection.open() else { return };
    let secured = beginning(&activity, secure(stream, client, &common.tls, &activity)).await;
    let Some(mut stream) = secured.flatten() else { return };
    let mut first = Vec::with_capacity(FIRST);
    let protocol = beginning(&activity, look(&mut stream, &mut first, &activity)).await;
    let stream = match protocol.and_then(Result::ok) {
        Some(Protocol::Http1) => {
            let socket = Socket::new(stream, first.into(), activity.clone());
            serve_http1(&socket, client, common, &activity).await;
            socket.into_stream()
        }
        Some(Protocol::Http2) => {
            activity.speaks_http2();
            let socket = Socket::new(stream, first.into(), activity.clone());
            serve_http2(&socket, client, common, &activity).await;
            socket.into_stream()
        }
        Some(Protocol::Tls) => {
            tracing::info!(%client, "TLS came to a plain port");
            let _ = stream.write_all(bad_request(PLAIN_HERE).as_bytes()).await;
            Some(stream)
        }
        None => Some(stream),
    };
    if let Some(stream) = stream {
        stream.close().await;
    }
}

/// What comes before the first request. When we end meanwhile, that may be on its way: it is waited for a little, is
/// answered, and is the last. None: it did not come.
async fn beginning<T>(activity: &Activity, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let order = tokio::select! {
        biased;
        done = &mut work => return Some(done),
        order = activity.ordered() => order,
    };
    if matches!(order, Order::Cut(_)) {
        return None;
    }
    let done = tokio::time::timeout(FIRST_REQUEST, work).await.ok()?;
    activity.order(order);
    Some(done)
}

/// The stream as it is, or in TLS where that is spoken. None: the client could not, and was told.
async fn secure(
    stream: Stream,
    client: Peer,
    tls: &ArcSwapOption<ServerConfig>,
    activity: &Activity,
) -> Option<Stream> {
    let (stream, config) = match (stream, tls.load_full()) {
        (Stream::Tcp(stream), Some(config)) => (stream, config),
        (stream, _) => return Some(stream),
    };
    activity.handshaking();
    match tls::accept(stream, config).await {
        Ok(stream) => {
            activity.handshaken();
            Some(Stream::Tls(Box::new(stream)))
        }
        Err(Refused { mut stream, reason }) => {
            match reason {
                Reason::Plain => {
                    tracing::info!(%client, "plain HTTP came to a port with TLS");
                    let _ = stream.write_all(bad_request(TLS_HERE).as_bytes()).await;
                }
                Reason::Failed(error) => tracing::info!(%client, %error, "no TLS handshake"),
            }
            Stream::Tcp(stream).close().await;
            None
        }
    }
}

/// Reads until it is clear what the client speaks. What was read is no less a part of its request.
async fn look(stream: &mut Stream, first: &mut Vec<u8>, activity: &Activity) -> io::Result<Protocol> {
    loop {
        if stream.read_buf(first).await? == 0 {
            return Ok(Protocol::Http1);
        }
        activity.received();
        if let Some(protocol) = Protocol::of(first) {
            return Ok(protocol);
        }
    }
}

async fn serve_http1(socket: &Socket, client: Peer, common: Common, activity: &Rc<Activity>) {
    let service = service_fn(|request| {
        let exchange = Exchange::begin(activity.clone());
        answer(request, client, common.responder.clone(), exchange, None)
    });
    let connection =
        http1::Builder::new().max_buf_size(BUFFER).serve_connection(TokioIo::new(socket.clone()), service);
    drive(connection, |connection| connection.graceful_shutdown(), client, activity).await;
}

async fn serve_http2(socket: &Socket, client: Peer, common: Common, activity: &Rc<Activity>) {
    let shared = activity.clone();
    let service = service_fn(move |request| {
        let exchange = Exchange::begin(shared.clone());
        answer(request, client, common.responder.clone(), exchange, Some(common.streams.clone()))
    });
    let connection = http2::Builder::new(OnThisThread { activity: activity.clone() })
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .max_header_list_size(BUFFER as u32)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(socket.clone()), service);
    drive(connection, |connection| connection.graceful_shutdown(), client, activity).await;
}

/// Runs a connection to its end, and does what it is told meanwhile.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    finish: impl Fn(Pin<&mut C>),
    client: Peer,
    activity: &Activity,
) {
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            // It comes first: told to finish before it has read the request that is there, it would not answer that.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%client, %error, "connection ended");
                }
                return;
            }
            order = activity.ordered() => match order {
                Order::Finish => finish(connection.as_mut()),
                Order::Cut(why) => {
                    activity.cut_off(why);
                    return tracing::debug!(%client, "connection cut off: {why}");
                }
            },
        }
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    client: Peer,
    responder: Arc<Responder>,
    exchange: Exchange,
    places: Option<Arc<Semaphore>>,
) -> Result<http::Response<Watched>, Infallible> {
    let request = in_origin_form(request);
    let counted = (client != Peer::Probe).then(|| responder.counters.request());
    let log = Entry::of(&request, client);
    let id = log.as_ref().map(Entry::id);
    let response = RequestId::scope(id, responder.respond(request, client, log, places)).await;
    Ok(response.map(|body| Watched { body: body.counted(counted), exchange }))
}

/// As HTTP/1.1 mostly has it: the authority in `Host`, not in the target.
fn in_origin_form<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let (Some(authority), Some(target)) = (uri.authority(), uri.path_and_query()) else { return request };
    let (host, target) = (HeaderValue::from_str(authority.as_str()), Uri::from(target.clone()));
    if let Ok(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = target;
    request
}

/// A body that notes who waits for whom.
struct Watched {
    body: Body,
    exchange: Exchange,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(why) = self.exchange.cut() {
            self.body.cut_off(why);
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.exchange.owe(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Streams are served on the thread of their connection. Each is handed over right after its request was.
#[derive(Clone)]
struct OnThisThread {
    activity: Rc<Activity>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, stream: F) {
        let task = tokio::task::spawn_local(stream);
        self.activity.answered_by(task.abort_handle());
    }
}
