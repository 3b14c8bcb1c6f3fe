//! Clients that take their time, on real sockets under a clock that jumps to whatever comes next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Request;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::connection::Common;
use super::{Listener, Responder, server};
use crate::config::{Configuration, ServerTls};
use crate::pull::Pull;
use crate::store::Store;
use crate::upstream::Upstreams;

/// More than the sockets' buffers hold.
const BLOB: u64 = 64 << 20;
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A thread's work on this one, with an empty cache but for one blob of zeros.
struct Place {
    address: SocketAddr,
    tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    _folder: TempDir,
    _shut_down: watch::Sender<bool>,
}

async fn place(places: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("image_path = {images:?}\nair_gapped = true")).unwrap();
    let settings = Configuration::load(Some(&file), &[]).unwrap().settings;
    let store = Arc::new(Store::open(&images).unwrap());
    std::fs::File::create(images.join("blobs").join(HEX)).unwrap().set_len(BLOB).unwrap();
    let upstreams = Upstreams::new(&settings, "1.1 tests").unwrap();
    let pull = Pull::new(settings.clone(), store, upstreams, tokio::runtime::Handle::current());
    let responder = Arc::new(Responder::new(pull, &settings, Vec::new(), "tests".to_owned()));

    let tls = Arc::new(ArcSwapOption::new(tls));
    let common = Common { responder, tls: tls.clone(), streams: Arc::new(Semaphore::new(places)) };
    let listener = Listener::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.address().unwrap();
    let (shut_down, shutdown) = watch::channel(false);
    let room = Arc::new(Semaphore::new(places));
    let (sender, mut admitted) = mpsc::channel(1);
    let (connections, incoming) = mpsc::unbounded_channel();
    spawn_local(server::accept(listener.into_async().unwrap(), room.clone(), sender, shutdown.clone()));
    spawn_local(async move {
        while let Some(connection) = admitted.recv().await {
            let _ = connections.send(connection);
        }
    });
    spawn_local(server::serve(incoming, common, room, shutdown));
    Place { address, tls, _folder: folder, _shut_down: shut_down }
}

/// Runs a test beside what it tests.
async fn here<R>(test: impl Future<Output = R>) -> R {
    LocalSet::new().run_until(test).await
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Place {
    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // The kernel would take the blob before the client does.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A connection over which HTTP/2 is spoken, and what its requests are sent by.
    async fn http2(
        &self,
    ) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 14);
        let (requests, connection) = builder.handshake(self.connect().await).await.unwrap();
        (requests, spawn_local(connection))
    }
}

/// A new certificate for this host, and TLS by it.
fn identity() -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = pair.cert.der().clone();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let ring = rustls::crypto::ring::default_provider();
    let identity = CertifiedKey::from_der(vec![certificate.clone()], key, &ring).unwrap();
    let settings = ServerTls { identity: Arc::new(identity), clients: None };
    (certificate, super::server_config(&settings).unwrap())
}

const PING: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";

async fn answered(client: &mut TcpStream) {
    let mut answer = vec![0; 4096];
    let count = client.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..count]));
}

/// How long it is until the other side closes, in good order.
async fn closed(client: &mut TcpStream) -> u64 {
    let begun = Instant::now();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    begun.elapsed().as_secs()
}

