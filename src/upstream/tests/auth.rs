//! Credentials: who gets them, and how often tokens are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn challenge(realm: &str) -> Reply {
    Reply::new(401).header(
        "WWW-Authenticate",
        format!(r#"Bearer realm="{realm}",service="me, myself",scope="repository:a/b:pull""#),
    )
}

fn authorization(request: &Request) -> Option<&str> {
    request.header("authorization")
}

/// Gives out `Bearer t1`, `Bearer t2` … to whoever asks; the second peer wants the one that was given last.
async fn token_service(delay: Duration) -> (Peer, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let peer = Peer::start(move |_, _| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200).body(format!(r#"{{"token":"t{n}","expires_in":300}}"#)).slow(delay)
    })
    .await;
    (peer, given)
}

#[tokio::test]
async fn one_token_is_asked_for_however_many_wait_and_then_sent_at_once() {
    let (tokens, given) = token_service(Duration::from_millis(50)).await;
    let realm = tokens.url("/token");
    let peer = Peer::start(move |_, request| match authorization(request) {
        Some("Bearer t1") => Reply::new(200).body(MANIFEST),
        _ => challenge(&realm),
    })
    .await;
    let upstream = registry(&peer);
    let pulls: Vec<_> = (0..20)
        .map(|_| {
            let upstream = Arc::clone(&upstream);
            tokio::spawn(async move { upstream.manifest(&repository(), &tag()).await.map(drop) })
        })
        .collect();
    for pull in pulls {
        pull.await.unwrap().unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 1);
    assert_eq!(peer.seen().len(), 40);
    assert_eq!(tokens.seen()[0].target, "/token?service=me%2C+myself&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!(authorization(&tokens.seen()[0]), None);
    upstream.manifest(&repository(), &tag()).await.unwrap();
    assert_eq!(peer.seen().len(), 41);
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_of_a_blob_is_renewed() {
    let (tokens, given) = token_service(Duration::ZERO).await;
    let realm = tokens.url("/token");
    let content = noise(3000);
    let all = content.clone();
    let served = AtomicUsize::new(0);
    let peer = Peer::start(move |_, request| {
        // Each token is good for one answer, which is cut.
        let good = format!("Bearer t{}", served.load(Ordering::SeqCst) + 1);
        if authorization(request) != Some(&good) {
            return challenge(&realm);
        }
        served.fetch_add(1, Ordering::SeqCst);
        Reply::content(request, &all).after(1000, Fault::Cut)
    })
    .await;
    let download = registry(&peer).blob(&repository(), &digest(&content), 0, Some(3000)).await.unwrap();
    assert_eq!(rest(download).await.unwrap(), content);
    assert_eq!(given.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_still_says_no_has_denied_and_tokens_are_not_asked_for_again_and_again() {
    let (tokens, given) = token_service(Duration::ZERO).await;
    let realm = tokens.url("/token");
    let peer = Peer::start(move |_, _| challenge(&realm)).await;
    let error = registry(&peer).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error}");
    assert!(error.to_string().starts_with(&peer.address.to_string()), "{error}");
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let forbidding = Peer::start(|_, _| Reply::new(403)).await;
    let error = registry(&forbidding).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { status: 403, .. }), "{error}");
}

#[tokio::test]
async fn a_token_service_gets_the_credentials_and_its_no_is_a_denial() {
    let tokens = Peer::start(|n, request| match (n, authorization(request)) {
        (0, Some(ME)) => Reply::new(200).body(r#"{"access_token":"t1"}"#),
        _ => Reply::new(401),
    })
    .await;
    let realm = tokens.url("/token");
    let peer = Peer::start(move |_, request| match authorization(request) {
        Some("Bearer t1") if !request.target.contains("other") => Reply::new(200).body(MANIFEST),
        _ => challenge(&realm),
    })
    .await;
    let upstream = upstream(&peer.url(""), me());
    upstream.manifest(&repository(), &tag()).await.unwrap();
    let error = upstream.manifest(&"other".parse().unwrap(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error}");
    assert!(error.to_string().contains("token service"), "{error}");
}

#[tokio::test]
async fn credentials_are_not_shown_to_a_token_service_elsewhere_that_plain_http_named() {
    for realm in ["http://localhost:1/token", "https://localhost:1/token"] {
        let peer = Peer::start(move |_, _| challenge(realm)).await;
        let error = upstream(&peer.url(""), me()).manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Refused { .. }), "{error}");
    }
}

#[tokio::test]
async fn basic_credentials_are_sent_when_wanted_and_from_then_on() {
    let peer = Peer::start(|_, request| match authorization(request) {
        Some(ME) => Reply::new(200).body(MANIFEST),
        _ => Reply::new(401)
            .header("WWW-Authenticate", "Negotiate")
            .header("WWW-Authenticate", "basic realm=x"),
    })
    .await;
    let upstream = upstream(&peer.url(""), me());
    for _ in 0..2 {
        upstream.manifest(&repository(), &tag()).await.unwrap();
    }
    assert_eq!(peer.seen().len(), 3);
    let error = registry(&peer).manifest(&repository(), &tag()).await.unwrap_err();
    assert!(error.to_string().contains("none are configured"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_tried_once() {
    let peer = Peer::start(|_, _| Reply::new(401).header("WWW-Authenticate", "Basic realm=x")).await;
    let upstream = upstream(&peer.url(""), me());
    for requests in [2, 3] {
        let error = upstream.manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error}");
        assert_eq!(peer.seen().len(), requests);
    }
}

#[tokio::test]
async fn a_configured_token_is_sent_as_it_is() {
    let peer = Peer::start(|_, request| match authorization(request) {
        Some("Bearer mine") => Reply::new(200).body(MANIFEST),
        _ => Reply::new(401),
    })
    .await;
    let with = |token: &str| upstream(&peer.url(""), Credentials::Token(Secret::new(token.to_owned())));
    with("mine").manifest(&repository(), &tag()).await.unwrap();
    assert_eq!(peer.seen().len(), 1);
    let error = with("wrong").manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error}");
}

#[tokio::test]
async fn a_token_service_that_talks_nonsense_is_an_error() {
    for nonsense in ["", "<html>", "[]", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":5}"#] {
        let tokens = Peer::start(move |_, _| Reply::new(200).body(nonsense)).await;
        let realm = tokens.url("/token");
        let peer = Peer::start(move |_, _| challenge(&realm)).await;
        let error = registry(&peer).manifest(&repository(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{nonsense}: {error}");
    }
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires() {
    let given = AtomicUsize::new(0);
    let tokens = Peer::start(move |_, _| {
        let n = given.fetch_add(1, Ordering::SeqCst) + 1;
        // The first one for a second, all others for minutes.
        let life = if n == 1 { 1 } else { 300 };
        Reply::new(200).body(format!(r#"{{"token":"t{n}","expires_in":{life}}}"#))
    })
    .await;
    let realm = tokens.url("/token");
    let peer = Peer::start(move |_, request| match authorization(request) {
        Some("Bearer t1" | "Bearer t2") => Reply::new(200).body(MANIFEST),
        _ => challenge(&realm),
    })
    .await;
    let upstream = registry(&peer);
    let pull = async || upstream.manifest(&repository(), &tag()).await.unwrap();
    pull().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    for _ in 0..2 {
        pull().await;
    }
    let sent: Vec<_> = peer.seen().iter().map(|request| authorization(request).map(str::to_owned)).collect();
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    // The old one is not shown again, the new one is shown at once.
    assert_eq!(sent, [None, bearer("t1"), None, bearer("t2"), bearer("t2")]);
    assert_eq!(tokens.seen().len(), 2);
}

#[tokio::test]
async fn a_token_service_that_stalls_once_is_asked_again() {
    let mut settings = settings(vec![]);
    settings.pull_timeout = Duration::from_secs(60);
    for stalled in ["in the headers", "in the body"] {
        let tokens = Peer::start(move |n, _| {
            let token = Reply::new(200).body(r#"{"token":"t"}"#);
            match (n, stalled) {
                (0, "in the body") => token.after(5, Fault::Stall),
                (0, _) => token.slow(Duration::from_secs(3600)),
                _ => token,
            }
        })
        .await;
        let realm = tokens.url("/token");
        let peer = Peer::start(move |_, request| match authorization(request) {
            Some("Bearer t") => Reply::new(200).body(MANIFEST),
            _ => challenge(&realm),
        })
        .await;
        settings.registries = vec![entry(&peer.url(""), Credentials::Anonymous)];
        let upstream = Upstreams::new(&settings, VIA).unwrap().get(&"registry.example".parse().unwrap());
        upstream.manifest(&repository(), &tag()).await.unwrap();
        assert_eq!(tokens.seen().len(), 2, "{stalled}");
    }
}
