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
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::connection::Common;
use super::{Listener, Responder, server};
use crate::config::{Configuration, ServerTls};
use crate::pull::Pull;
use crate::store::Store;
use crate::upstream::Upstreams;

/// More than the sockets' buffers hold.
const BLOB: u64 = 64 << 20;
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

type Requests = h2::client::SendRequest<Bytes>;

/// A thread's work on this one, with an empty cache but for one blob of zeros.
struct Place {
    address: SocketAddr,
    tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    /// The one for pulls, which has a clock of its own: what it works on would stop the one of the tests.
    runtime: Option<Runtime>,
    _folder: TempDir,
    _shut_down: watch::Sender<bool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn place(places: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Place {
    placed(places, places, "air_gapped = true", tls).await
}

/// With room for so many connections, and for so many requests of HTTP/2 at once.
async fn placed(
    connections: usize,
    streams: usize,
    keys: &str,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("image_path = {images:?}\n{keys}")).unwrap();
    let settings = Configuration::load(Some(&file), &[]).unwrap().settings;
    let store = Arc::new(Store::open(&images).unwrap());
    std::fs::File::create(images.join("blobs").join(HEX)).unwrap().set_len(BLOB).unwrap();
    let upstreams = Upstreams::new(&settings, "1.1 tests").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pull = Pull::new(settings.clone(), store, upstreams, runtime.handle().clone());
    let responder = Arc::new(Responder::new(pull, &settings, Vec::new(), "tests".to_owned()));

    let tls = Arc::new(ArcSwapOption::new(tls));
    let common = Common { responder, tls: tls.clone(), streams: Arc::new(Semaphore::new(streams)) };
    let listener = Listener::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.address().unwrap();
    let (shut_down, shutdown) = watch::channel(false);
    let room = Arc::new(Semaphore::new(connections));
    let (sender, mut admitted) = mpsc::channel(1);
    let (dealt, incoming) = mpsc::unbounded_channel();
    spawn_local(server::accept(listener.into_async().unwrap(), room.clone(), sender, shutdown.clone()));
    spawn_local(async move {
        while let Some(connection) = admitted.recv().await {
            let _ = dealt.send(connection);
        }
    });
    spawn_local(server::serve(incoming, common, room, shutdown));
    Place { address, tls, runtime: Some(runtime), _folder: folder, _shut_down: shut_down }
}

/// Runs a test beside what it tests.
async fn here<R>(test: impl Future<Output = R>) -> R {
    LocalSet::new().run_until(test).await
}

/// Awaits what other threads have a part in, for which the clock would not wait.
async fn in_real_time<R>(work: impl Future<Output = R>) -> R {
    tokio::time::resume();
    let done = work.await;
    tokio::time::pause();
    done
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
    async fn http2(&self) -> (Requests, tokio::task::JoinHandle<Result<(), h2::Error>>) {
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

/// A response of HTTP/2 of which nothing is taken.
async fn stalled(requests: &mut Requests) -> h2::RecvStream {
    in_real_time(async {
        let mut body = asked(requests, &blob()).await.unwrap();
        // The window is full with the first of it, and is not opened again.
        body.data().await.unwrap().unwrap();
        body
    })
    .await
}

/// The body of an answer with 200, or another status.
async fn asked(requests: &mut Requests, target: &str) -> Result<h2::RecvStream, u16> {
    let request = Request::get(format!("http://x{target}")).body(()).unwrap();
    let response = requests.send_request(request, true).unwrap().0;
    let response = timeout(seconds(60), response).await.unwrap().unwrap();
    match response.status().as_u16() {
        200 => Ok(response.into_body()),
        other => Err(other),
    }
}

/// Waits until a body ends early.
async fn cut_off(mut body: h2::RecvStream) {
    let mut ended = body.data().await;
    while let Some(Ok(_)) = ended {
        ended = body.data().await;
    }
    let error = ended.expect("the body must not seem whole").unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
}

/// An upstream that begins a blob and then says nothing more, for ever.
async fn silent_upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    spawn_local(async move {
        let mut kept = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BLOB}\r\n\r\n");
            let _ = client.write_all(&[head.as_bytes(), &vec![0; 2 << 20]].concat()).await;
            kept.push(client);
        }
    });
    format!("pull_timeout = \"1d\"\n[[registries]]\nname = \"docker.io\"\nurl = \"{url}\"\n")
}

/// What the silent upstream has.
fn endless() -> String {
    format!("/v2/a/blobs/sha256:{}", HEX.replace('0', "f"))
}

