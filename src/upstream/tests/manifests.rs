//! Manifests, and what else may come in their place.

use super::*;
use crate::oci::MAX_MANIFEST;

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> Reply {
    Reply::new(200).header("Content-Type", OCI_IMAGE).body(MANIFEST)
}

async fn fetch(
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (Result<Digest, UpstreamError>, usize) {
    let peer = Peer::start(move |n, _| reply(n)).await;
    let fetched = registry(&peer).manifest(&repository(), &tag()).await;
    (fetched.map(|fetched| fetched.digest), peer.seen().len())
}

fn is_invalid(result: &Result<Digest, UpstreamError>) -> bool {
    matches!(result, Err(UpstreamError::Invalid { .. }))
}

#[tokio::test]
async fn a_manifest_comes_with_its_digest_and_type() {
    let sha512 = Digest::of(Algorithm::Sha512, MANIFEST);
    let peer = Peer::start(move |n, _| match n {
        0 => manifest(),
        1 => manifest().header("Docker-Content-Digest", sha512),
        _ => manifest().header("Docker-Content-Digest", "sha256:nonsense"),
    })
    .await;
    let upstream = registry(&peer);
    for expected in [digest(MANIFEST), sha512, digest(MANIFEST)] {
        let fetched = upstream.manifest(&repository(), &tag()).await.unwrap();
        assert_eq!(fetched.digest, expected);
        assert_eq!(fetched.manifest.media_type.as_str(), OCI_IMAGE);
        assert_eq!(&fetched.bytes[..], MANIFEST);
    }
    let seen = peer.seen();
    assert_eq!(seen[0].target, "/hub/v2/a/b/manifests/1.0");
    assert_eq!(seen[0].header("accept"), Some(crate::oci::ACCEPT));
}

#[tokio::test]
async fn the_head_of_a_tag_tells_what_it_can() {
    let told = digest(MANIFEST);
    let peer = Peer::start(move |n, _| match n {
        0 => manifest().header("Docker-Content-Digest", told),
        1 => Reply::new(200).header("Docker-Content-Digest", "nonsense"),
        2 => Reply::new(404),
        3 => Reply::new(503),
        _ => Reply::new(200).slow(Duration::from_secs(5)),
    })
    .await;
    let upstream = registry(&peer);
    let head = || async { upstream.head(&repository(), &tag(), Duration::from_millis(100)).await };
    let full = head().await.unwrap();
    assert_eq!((full.digest, full.size), (Some(told), Some(MANIFEST.len() as u64)));
    assert_eq!(full.media_type.unwrap().as_str(), OCI_IMAGE);
    let poor = head().await.unwrap();
    assert!(poor.digest.is_none() && poor.media_type.is_none());
    assert!(matches!(head().await, Err(UpstreamError::NotFound { .. })));
    assert!(matches!(head().await, Err(UpstreamError::Unavailable { .. })));
    assert!(matches!(head().await, Err(UpstreamError::Unavailable { .. })));
    assert_eq!(peer.seen().len(), 5);
}

#[tokio::test]
async fn other_bytes_than_the_digests_are_asked_for_once_more() {
    let mended = fetch(|n| {
        manifest().header("Docker-Content-Digest", digest(if n == 0 { b"else" } else { MANIFEST }))
    })
    .await;
    assert_eq!((mended.0.unwrap(), mended.1), (digest(MANIFEST), 2));
    let (wrong, requests) = fetch(|_| manifest().header("Docker-Content-Digest", digest(b"else"))).await;
    assert!(is_invalid(&wrong) && requests == 2);
    let peer = Peer::start(|_, _| manifest()).await;
    let by_digest = registry(&peer).manifest(&repository(), &Reference::Digest(digest(b"else"))).await;
    assert!(matches!(by_digest, Err(UpstreamError::Invalid { .. })));
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_at_once() {
    let page = |_| Reply::new(200).header("Content-Type", "text/html; charset=utf-8").body("<html>");
    let list = |_| Reply::new(200).body("[null,null,null,null,null]");
    let broken = |_| Reply::new(200).body(r#"{"manifests": 5"#);
    let large = |_| Reply::new(200).body(vec![b' '; MAX_MANIFEST + 1]);
    let lying = |_| {
        let mut body = format!("{:x}\r\n", MAX_MANIFEST + 1).into_bytes();
        body.resize(body.len() + MAX_MANIFEST + 1, b' ');
        Reply::new(200).header("Transfer-Encoding", "chunked").body(body)
    };
    let part = |_| Reply::new(206).body(MANIFEST);
    let teapot = |_| Reply::new(418);
    for (result, requests) in [
        fetch(page).await,
        fetch(list).await,
        fetch(broken).await,
        fetch(large).await,
        fetch(lying).await,
        fetch(part).await,
        fetch(teapot).await,
    ] {
        assert!(is_invalid(&result) && requests == 1, "{result:?} after {requests}");
    }
}

#[tokio::test]
async fn headers_that_are_none_are_an_error() {
    let (malformed, _) = fetch(|_| Reply::new(200).header("Bad name", "x").body(MANIFEST)).await;
    assert!(is_invalid(&malformed), "{malformed:?}");
    let (giant, _) = fetch(|_| Reply::new(200).header("X", "x".repeat(1 << 20)).body(MANIFEST)).await;
    assert!(is_invalid(&giant), "{giant:?}");
    let (many, _) = fetch(|_| (0..2000).fold(manifest(), |reply, n| reply.header("X", n))).await;
    assert!(is_invalid(&many), "{many:?}");
}

#[tokio::test]
async fn passing_trouble_is_sat_out() {
    let (fetched, requests) = fetch(|n| if n == 0 { Reply::new(500) } else { manifest() }).await;
    assert_eq!((fetched.unwrap(), requests), (digest(MANIFEST), 2));
    let (fetched, requests) =
        fetch(|n| if n == 0 { manifest().after(5, Fault::Cut) } else { manifest() }).await;
    assert_eq!((fetched.unwrap(), requests), (digest(MANIFEST), 2));
    let (fetched, requests) =
        fetch(|n| if n == 0 { manifest().after(5, Fault::Stall) } else { manifest() }).await;
    assert_eq!((fetched.unwrap(), requests), (digest(MANIFEST), 2));
    let (fetched, requests) =
        fetch(|n| if n == 0 { Reply::new(429).header("Retry-After", 0) } else { manifest() }).await;
    assert_eq!((fetched.unwrap(), requests), (digest(MANIFEST), 2));
}

#[tokio::test]
async fn lasting_trouble_is_told_after_three_attempts() {
    let (limited, requests) = fetch(|_| Reply::new(429).header("Retry-After", 0)).await;
    let error = limited.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable { .. }));
    assert!(error.to_string().contains("rate limit"), "{error}");
    assert_eq!(requests, 3);
    let (missing, requests) = fetch(|_| Reply::new(404)).await;
    assert!(matches!(missing, Err(UpstreamError::NotFound { .. })));
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let error = upstream("http://127.0.0.1:1", Credentials::Anonymous)
        .manifest(&repository(), &tag())
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable { .. }));
    assert!(error.to_string().starts_with("127.0.0.1:1: cannot connect: "), "{error}");
}
