//! Lists of tags: the same as upstream's, page by page, however upstream pages, and when it is not there.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::client::{Response, get};
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::eventually;
use support::registry::Registry;
use support::runtimes::Skopeo;
use support::upstream::lists::{Link, Lists, N};
use support::upstream::{Fault, Upstream};

const LIST: &str = "/v2/team/app/tags/list?ns=docker.io";

/// An upstream with so many tags, in its own order.
fn upstream(count: usize) -> (Vec<String>, Upstream) {
    let mut layout = Layout::of("team/app", "", &Image::small(1));
    let repository = layout.0.get_mut("team/app").unwrap();
    let digest = repository.manifests.keys().next().unwrap().clone();
    repository.tags = (0..count).map(|n| (format!("v{n:04}"), digest.clone())).collect();
    (repository.tags.keys().cloned().collect(), Upstream::start(layout))
}

fn tags(response: &Response) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    serde_json::from_value(json["tags"].clone()).unwrap()
}

/// Where the next page is; an absolute path, as all clients understand it.
fn next(response: &Response) -> Option<String> {
    let link = response.header("link")?;
    let target = link.strip_prefix('<').unwrap().strip_suffix(r#">; rel="next""#).unwrap();
    assert!(target.starts_with('/') && !target.starts_with("//"), "{link}");
    Some(target.to_owned())
}

/// All tags from `target` on, following nothing but the links, on one connection; and how many pages they were on.
fn paged(addr: SocketAddr, target: &str) -> (Vec<String>, usize) {
    let host = addr.to_string();
    let mut connection = support::client::connect(addr);
    let (mut all, mut pages, mut target) = (vec![], 0, Some(target.to_owned()));
    while let Some(here) = target {
        let response;
        (response, connection) = get(&here).open_on(connection, &host).whole_and_connection();
        let response = response.is(200);
        all.extend(tags(&response));
        pages += 1;
        target = next(&response);
    }
    (all, pages)
}

fn refused(response: Response, status: u16, code: &str) {
    let response = response.refuses(status, code);
    assert_eq!(response.header("www-authenticate"), None);
}

#[test]
fn a_thousand_pages_are_those_of_a_real_registry_and_stay_when_it_is_gone() {
    needs!("docker-registry");
    let mut registry = Registry::plain();
    let image = Image::small(1);
    registry.push("team/app", "v0", &image);
    for n in 1..1000 {
        registry.tag("team/app", &format!("v{n}"), &image.manifest);
    }
    let theirs = get("/v2/team/app/tags/list").http10().send(registry.addr).is(200);
    assert_eq!(tags(&theirs).len(), 1000);
    let mut daemon = Daemon::configured(&format!("tag_ttl = 0\n{}", registry.entry("registry.k8s.io")));
    let ours = daemon.get("/v2/team/app/tags/list?ns=registry.k8s.io").is(200);
    assert_eq!(ours.header("content-type"), Some("application/json"));
    let json = |response: &Response| serde_json::from_slice::<serde_json::Value>(&response.body).unwrap();
    assert_eq!(json(&ours), json(&theirs));

    let all_pages = |daemon: &Daemon| {
        let all = paged(daemon.addr, "/v2/team/app/tags/list?n=1&ns=registry.k8s.io");
        assert_eq!(all, (tags(&theirs), 1000));
        let all = paged(daemon.addr, "/v2/registry.k8s.io/team/app/tags/list?n=300");
        assert_eq!(all, (tags(&theirs), 4));
    };
    all_pages(&daemon);
    registry.stop();
    all_pages(&daemon);
    daemon.restart();
    all_pages(&daemon);
    let stale = daemon.get("/v2/team/app/tags/list?ns=registry.k8s.io").is(200);
    assert!(stale.header("age").is_some_and(|age| age.parse::<u64>().is_ok()));
    assert_eq!(json(&stale), json(&theirs));
}

#[test]
fn skopeo_lists_page_by_page() {
    needs!("skopeo");
    let (all, upstream) = upstream(30);
    upstream.set_lists(Lists { most: 7, link: Link::Token, ..Lists::default() });
    let daemon = Daemon::of(&upstream);
    let listed = Skopeo::new().list_tags(&format!("{}/docker.io/team/app", daemon.addr));
    assert_eq!(listed["Tags"], json!(all));
}

#[test]
fn a_link_leads_back_here_to_the_same_registry() {
    let (all, upstream) = upstream(9);
    let daemon = Daemon::of(&upstream);
    for (target, link) in [
        ("/v2/team/app/tags/list?n=4", "/v2/team/app/tags/list?n=4&last=v0003"),
        (
            "/v2/team/app/tags/list?ns=reg.example%3A5000&n=4",
            "/v2/team/app/tags/list?n=4&last=v0003&ns=reg.example%3A5000",
        ),
        (
            "/v2/reg.example:5000/team/app/tags/list?n=4",
            "/v2/reg.example:5000/team/app/tags/list?n=4&last=v0003",
        ),
        ("/team/app/tags/list?n=4&ns=docker.io", "/team/app/tags/list?n=4&last=v0003&ns=docker.io"),
    ] {
        assert_eq!(next(&daemon.get(target).is(200)).as_deref(), Some(link));
        assert_eq!(paged(daemon.addr, target), (all.clone(), 3));
    }
    let named = get("/v2/team/app/tags/list?n=4").header("X-Registry", "reg.example:5000");
    let link = next(&daemon.send(named).is(200)).unwrap();
    assert_eq!(link, "/v2/team/app/tags/list?n=4&last=v0003&ns=reg.example%3A5000");
    assert_eq!(tags(&daemon.get(&link).is(200)), all[4..8]);
}

#[test]
fn the_name_is_the_one_that_was_asked_for() {
    let (_, upstream) = upstream(1);
    let daemon = Daemon::of(&upstream);
    for (target, name) in [(LIST, "team/app"), ("/v2/docker.io/team/app/tags/list", "docker.io/team/app")] {
        let json: serde_json::Value = serde_json::from_slice(&daemon.get(target).is(200).body).unwrap();
        assert_eq!(json, json!({"name": name, "tags": ["v0000"]}));
    }
}

#[test]
fn upstreams_pages_are_followed_however_they_are_linked() {
    let styles = |upstream: &Upstream| {
        [Link::Path, Link::Query, Link::Absolute, Link::Token, Link::At(upstream.url())]
    };
    let (all, upstream) = upstream(100);
    for link in styles(&upstream) {
        upstream.set_lists(Lists { most: 7, link: link.clone(), ..Lists::default() });
        upstream.forget();
        let daemon = Daemon::of(&upstream);
        assert_eq!(tags(&daemon.get(LIST).is(200)), all, "{link:?}");
        assert_eq!(paged(daemon.addr, &format!("{LIST}&n=9")), (all.clone(), 12), "{link:?}");
        assert_eq!(upstream.count("GET", "/tags/list"), 15, "{link:?}");
    }
}

#[test]
fn a_thousand_pages_of_upstreams_are_one_list() {
    let (all, mut upstream) = upstream(1000);
    upstream.set_lists(Lists { most: 1, ..Lists::default() });
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    assert_eq!(paged(daemon.addr, LIST).0, all);
    assert_eq!(upstream.count("GET", "/tags/list"), 1000);
    upstream.stop();
    assert_eq!(paged(daemon.addr, &format!("{LIST}&n=300")), (all.clone(), 4));
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
}

#[test]
fn an_upstream_that_refuses_long_pages_is_asked_for_its_own() {
    let (all, upstream) = upstream(100);
    upstream.set_lists(Lists { most: 50, n: N::Refused, ..Lists::default() });
    assert_eq!(tags(&Daemon::of(&upstream).get(LIST).is(200)), all);
}

#[test]
fn a_page_at_another_host_is_asked_of_nobody() {
    let ((_, upstream), (_, elsewhere)) = (upstream(20), self::upstream(20));
    let place = format!("http://localhost:{}", elsewhere.addr.port());
    upstream.set_lists(Lists { most: 7, link: Link::At(place), ..Lists::default() });
    let daemon = Daemon::of(&upstream);
    refused(daemon.get(LIST), 502, "UNAVAILABLE");
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn pages_that_go_round_in_a_circle_end() {
    let (_, upstream) = upstream(20);
    let round = format!("{}/v2/team/app/tags/list?n=7&x=", upstream.url());
    upstream.set_lists(Lists { most: 7, link: Link::At(round), ..Lists::default() });
    let daemon = Daemon::of(&upstream);
    refused(daemon.get(LIST), 502, "UNAVAILABLE");
    assert!(upstream.count("GET", "/tags/list") < 5);
}

#[test]
fn n_and_last_are_as_the_specification_says() {
    let (all, upstream) = upstream(5);
    let daemon = Daemon::of(&upstream);
    let page = |query: &str| {
        let response = daemon.get(&format!("{LIST}&{query}")).is(200);
        (tags(&response), next(&response).is_some())
    };
    assert_eq!(page("n=0"), (vec![], false));
    assert_eq!(page("n=4"), (all[..4].to_vec(), true));
    assert_eq!(page("n=5"), (all.clone(), false));
    assert_eq!(page("n=100000"), (all.clone(), false));
    assert_eq!(page("n=99999999999999999999999"), (all.clone(), false));
    assert_eq!(page("n="), (all.clone(), false));
    assert_eq!(page("last=v0002"), (all[3..].to_vec(), false));
    assert_eq!(page("last=v0002&n=1"), (all[3..4].to_vec(), true));
    assert_eq!(page("last=v0002-not-there"), (all[3..].to_vec(), false));
    assert_eq!(page("last=v0004"), (vec![], false));
    for n in ["-1", "x", "1.5", "%2B1"] {
        refused(daemon.get(&format!("{LIST}&n={n}")), 400, "PAGINATION_NUMBER_INVALID");
    }
}

#[test]
fn head_answers_what_get_would() {
    let (_, upstream) = upstream(5);
    let daemon = Daemon::of(&upstream);
    let target = format!("{LIST}&n=2");
    let cold = daemon.head(&target).is(200);
    let whole = daemon.get(&target).is(200);
    for header in ["content-type", "content-length", "link", "oci-namespace"] {
        assert!(whole.header(header).is_some(), "{header}");
        assert_eq!(cold.header(header), whole.header(header));
    }
    assert!(cold.body.is_empty());
    assert_eq!(whole.header("content-length").unwrap(), whole.body.len().to_string());
}

#[test]
fn a_list_is_as_fresh_as_a_tag() {
    let (mut all, upstream) = upstream(5);
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    upstream.change(|layout| {
        let tags = &mut layout.0.get_mut("team/app").unwrap().tags;
        let digest = tags["v0000"].clone();
        tags.insert("v0005".into(), digest);
    });
    let young = daemon.get(LIST).is(200);
    assert_eq!((tags(&young), young.header("age")), (all.clone(), None));
    daemon.restart();
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    assert_eq!(upstream.count("", "/tags/list"), 1);

    let entries: String = entry("docker.io", &upstream);
    daemon.configure(&format!("tag_ttl = 0\n{entries}"));
    daemon.restart();
    all.push("v0005".into());
    let renewed = daemon.get(LIST).is(200);
    assert_eq!((tags(&renewed), renewed.header("age")), (all, None));
    assert_eq!(upstream.count("", "/tags/list"), 2);
}

#[test]
fn many_who_ask_at_once_are_answered_by_one_list() {
    let (all, upstream) = upstream(20);
    upstream.fault("/tags/list", 0..1, Fault::Delay(Duration::from_secs(1)));
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    thread::scope(|scope| {
        for n in 1..=20 {
            let (all, daemon) = (&all, &daemon);
            scope.spawn(move || {
                assert_eq!(tags(&daemon.get(&format!("{LIST}&n={n}")).is(200)), all[..n]);
            });
        }
    });
    assert_eq!(upstream.count("", "/tags/list"), 1);
}

#[test]
fn paging_goes_on_in_the_same_list_though_tags_are_always_asked_about() {
    let (all, upstream) = upstream(40);
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    for asked in 1..=2 {
        assert_eq!(paged(daemon.addr, &format!("{LIST}&n=1")), (all.clone(), 40));
        assert_eq!(upstream.count("", "/tags/list"), asked);
    }
}

#[test]
fn the_last_list_is_served_while_upstream_fails() {
    for fault in [
        Fault::Status(500),
        Fault::Status(405),
        Fault::TooMany { retry_after: 0 },
        Fault::HangUp,
        Fault::Html,
        Fault::Cut(20),
    ] {
        let (all, upstream) = upstream(20);
        let daemon = Daemon::with("tag_ttl = 0", &upstream);
        daemon.get(LIST).is(200);
        upstream.fault("/tags/list", .., fault.clone());
        let old = daemon.get(&format!("{LIST}&n=15")).is(200);
        assert_eq!(tags(&old), all[..15], "{fault:?}");
        assert!(old.header("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{fault:?}");
        assert_eq!(tags(&daemon.get(&next(&old).unwrap()).is(200)), all[15..]);
        eventually("the log says so", || daemon.log().lines().any(|line| line.contains("cache=stale")));
        upstream.mend();
        assert_eq!(daemon.get(LIST).is(200).header("age"), None);
    }
}

#[test]
fn the_last_list_is_served_while_upstream_is_silent() {
    let (all, upstream) = upstream(20);
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    daemon.get(LIST).is(200);
    upstream.fault("/tags/list", .., Fault::Delay(Duration::from_secs(600)));
    let old = daemon.get(LIST).is(200);
    assert_eq!(tags(&old), all);
    assert!(old.header("age").is_some());
}

#[test]
fn a_list_of_which_a_page_is_missing_is_not_passed_on() {
    let (all, upstream) = upstream(20);
    upstream.set_lists(Lists { most: 7, ..Lists::default() });
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    upstream.fault("/tags/list", 1..2, Fault::Status(404));
    refused(daemon.get(LIST), 502, "UNAVAILABLE");
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    upstream.fault("/tags/list", 1..2, Fault::Status(404));
    let old = daemon.get(LIST).is(200);
    assert_eq!((tags(&old), old.header("age").is_some()), (all, true));
}

#[test]
fn stale_if_error_is_a_limit_for_lists_too() {
    let (_, upstream) = upstream(20);
    let daemon = Daemon::with("tag_ttl = 0\nstale_if_error = 0", &upstream);
    daemon.get("/v2/team/app/manifests/v0001?ns=docker.io").is(200);
    daemon.get(LIST).is(200);
    upstream.fault("/tags/list", .., Fault::Status(500));
    refused(daemon.get(LIST), 502, "UNAVAILABLE");
}

#[test]
fn what_upstream_says_no_to_is_an_error_of_our_own() {
    for (fault, status, code) in [
        (Fault::Status(404), 404, "NAME_UNKNOWN"),
        (Fault::Status(401), 403, "DENIED"),
        (Fault::Status(403), 403, "DENIED"),
        (Fault::Status(405), 502, "UNAVAILABLE"),
        (Fault::Status(503), 502, "UNAVAILABLE"),
        (Fault::TooMany { retry_after: 0 }, 502, "UNAVAILABLE"),
        (Fault::Html, 502, "UNAVAILABLE"),
    ] {
        let (_, upstream) = upstream(3);
        let daemon = Daemon::with("tag_ttl = 0", &upstream);
        upstream.fault("/tags/list", .., fault.clone());
        refused(daemon.get(LIST), status, code);
        // Nor is what was denied or is gone served from before.
        if [404, 403].contains(&status) {
            upstream.mend();
            let daemon = Daemon::with("tag_ttl = 0", &upstream);
            daemon.get(LIST).is(200);
            upstream.fault("/tags/list", .., fault);
            refused(daemon.get(LIST), status, code);
        }
    }
    let (_, upstream) = upstream(3);
    let daemon = Daemon::of(&upstream);
    for _ in 0..3 {
        refused(daemon.get("/v2/no/such/tags/list?ns=docker.io"), 404, "NAME_UNKNOWN");
    }
    assert_eq!(upstream.count("", "/tags/list"), 1);
}

#[test]
fn a_list_that_upstream_no_longer_has_is_forgotten() {
    let (_, upstream) = upstream(3);
    let daemon = Daemon::with("tag_ttl = 0", &upstream);
    daemon.get(LIST).is(200);
    let file = daemon.images().join("refs/docker.io/team/app/_tags.json");
    eventually("the list is kept", || file.exists());
    upstream.change(|layout| layout.0.clear());
    refused(daemon.get(LIST), 404, "NAME_UNKNOWN");
    eventually("the list is removed", || !file.exists());
}

#[test]
fn without_any_list_of_upstreams_the_tags_in_the_cache_are_listed() {
    let (_, mut upstream) = upstream(20);
    let mut daemon = Daemon::with("tag_ttl = 0", &upstream);
    for tag in ["v0011", "v0003", "v0007"] {
        daemon.get(&format!("/v2/team/app/manifests/{tag}?ns=docker.io")).is(200);
    }
    let held = ["v0003", "v0007", "v0011"].map(str::to_owned).to_vec();
    upstream.fault("/tags/list", .., Fault::Status(500));
    assert_eq!(tags(&daemon.get(LIST).is(200)), held);
    upstream.forget();
    assert_eq!(paged(daemon.addr, &format!("{LIST}&n=1")), (held.clone(), 3));
    assert_eq!(upstream.count("", "/tags/list"), 3, "three attempts for the first page, none for the others");
    upstream.stop();
    assert_eq!(paged(daemon.addr, &format!("{LIST}&n=1")), (held.clone(), 3));
    daemon.restart();
    assert_eq!(paged(daemon.addr, &format!("{LIST}&n=2")), (held, 2));
    refused(daemon.get("/v2/team/other/tags/list?ns=docker.io"), 502, "UNAVAILABLE");
}

#[test]
fn air_gapped_lists_what_is_here_and_asks_nobody() {
    let (all, upstream) = upstream(5);
    let mut daemon = Daemon::with("tag_ttl = 0", &upstream);
    daemon.get(LIST).is(200);
    upstream.change(|layout| layout.add("team/app", "new", &Image::small(2)));
    upstream.change(|layout| layout.add("team/other", "v1", &Image::small(2)));
    // By HEAD, since a GET starts downloads that would be seen too.
    daemon.head("/v2/team/app/manifests/new?ns=docker.io").is(200);
    daemon.head("/v2/team/other/manifests/v1?ns=docker.io").is(200);
    upstream.forget();
    daemon.options(&["--air-gapped"]);
    daemon.restart();
    let mut here = all;
    here.insert(0, "new".into());
    let list = daemon.get(LIST).is(200);
    assert_eq!((tags(&list), list.header("age")), (here, None));
    assert_eq!(tags(&daemon.get("/v2/team/other/tags/list?ns=docker.io").is(200)), ["v1"]);
    let none = daemon.get("/v2/team/none/tags/list?ns=docker.io").refuses(404, "NAME_UNKNOWN");
    assert!(none.text().contains("air"), "says why: {}", none.text());
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_list_that_cannot_be_read_is_fetched_anew() {
    let (all, upstream) = upstream(5);
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    daemon.get(LIST).is(200);
    daemon.terminate();
    let file = daemon.images().join("refs/docker.io/team/app/_tags.json");
    let kept = std::fs::read(&file).unwrap();
    std::fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    daemon.start();
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    assert_eq!(upstream.count("", "/tags/list"), 2);
}

/// Asks, and waits for no answer: the connections.
fn ask(daemon: &Daemon, targets: impl Iterator<Item = String>) -> Vec<TcpStream> {
    let ask = |target: String| {
        let mut connection = TcpStream::connect(daemon.addr).unwrap();
        write!(connection, "GET {target} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        connection
    };
    targets.map(ask).collect()
}

#[test]
fn a_registry_that_is_silent_holds_up_no_others_lists() {
    let ((all, upstream), (_, mut silent)) = (upstream(5), self::upstream(5));
    silent.fault("/tags/list", .., Fault::Delay(Duration::from_secs(600)));
    let entries = entry("docker.io", &upstream) + &entry("silent.example", &silent);
    let daemon = Daemon::configured(&format!("tag_ttl = 0\nnot_found_ttl = 0\n{entries}"));
    let asked = ask(&daemon, (0..40).map(|n| format!("/v2/silent.example/team/app{n}/tags/list")));
    eventually("some are asked for", || silent.count("", "/tags/list") >= 4);
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    assert_eq!(silent.count("", "/tags/list"), 4, "no more than these at once");
    // When it answers again, nobody stands behind those who have gone.
    drop(asked);
    silent.stop();
    silent.mend();
    silent.start_again();
    assert_eq!(tags(&daemon.get("/v2/silent.example/team/app/tags/list").is(200)), all);
}

#[test]
fn a_list_that_takes_long_is_answered_in_parts() {
    let (all, upstream) = upstream(30);
    upstream.set_lists(Lists { most: 10, ..Lists::default() });
    // However often it is asked for, which is three times.
    upstream.fault("/tags/list", 2.., Fault::Stall(0));
    let daemon = Daemon::of(&upstream);
    // A page that is there waits for no other.
    let first = daemon.get(&format!("{LIST}&n=8")).is(200);
    assert_eq!((tags(&first), next(&first).is_some()), (all[..8].to_vec(), true));
    eventually("the third page is asked for", || upstream.count("", "/tags/list") == 3);
    // The whole is not there: what is, and a link to the rest.
    let part = daemon.get(LIST).is(200);
    assert_eq!(tags(&part), all[..20]);
    let rest = next(&part).unwrap();
    assert_eq!(rest, "/v2/team/app/tags/list?last=v0019&ns=docker.io");
    upstream.mend();
    assert_eq!(tags(&daemon.get(&rest).is(200)), all[20..]);
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
}

#[test]
fn a_list_with_no_end_ends() {
    let (_, upstream) = upstream(1);
    let many: Vec<String> = (0..250_000).map(|n| format!("v{n:07}")).collect();
    upstream.change(|layout| {
        let tags = &mut layout.0.get_mut("team/app").unwrap().tags;
        let digest = tags["v0000"].clone();
        tags.extend(many.into_iter().map(|tag| (tag, digest.clone())));
    });
    upstream.set_lists(Lists { most: 100_000, n: N::Ignored, ..Lists::default() });
    let daemon = Daemon::of(&upstream);
    let refusal = daemon.get(LIST).refuses(502, "UNAVAILABLE");
    assert!(refusal.text().contains("200000"), "{}", refusal.text());
}

#[test]
fn credentials_go_with_every_page_and_nowhere_else() {
    let (all, upstream) = upstream(20);
    let upstream = upstream.with_tokens();
    upstream.set_lists(Lists { most: 7, link: Link::Absolute, ..Lists::default() });
    let daemon = Daemon::of(&upstream);
    assert_eq!(tags(&daemon.get(LIST).is(200)), all);
    assert_eq!(upstream.tokens_issued(), 1);
}

#[test]
fn what_nobody_may_pull_is_not_listed() {
    let (_, upstream) = upstream(3);
    let mut daemon = Daemon::of(&upstream);
    daemon.get(LIST).is(200);
    daemon.configure(&format!("deny = [\"docker.io/team/**\"]\n{}", entry("docker.io", &upstream)));
    daemon.restart();
    upstream.forget();
    refused(daemon.get(LIST), 403, "DENIED");
    let referrers = format!("/v2/team/app/referrers/{}?ns=docker.io", sha256(b"any"));
    refused(daemon.get(&referrers), 403, "DENIED");
    assert!(upstream.seen().is_empty());
}
