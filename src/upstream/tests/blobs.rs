//! Blobs over a bad wire.

use super::*;

/// Serves `content`; the first requests fail as `faults` says, after so many bytes each.
async fn faulty(content: Vec<u8>, faults: Vec<(usize, Fault)>) -> Peer {
    Peer::start(move |n, request| {
        let reply = Reply::content(request, &content);
        match faults.get(n) {
            Some(&(bytes, fault)) => reply.after(bytes, fault),
            None => reply,
        }
    })
    .await
}

async fn open(peer: &Peer, content: &[u8], from: u64) -> Result<Download, UpstreamError> {
    let size = Some(content.len() as u64);
    registry(peer).blob(&repository(), &digest(content), from, size).await
}

fn ranges(peer: &Peer) -> Vec<Option<String>> {
    let range = |request: &Request| request.header("range").map(str::to_owned);
    peer.seen().iter().map(range).collect()
}

#[tokio::test]
async fn a_blob_comes_whole_with_one_request() {
    let content = noise(300_000);
    let peer = faulty(content.clone(), Vec::new()).await;
    let download = open(&peer, &content, 0).await.unwrap();
    assert_eq!((download.start(), download.size()), (0, Some(300_000)));
    assert_eq!(rest(download).await.unwrap(), content);
    let seen = peer.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, format!("/hub/v2/a/b/blobs/{}", digest(&content)));
    assert_eq!(seen[0].header("via"), Some(VIA));
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    assert!(seen[0].header("user-agent").unwrap().starts_with("ociregistry/"));
    assert_eq!(seen[0].header("range"), None);
}

#[tokio::test]
async fn cuts_stalls_and_resets_are_mended_from_the_byte_that_was_reached() {
    let content = noise(10_000);
    let faults = vec![
        (1000, Fault::Cut),
        (0, Fault::Cut),
        (2000, Fault::Stall),
        (3000, Fault::Reset),
        (1, Fault::Cut),
    ];
    let peer = faulty(content.clone(), faults).await;
    let download = open(&peer, &content, 0).await.unwrap();
    assert_eq!(rest(download).await.unwrap(), content);
    let part = |first: usize| Some(format!("bytes={first}-9999"));
    assert_eq!(ranges(&peer), [None, part(1000), part(1000), part(3000), part(6000), part(6001)]);
}

#[tokio::test]
async fn a_blob_of_unknown_size_is_resumed_too() {
    let content = noise(5000);
    let peer = faulty(content.clone(), vec![(1234, Fault::Cut)]).await;
    let download = registry(&peer).blob(&repository(), &digest(&content), 0, None).await.unwrap();
    assert_eq!(download.size(), Some(5000));
    assert_eq!(rest(download).await.unwrap(), content);

    let chunked = Peer::start(|n, _| {
        let reply = Reply::new(if n == 0 { 200 } else { 206 }).header("Transfer-Encoding", "chunked");
        match n {
            0 => reply.body("5\r\nhello\r\n").after(usize::MAX, Fault::Cut),
            _ => reply.header("Content-Range", "bytes 5-10/11").body("6\r\n world\r\n0\r\n\r\n"),
        }
    })
    .await;
    let download = registry(&chunked).blob(&repository(), &digest(b""), 0, None).await.unwrap();
    assert_eq!(download.size(), None);
    assert_eq!(rest(download).await.unwrap(), b"hello world");
    assert_eq!(ranges(&chunked), [None, Some("bytes=5-".to_owned())]);
}

#[tokio::test]
async fn a_dead_registry_is_given_up_after_a_time_without_a_byte() {
    let content = noise(1000);
    let peer = faulty(
        content.clone(),
        vec![(100, Fault::Cut); 1].into_iter().chain(vec![(0, Fault::Cut); 50]).collect(),
    )
    .await;
    let mut download = open(&peer, &content, 0).await.unwrap();
    download.patience = Duration::from_secs(1);
    let error = rest(download).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable { .. }), "{error}");
    // The pauses grow.
    assert!((3..=6).contains(&peer.seen().len()), "{}", peer.seen().len());
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_for_a_while_is_not_resumed_before() {
    let content = noise(1000);
    let all = content.clone();
    let since = Arc::new(std::sync::Mutex::new(Vec::new()));
    let asked = Arc::clone(&since);
    let peer = Peer::start(move |n, request| {
        asked.lock().unwrap().push(std::time::Instant::now());
        match n {
            0 => Reply::content(request, &all).after(100, Fault::Cut),
            1 => Reply::new(429).header("Retry-After", 2),
            _ => Reply::content(request, &all),
        }
    })
    .await;
    assert_eq!(rest(open(&peer, &content, 0).await.unwrap()).await.unwrap(), content);
    let asked = since.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked[2] - asked[1] >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_for_long_is() {
    let content = noise(1000);
    let all = content.clone();
    let peer = Peer::start(move |n, request| match n {
        0 => Reply::content(request, &all).after(100, Fault::Cut),
        _ => Reply::new(429).header("Retry-After", 3600),
    })
    .await;
    let error = rest(open(&peer, &content, 0).await.unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("rate limit"), "{error}");
    assert_eq!(peer.seen().len(), 2);
}

#[tokio::test]
async fn a_download_goes_on_after_its_reader_was_interrupted() {
    let content = noise(50_000);
    let peer = faulty(content.clone(), vec![(20_000, Fault::Stall), (100, Fault::Cut)]).await;
    let mut download = open(&peer, &content, 0).await.unwrap();
    let mut whole = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(7), download.chunk()).await {
            Ok(Ok(Some(bytes))) => whole.extend_from_slice(&bytes),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => {}
        }
    }
    assert_eq!(whole, content);
}

