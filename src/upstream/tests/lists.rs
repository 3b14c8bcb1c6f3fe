//! Lists in pages, and where the next page is said to be.

use super::*;
use crate::oci::tags_of;

/// All pages of the tags that `answer` serves, or why not, and the requests it took.
async fn all(
    answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
) -> (Result<Vec<String>, UpstreamError>, Vec<String>) {
    let peer = Peer::start(answer).await;
    let collect = async {
        let mut pages = registry(&peer).tags(&repository())?;
        pages.most = 50;
        let mut tags = Vec::new();
        while let Some(page) = pages.next().await? {
            tags.extend(tags_of(&page).unwrap().iter().map(ToString::to_string));
        }
        Ok(tags)
    };
    (collect.await, peer.seen().into_iter().map(|request| request.target).collect())
}

fn page(tags: &str, link: &str) -> Reply {
    let reply = Reply::new(200).body(format!(r#"{{"tags":[{tags}]}}"#));
    if link.is_empty() { reply } else { reply.header("Link", link) }
}

#[tokio::test]
async fn pages_are_asked_for_where_the_last_one_said() {
    let (tags, seen) = all(|n, _| match n {
        0 => page(r#""a","b""#, r#"<?next_page=x%2Fy%3D>; rel="next""#),
        1 => page(r#""c""#, r#"</v2/a/b/tags/list?last=c>; rel=next"#).header("Link", "</>; rel=prev"),
        _ => page("", ""),
    })
    .await;
    assert_eq!(tags.unwrap(), ["a", "b", "c"]);
    assert_eq!(
        seen,
        [
            "/hub/v2/a/b/tags/list?n=1000",
            "/hub/v2/a/b/tags/list?next_page=x%2Fy%3D",
            "/hub/v2/a/b/tags/list?last=c"
        ]
    );
}

#[tokio::test]
async fn a_registry_that_refuses_a_long_page_is_asked_for_its_own() {
    let (tags, seen) =
        all(
            |_, request| if request.target.contains("n=1000") { Reply::new(400) } else { page(r#""a""#, "") },
        )
        .await;
    assert_eq!((tags.unwrap(), seen.len()), (vec!["a".to_owned()], 2));
}

#[tokio::test]
async fn passing_trouble_on_any_page_is_sat_out() {
    let (tags, seen) = all(|n, _| match n {
        0 | 2 => Reply::new(503),
        1 => page(r#""a""#, "<?last=a>; rel=next"),
        _ => page(r#""b""#, ""),
    })
    .await;
    assert_eq!((tags.unwrap(), seen.len()), (vec!["a".to_owned(), "b".to_owned()], 4));
}

#[tokio::test]
async fn a_next_page_that_cannot_be_had_is_an_error_and_no_end() {
    for (link, answer, requests) in [
        ("<http://other.example/v2/a/b/tags/list>; rel=next", page("", ""), 1),
        ("<ftp://127.0.0.1/>; rel=next", page("", ""), 1),
        ("<?n=1000>; rel=next", page("", ""), 1),
        ("<?last=a>; rel=next", Reply::new(404), 2),
        ("<?last=a>; rel=next", Reply::new(200).header("Content-Type", "text/html").body("<html>"), 2),
        ("<?last=a>; rel=next", Reply::new(206).body("{}"), 2),
    ] {
        let (tags, seen) = all(move |n, _| if n == 0 { page(r#""a""#, link) } else { answer.clone() }).await;
        assert!(matches!(tags, Err(UpstreamError::Invalid { .. })), "{link}: {tags:?}");
        assert_eq!(seen.len(), requests, "{link}");
    }
}

#[tokio::test]
async fn pages_without_end_end() {
    let (tags, seen) = all(|n, _| page("", &format!("<?last={n}>; rel=next"))).await;
    let error = tags.unwrap_err().to_string();
    assert!(error.contains("50 pages"), "{error}");
    assert_eq!(seen.len(), 50);
    let megabyte = format!(r#""{}""#, "x".repeat(1 << 20));
    let (tags, seen) = all(move |n, _| page(&megabyte, &format!("<?last={n}>; rel=next"))).await;
    assert!(matches!(tags, Err(UpstreamError::Invalid { .. })), "{tags:?}");
    assert_eq!(seen.len(), 16);
}

#[tokio::test]
async fn a_registry_without_the_referrers_api_says_so_at_once() {
    let peer = Peer::start(|n, _| Reply::new([404, 405, 400, 501][n])).await;
    for _ in 0..4 {
        let mut pages = registry(&peer).referrers(&repository(), &digest(MANIFEST)).unwrap();
        let error = pages.next().await.unwrap_err();
        assert!(matches!(error, UpstreamError::NotFound { .. } | UpstreamError::Invalid { .. }), "{error}");
    }
    let seen = peer.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].target, format!("/hub/v2/a/b/referrers/{}", digest(MANIFEST)));
    assert_eq!(seen[0].header("accept"), Some("application/vnd.oci.image.index.v1+json"));
}
