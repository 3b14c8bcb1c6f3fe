//! Where requests may go: redirects and private places.

use std::sync::OnceLock;

use http::{HeaderValue, Method};

use super::*;
use crate::config::Unlisted;
use crate::upstream::address::Reach;
use crate::upstream::session::Session;
use crate::upstream::tls::Tls;
use crate::upstream::transport::{Ask, Proxies, Transport};

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_credentials_and_with_the_range() {
    let content = noise(1000);
    let all = content.clone();
    let storage = Peer::start(move |_, request| Reply::content(request, &all)).await;
    let location = storage.url("/bucket/x?signature=s3cret");
    let peer = Peer::start(move |_, _| Reply::redirect(&location)).await;
    let upstream = upstream(&peer.url(""), Credentials::Token(Secret::new("mine".to_owned())));
    let download = upstream.blob(&repository(), &digest(&content), 100, Some(1000)).await.unwrap();
    assert_eq!(rest(download).await.unwrap(), content[100..]);
    assert_eq!(peer.seen()[0].header("authorization"), Some("Bearer mine"));
    assert_eq!(storage.seen()[0].header("authorization"), None);
    assert_eq!(storage.seen()[0].header("range"), Some("bytes=100-999"));
}

#[tokio::test]
async fn another_host_cannot_ask_for_credentials_and_its_errors_show_no_signature() {
    let storage = Peer::start(|_, _| Reply::new(401).header("WWW-Authenticate", "Basic realm=x")).await;
    let location = storage.url("/bucket/x?signature=s3cret");
    let peer = Peer::start(move |_, _| Reply::redirect(&location)).await;
    let error = upstream(&peer.url(""), me()).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { .. }), "{error}");
    assert_eq!(storage.seen().len(), 1);
    let location = "http://127.0.0.1:1/bucket/x?signature=s3cret";
    let peer = Peer::start(move |_, _| Reply::redirect(location)).await;
    let error = upstream(&peer.url(""), me()).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn redirects_in_a_loop_or_without_end_are_given_up() {
    let same = Peer::start(|_, request| Reply::redirect(&request.target)).await;
    let endless = Peer::start(|n, _| Reply::redirect(format!("/{n}"))).await;
    for (peer, requests) in [(same, 1), (endless, 6)] {
        let error = registry(&peer).manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{error}");
        assert_eq!(peer.seen().len(), requests);
    }
}

#[tokio::test]
async fn a_redirect_to_a_metadata_service_is_refused_for_all() {
    let peer = Peer::start(|_, _| Reply::redirect("http://169.254.169.254/latest/meta-data/")).await;
    let error = registry(&peer).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("metadata"), "{error}");
}

#[tokio::test]
async fn an_unlisted_registry_on_a_private_address_is_refused() {
    let peer = Peer::start(|_, _| Reply::new(200)).await;
    let upstreams = Upstreams::new(&settings(Vec::new()), VIA).unwrap();
    let port = peer.address.port();
    let names = ["127.0.0.1", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost"];
    for name in names.map(|host| format!("{host}:{port}")) {
        let error = upstreams.get(&name.parse().unwrap()).manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Refused { .. }), "{name}: {error}");
    }
    assert!(peer.seen().is_empty());
}

#[tokio::test]
async fn where_all_are_allowed_only_metadata_services_are_refused() {
    let peer = Peer::start(|_, _| Reply::new(200)).await;
    let mut settings = settings(Vec::new());
    settings.access.unlisted = Unlisted::Allow;
    let upstreams = Upstreams::new(&settings, VIA).unwrap();
    let ask = async |name: String| {
        upstreams.get(&name.parse().unwrap()).manifest(&repository(), &tag()).await.unwrap_err()
    };
    // It is reached, and speaks no TLS.
    let error = ask(format!("127.0.0.1:{}", peer.address.port())).await;
    assert!(matches!(error, UpstreamError::Unavailable { .. }), "{error}");
    let error = ask("169.254.169.254".to_owned()).await;
    assert!(matches!(error, UpstreamError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_name_that_is_no_hosts_is_refused() {
    let upstreams = Upstreams::new(&settings(Vec::new()), VIA).unwrap();
    let upstream = upstreams.get(&"1.2.3.4.5".parse().unwrap());
    let error = upstream.manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused { .. }), "{error}");
}

/// A session with a registry that nobody configured and that resolves to the peer, as if that were public.
fn unlisted(peer: &Peer) -> Session {
    let transport = Transport {
        reach: Reach::Public,
        tls: Tls::default(),
        proxies: Arc::new(Proxies::new(&settings(Vec::new()).proxy).unwrap()),
        via: HeaderValue::from_static(VIA),
        silence: Duration::from_millis(300),
        direct: OnceLock::new(),
        proxied: OnceLock::new(),
    };
    let client = transport
        .builder()
        .tls_backend_preconfigured(transport.tls.client_config().unwrap())
        .no_proxy()
        .dns_resolver(Reach::Public)
        .resolve("public.example", peer.address)
        .build()
        .unwrap();
    transport.direct.set(client).ok().unwrap();
    let url = format!("http://public.example:{}", peer.address.port());
    Session::new(Arc::new(transport), url.parse().unwrap(), Credentials::Anonymous, Arc::default())
}

#[tokio::test]
async fn an_unlisted_registry_cannot_send_us_into_the_private_network() {
    let target = Peer::start(|_, _| Reply::new(200)).await;
    let port = target.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
    ] {
        let location = url.clone();
        let redirecting = Peer::start(move |_, _| Reply::redirect(&location)).await;
        let realm = url.clone();
        let challenging = Peer::start(move |_, _| {
            Reply::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
        })
        .await;
        for peer in [redirecting, challenging] {
            let session = unlisted(&peer);
            let mut ask = Ask::new(Method::GET, session.url(&repository(), "manifests", "1"));
            ask.by_digest = true;
            let error = session.ask_patiently(&repository(), &ask).await.err().unwrap();
            assert!(matches!(error, UpstreamError::Refused { .. }), "{url}: {error}");
            assert_eq!(peer.seen().len(), 1);
        }
    }
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn a_proxy_is_used_and_private_names_do_not_go_through_it() {
    let proxy = Peer::start(|_, _| Reply::new(200).body(MANIFEST)).await;
    let mut settings = settings(vec![entry("http://registry.example", Credentials::Anonymous)]);
    settings.proxy = Proxy::Explicit {
        url: Secret::new(format!("http://me:pass%3Aword@{}", proxy.address)),
        except: Vec::new(),
    };
    let upstreams = Upstreams::new(&settings, VIA).unwrap();
    let listed = upstreams.get(&"registry.example".parse().unwrap());
    listed.manifest(&repository(), &tag()).await.unwrap();
    let seen = proxy.seen();
    assert_eq!(seen[0].target, "http://registry.example/v2/a/b/manifests/1.0");
    assert_eq!(seen[0].header("proxy-authorization"), Some(ME));
    for name in ["intranet", "10.1:5000", "db.internal", "printer.local"] {
        let unlisted = upstreams.get(&name.parse().unwrap());
        let error = unlisted.manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Refused { .. }), "{name}: {error}");
    }
    assert_eq!(proxy.seen().len(), 1);
}