#[tokio::test]
async fn a_download_begins_where_it_is_told_to() {
    let content = noise(1000);
    let peer = faulty(content.clone(), Vec::new()).await;
    let download = open(&peer, &content, 400).await.unwrap();
    assert_eq!((download.start(), download.size()), (400, Some(1000)));
    assert_eq!(rest(download).await.unwrap(), content[400..]);
    let nothing = open(&peer, &content, 1000).await.unwrap();
    assert_eq!(rest(nothing).await.unwrap(), b"");
    assert_eq!(ranges(&peer), [Some("bytes=400-999".to_owned())]);
}

#[tokio::test]
async fn an_empty_blob_is_one() {
    let peer = faulty(Vec::new(), Vec::new()).await;
    assert_eq!(rest(open(&peer, b"", 0).await.unwrap()).await.unwrap(), b"");
}

#[tokio::test]
async fn a_whole_blob_in_place_of_a_part_is_told() {
    let content = noise(3 << 20);
    let all = content.clone();
    let peer = Peer::start(move |_, _| Reply::new(200).body(&all[..])).await;
    let download = open(&peer, &content, 2 << 20).await.unwrap();
    assert_eq!(download.start(), 0);
    assert_eq!(rest(download).await.unwrap(), content);
    let upstream = registry(&peer);
    let near = upstream.range(&repository(), &digest(&content), 10, 19).await.unwrap();
    assert_eq!(near.start(), 10);
    assert_eq!(rest(near).await.unwrap(), content[10..20]);
    let far = upstream.range(&repository(), &digest(&content), 2 << 20, 3 << 20).await;
    assert!(matches!(far, Err(UpstreamError::Invalid { .. })));
}

#[tokio::test]
async fn a_resume_that_is_answered_with_the_whole_is_read_up_to_where_we_were() {
    let content = noise(5000);
    let all = content.clone();
    let peer = Peer::start(move |n, _| {
        let reply = Reply::new(200).body(&all[..]);
        if n < 3 { reply.after(1000 * (n + 1), Fault::Cut) } else { reply }
    })
    .await;
    let download = open(&peer, &content, 0).await.unwrap();
    assert_eq!(rest(download).await.unwrap(), content);
}

#[tokio::test]
async fn a_range_is_read_and_mended_within_its_bounds() {
    let content = noise(5000);
    let peer = faulty(content.clone(), vec![(10, Fault::Cut)]).await;
    let upstream = registry(&peer);
    let range = upstream.range(&repository(), &digest(&content), 100, 199).await.unwrap();
    assert_eq!((range.start(), range.size()), (100, Some(5000)));
    assert_eq!(rest(range).await.unwrap(), content[100..200]);
    assert_eq!(ranges(&peer), [Some("bytes=100-199".to_owned()), Some("bytes=110-199".to_owned())]);
    let tail = upstream.range(&repository(), &digest(&content), 4990, 9999).await.unwrap();
    assert_eq!(rest(tail).await.unwrap(), content[4990..]);
}

#[tokio::test]
async fn lengths_that_are_not_the_descriptors_are_refused() {
    for told in [999, 1001] {
        let peer = Peer::start(move |_, _| Reply::new(200).body(noise(told))).await;
        let error = open(&peer, &noise(1000), 0).await.err().unwrap();
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{error}");
    }
    for part in
        ["bytes 400-999/1001", "bytes 401-999/1000", "bytes 400-998/1000", "nonsense", "bytes 400-1000/1000"]
    {
        let peer =
            Peer::start(move |_, _| Reply::new(206).header("Content-Range", part).body(noise(600))).await;
        let error = open(&peer, &noise(1000), 400).await.err().unwrap();
        assert!(matches!(error, UpstreamError::Invalid { .. }), "{part}: {error}");
    }
}

#[tokio::test]
async fn more_than_was_promised_is_not_handed_on() {
    let content = noise(1000);
    let peer = Peer::start(|_, _| {
        let mut body = b"5dc\r\n".to_vec();
        body.extend(noise(1500));
        body.extend(b"\r\n0\r\n\r\n");
        Reply::new(200).header("Transfer-Encoding", "chunked").body(body)
    })
    .await;
    assert_eq!(rest(open(&peer, &content, 0).await.unwrap()).await.unwrap(), content);
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let peer = Peer::start(|_, _| Reply::new(200).header("Content-Encoding", "gzip").body(noise(1000))).await;
    let error = open(&peer, &noise(1000), 0).await.err().unwrap();
    assert!(matches!(error, UpstreamError::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn the_size_of_a_blob_can_be_asked_for() {
    let peer = Peer::start(|_, _| Reply::new(200).header("Content-Length", 1_u64 << 40)).await;
    let size = registry(&peer).blob_size(&repository(), &digest(b"")).await.unwrap();
    assert_eq!(size, Some(1 << 40));
    assert_eq!(peer.seen()[0].method, "HEAD");
}