fn blob() -> String {
    format!("/v2/a/blobs/sha256:{HEX}")
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_is_let_go_after_two_minutes() {
    here(async {
        let place = place(9, None).await;
        let mut silent = place.connect().await;
        let age = closed(&mut silent).await;
        assert!((119..125).contains(&age), "{age}");

        let mut kept = place.connect().await;
        for _ in 0..3 {
            sleep(seconds(115)).await;
            kept.write_all(PING).await.unwrap();
            answered(&mut kept).await;
        }
        let age = closed(&mut kept).await;
        assert!((119..125).contains(&age), "{age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut_off_after_half_a_minute() {
    here(async {
        let place = place(9, None).await;
        // The first of the kind, then one on a connection that was good before.
        for requests in [0, 1] {
            let mut client = place.connect().await;
            for _ in 0..requests {
                client.write_all(PING).await.unwrap();
                answered(&mut client).await;
            }
            sleep(seconds(60)).await;
            let begun = Instant::now();
            let (mut reading, mut writing) = client.into_split();
            let trickle = spawn_local(async move {
                while writing.write_all(b"G").await.is_ok() {
                    sleep(seconds(1)).await;
                }
            });
            let mut rest = Vec::new();
            // Closed with the newest byte unread it may be a reset.
            let _ = reading.read_to_end(&mut rest).await;
            let age = begun.elapsed().as_secs();
            assert!((29..40).contains(&age), "{age}");
            trickle.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_does_not_come_to_its_end_is_cut_off_too() {
    here(async {
        let place = place(9, None).await;
        let mut client = place.connect().await;
        client.write_all(b"PRI * HT").await.unwrap();
        let age = closed(&mut client).await;
        assert!((29..40).contains(&age), "{age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_a_response_is_cut_off_by_fin_after_five_minutes() {
    here(async {
        let place = place(9, None).await;
        let mut client = place.connect().await;
        client.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", blob()).as_bytes()).await.unwrap();
        answered(&mut client).await;
        sleep(seconds(280)).await;
        // It may take its time, as long as it takes something.
        let mut some = vec![0; 16 << 20];
        client.read_exact(&mut some).await.unwrap();
        sleep(seconds(280)).await;
        client.read_exact(&mut some).await.unwrap();
        sleep(seconds(320)).await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 16 << 20, "{}", rest.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_was_taken_slowly_is_whole() {
    here(async {
        let place = place(9, None).await;
        let mut client = place.connect().await;
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", blob());
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut piece, mut got) = (vec![0; 4 << 20], 0);
        loop {
            sleep(seconds(200)).await;
            let mut filled = 0;
            while filled < piece.len() {
                match client.read(&mut piece[filled..]).await.unwrap() {
                    0 => break,
                    count => filled += count,
                }
            }
            got += filled as u64;
            if filled < piece.len() {
                break;
            }
        }
        assert!((BLOB..BLOB + 2000).contains(&got), "{got}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http2_without_a_request_ends_after_five_minutes() {
    here(async {
        let place = place(9, None).await;
        let (mut requests, connection) = place.http2().await;
        let begun = Instant::now();
        let ping = Request::get("http://x/v2/").body(()).unwrap();
        let (response, _) = requests.send_request(ping, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        // With a request of its own it would be kept; the pings that it is asked by do not keep it.
        connection.await.unwrap().unwrap();
        let age = begun.elapsed().as_secs();
        assert!((299..310).contains(&age), "{age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_is_gone_without_a_word_is_found() {
    here(async {
        let place = place(9, None).await;
        let mut client = place.connect().await;
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        client.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await.unwrap();
        let age = closed(&mut client).await;
        assert!((79..90).contains(&age), "{age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http2_streams_that_take_nothing_end_their_connection_after_five_minutes() {
    here(async {
        let place = place(9, None).await;
        let (mut requests, connection) = place.http2().await;
        let begun = Instant::now();
        let request = Request::get(format!("http://x{}", blob())).body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        // The window is full with the first of it, and is not opened again. What it asks is answered meanwhile.
        body.data().await.unwrap().unwrap();
        let _ = connection.await.unwrap();
        let age = begun.elapsed().as_secs();
        assert!((299..310).contains(&age), "{age}");
        let mut ended = body.data().await;
        while let Some(Ok(_)) = ended {
            ended = body.data().await;
        }
        assert!(matches!(ended, Some(Err(_))), "the body must not seem whole");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_is_let_go_after_ten_seconds() {
    here(async {
        let place = place(9, Some(identity().1)).await;
        for hello in [&b""[..], b"\x16\x03\x01\x02\x00"] {
            let mut client = place.connect().await;
            client.write_all(hello).await.unwrap();
            let begun = Instant::now();
            let _ = client.read(&mut [0]).await;
            let age = begun.elapsed().as_secs();
            assert!((9..13).contains(&age), "{age}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_under_connections_that_go_on() {
    here(async {
        let ((first, one), (second, two)) = (identity(), identity());
        let place = place(9, Some(one)).await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates([first.clone(), second.clone()]);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let ping = async |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
            stream.write_all(PING).await.unwrap();
            let mut answer = [0; 4096];
            assert!(stream.read(&mut answer).await.unwrap() > 0);
            stream.get_ref().1.peer_certificates().unwrap()[0].clone()
        };
        let connect =
            async || connector.connect("localhost".try_into().unwrap(), place.connect().await).await.unwrap();
        let mut old = connect().await;
        assert_eq!(ping(&mut old).await, first);
        place.tls.store(Some(two));
        // Its ticket is of no use any more, either.
        assert_eq!(ping(&mut connect().await).await, second);
        assert_eq!(ping(&mut old).await, first);
        place.tls.store(None);
        let mut plain = place.connect().await;
        plain.write_all(PING).await.unwrap();
        answered(&mut plain).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_idle_makes_room_for_who_waits() {
    here(async {
        let place = place(2, None).await;
        let mut first = place.connect().await;
        first.write_all(PING).await.unwrap();
        answered(&mut first).await;
        let mut busy = place.connect().await;
        busy.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", blob()).as_bytes()).await.unwrap();
        answered(&mut busy).await;
        let begun = Instant::now();
        let mut third = place.connect().await;
        third.write_all(PING).await.unwrap();
        answered(&mut third).await;
        assert!(begun.elapsed() < seconds(10), "{:?}", begun.elapsed());
        assert_eq!(closed(&mut first).await, 0);
        // The one that was at work goes on.
        busy.read_exact(&mut vec![0; 32 << 20]).await.unwrap();
    })
    .await;
}