#[tokio::test(start_paused = true)]
async fn a_response_over_http2_that_is_not_taken_is_reset_after_five_minutes_whatever_goes_on_beside_it() {
    here(async {
        let place = placed(9, 9, &silent_upstream().await, None).await;
        let (mut requests, connection) = place.http2().await;
        let [mut waiting, mut active] = in_real_time(async {
            [asked(&mut requests, &endless()).await.unwrap(), asked(&mut requests, &blob()).await.unwrap()]
        })
        .await;
        let (begun, stalled) = (Instant::now(), stalled(&mut requests).await);
        let stalled = spawn_local(async move {
            cut_off(stalled).await;
            begun.elapsed().as_secs()
        });
        let waiting = spawn_local(async move {
            let mut got = 0;
            while let Some(Ok(data)) = waiting.data().await {
                got += data.len() as u64;
                waiting.flow_control().release_capacity(data.len()).unwrap();
            }
            got
        });
        for _ in 0..8 {
            // One takes little, and others come.
            in_real_time(async {
                let mut taken = 0;
                while taken < 256 << 10 {
                    let data = active.data().await.unwrap().unwrap();
                    taken += data.len();
                    active.flow_control().release_capacity(data.len()).unwrap();
                }
                drop(asked(&mut requests, "/v2/").await.unwrap());
            })
            .await;
            sleep(seconds(50)).await;
        }
        let age = timeout(seconds(1), stalled).await.unwrap().unwrap();
        assert!((299..310).contains(&age), "{age}");
        assert!(!waiting.is_finished());
        drop((active, requests));
        waiting.abort();
        let _ = waiting.await;
        connection.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_over_http2_keeps_others_out_for_a_minute_at_most() {
    here(async {
        let place = placed(9, 2, "air_gapped = true", None).await;
        let (mut hog, _connection) = place.http2().await;
        let bodies = [stalled(&mut hog).await, stalled(&mut hog).await];
        let begun = Instant::now();
        let (mut requests, _connection) = place.http2().await;
        assert_eq!(asked(&mut requests, "/v2/").await.unwrap_err(), 503);
        let waited = begun.elapsed().as_secs();
        assert!((4..7).contains(&waited), "{waited}");
        let mut old = place.connect().await;
        old.write_all(PING).await.unwrap();
        answered(&mut old).await;
        loop {
            // Its own requests that wait do not help it.
            let more = async { asked(&mut hog, "/v2/").await.is_ok() };
            if tokio::join!(more, async { asked(&mut requests, "/v2/").await.is_ok() }).1 {
                break;
            }
            assert!(begun.elapsed() < seconds(70));
        }
        let age = begun.elapsed().as_secs();
        assert!((50..70).contains(&age), "{age}");
        for body in bodies {
            cut_off(body).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_takes_no_place() {
    here(async {
        let keys = "air_gapped = true\nclients = [\"192.0.2.0/24\"]";
        let place = placed(9, 0, keys, None).await;
        let begun = Instant::now();
        let (mut requests, _connection) = place.http2().await;
        assert_eq!(asked(&mut requests, &blob()).await.unwrap_err(), 403);
        assert!(begun.elapsed() < seconds(1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_has_closed_its_half_gets_all_of_the_answer() {
    here(async {
        let place = place(9, None).await;
        let mut client = place.connect().await;
        client.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", blob()).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let begun = Instant::now();
        let mut piece = vec![0; 1 << 20];
        let mut got = client.read(&mut piece).await.unwrap() as u64;
        // What is written has to wait.
        sleep(seconds(100)).await;
        loop {
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                count => got += count as u64,
            }
        }
        assert!((BLOB..BLOB + 2000).contains(&got), "{got}");
        let age = begun.elapsed().as_secs();
        assert!(age < 110, "it is not kept for another request: {age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_may_wait_and_one_that_may_be_gone_for_half_a_minute() {
    here(async {
        let place = placed(9, 9, &silent_upstream().await, None).await;
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", endless());
        let mut client = place.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        in_real_time(client.read_exact(&mut vec![0; 2 << 20])).await.unwrap();
        sleep(seconds(1000)).await;
        let mut rest = Vec::new();
        let more = timeout(seconds(100), client.read_to_end(&mut rest)).await;
        assert!(more.is_err(), "{more:?}");
        client.shutdown().await.unwrap();
        let age = closed(&mut client).await;
        assert!((29..40).contains(&age), "{age}");
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
