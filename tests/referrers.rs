//! What refers to a manifest: by the API, by the tag in its place, and when upstream is not there.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::client::Response;
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::{PATIENCE, eventually};
use support::upstream::lists::{Link, Lists};
use support::upstream::{Fault, Upstream};

const SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SBOM: &str = "application/spdx+json";

struct Signed {
    image: Image,
    /// A signature, an SBOM, a signature.
    referrers: Vec<Value>,
    upstream: Upstream,
}

impl Signed {
    fn new() -> Self {
        let image = Image::small(1);
        let mut layout = Layout::of("team/app", "1", &image);
        let referrers = [SIGNATURE, SBOM, SIGNATURE].iter().zip(0..);
        let referrers = referrers
            .map(|(kind, seed)| layout.add_referrer("team/app", &image.manifest, kind, seed))
            .collect();
        Self { image, referrers, upstream: Upstream::start(layout) }
    }

    /// Has no referrers API; clients keep the list under a tag.
    fn by_tag(&self, digest: &str) {
        self.upstream.set_lists(Lists { referrers: false, ..Lists::default() });
        let (algorithm, hex) = digest.split_once(':').unwrap();
        let tag = format!("{algorithm}-{}", &hex[..64]);
        self.upstream.change(|layout| layout.add_manifest("team/app", &tag, &self.index()));
    }

    fn index(&self) -> Manifest {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.referrers});
        Manifest::new(OCI_INDEX, serde_json::to_vec_pretty(&index).unwrap())
    }

    fn target(&self) -> String {
        format!("/v2/team/app/referrers/{}?ns=docker.io", self.image.manifest.digest)
    }

    fn kept_in(&self, daemon: &Daemon) -> std::path::PathBuf {
        daemon.images().join("refs/docker.io/team/app/_referrers").join(self.image.manifest.hex())
    }
}

/// The descriptors of an index that is served as clients want it.
#[track_caller]
fn listed(response: Response) -> Vec<Value> {
    let response = response.is(200);
    assert_eq!(response.header("content-type"), Some(OCI_INDEX));
    let index: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn referrers_are_listed_as_upstream_lists_them() {
    let signed = Signed::new();
    let daemon = Daemon::of(&signed.upstream);
    for target in [
        signed.target(),
        signed.target(),
        format!("/v2/registry.k8s.io/team/app/referrers/{}", signed.image.manifest.digest),
    ] {
        let response = daemon.get(&target);
        assert_eq!(response.header("oci-filters-applied"), None);
        assert_eq!(response.header("age"), None);
        assert_eq!(listed(response), signed.referrers);
    }
    assert_eq!(signed.upstream.count("GET", "/referrers/"), 2, "once for each registry");
}

#[test]
fn head_answers_what_get_would() {
    let signed = Signed::new();
    let daemon = Daemon::of(&signed.upstream);
    for target in [signed.target(), format!("{}&artifactType=application%2Fspdx%2Bjson", signed.target())] {
        let cold = daemon.head(&target).is(200);
        let whole = daemon.get(&target).is(200);
        for header in ["content-type", "content-length", "oci-filters-applied", "oci-namespace"] {
            assert_eq!(cold.header(header), whole.header(header));
        }
        assert!(cold.body.is_empty());
        assert_eq!(whole.header("content-length").unwrap(), whole.body.len().to_string());
    }
}

#[test]
fn an_artifact_type_filters_and_may_be_repeated() {
    let signed = Signed::new();
    let daemon = Daemon::of(&signed.upstream);
    let [first, sbom, second] = &signed.referrers[..] else { panic!() };
    for (filter, left) in [
        ("artifactType=application%2Fspdx%2Bjson", vec![sbom]),
        (&format!("artifactType={SIGNATURE}"), vec![first, second]),
        (&format!("artifactType={SBOM}&artifactType={SIGNATURE}"), vec![first, sbom, second]),
        (&format!("artifactType=no/such&artifactType={SBOM}"), vec![sbom]),
        ("artifactType=no/such", vec![]),
    ] {
        let response = daemon.get(&format!("{}&{filter}", signed.target()));
        assert_eq!(response.header("oci-filters-applied"), Some("artifactType"), "{filter}");
        assert_eq!(listed(response).iter().collect::<Vec<_>>(), left, "{filter}");
    }
    let all = daemon.get(&format!("{}&artifactType=", signed.target()));
    assert_eq!(all.header("oci-filters-applied"), None);
    assert_eq!(listed(all), signed.referrers);
    // One list for all of them, which was asked for unfiltered.
    let seen = signed.upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].query, "");
}

#[test]
fn upstreams_pages_are_merged() {
    for link in [Link::Path, Link::Query, Link::Absolute] {
        let signed = Signed::new();
        signed.upstream.set_lists(Lists { most: 1, link: link.clone(), ..Lists::default() });
        let daemon = Daemon::of(&signed.upstream);
        assert_eq!(listed(daemon.get(&signed.target())), signed.referrers, "{link:?}");
        assert_eq!(signed.upstream.count("GET", "/referrers/"), 3);
    }
}

#[test]
fn a_list_of_which_a_page_is_missing_is_not_passed_on() {
    let signed = Signed::new();
    signed.upstream.set_lists(Lists { most: 1, ..Lists::default() });
    signed.upstream.fault("/referrers/", 1..2, Fault::Status(404));
    let daemon = Daemon::of(&signed.upstream);
    assert!(listed(daemon.get(&signed.target())).is_empty(), "not known");
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
}

#[test]
fn without_the_api_the_tag_in_its_place_is_read() {
    for fault in [
        Fault::Status(404),
        Fault::Status(405),
        Fault::Status(400),
        Fault::Status(501),
        Fault::Html,
        Fault::Redirect("/v2/".to_owned()),
    ] {
        let signed = Signed::new();
        signed.by_tag(&signed.image.manifest.digest);
        signed.upstream.fault("/referrers/", .., fault.clone());
        let daemon = Daemon::of(&signed.upstream);
        assert_eq!(listed(daemon.get(&signed.target())), signed.referrers, "{fault:?}");
        let filtered = daemon.get(&format!("{}&artifactType={SBOM}", signed.target()));
        assert_eq!(listed(filtered), signed.referrers[1..2]);
        let tag = format!("/v2/team/app/manifests/sha256-{}?ns=docker.io", signed.image.manifest.hex());
        assert_eq!(daemon.get(&tag).is(200).body, *signed.index().bytes, "a tag like any other");
    }
}

#[test]
fn the_tag_of_a_sha512_digest_is_cut_to_64_digits() {
    let signed = Signed::new();
    let subject = signed.image.manifest.clone().under_sha512();
    signed.by_tag(&subject.digest);
    let daemon = Daemon::of(&signed.upstream);
    let target = format!("/v2/team/app/referrers/{}?ns=docker.io", subject.digest);
    assert_eq!(listed(daemon.get(&target)), signed.referrers);
}

#[test]
fn nothing_refers_to_what_has_neither_list_nor_tag() {
    let signed = Signed::new();
    let daemon = Daemon::of(&signed.upstream);
    let unknown = format!("/v2/team/app/referrers/{}?ns=docker.io", sha256(b"unknown"));
    assert!(listed(daemon.get(&unknown)).is_empty(), "by the API");

    signed.upstream.set_lists(Lists { referrers: false, ..Lists::default() });
    let daemon = Daemon::of(&signed.upstream);
    for target in [unknown, signed.target(), signed.target().replace("team/app", "no/such")] {
        assert!(listed(daemon.get(&target)).is_empty());
        let filtered = daemon.get(&format!("{target}&artifactType=a/b"));
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
        assert!(listed(filtered).is_empty());
    }
    // A tag of that name that lists nothing.
    let tag = format!("sha256-{}", hex_of(&sha256(b"other")));
    signed.upstream.change(|layout| layout.add_manifest("team/app", &tag, &signed.image.manifest));
    let other = format!("/v2/team/app/referrers/{}?ns=docker.io", sha256(b"other"));
    assert!(listed(daemon.get(&other)).is_empty());
}

#[test]
fn what_is_no_digest_is_refused_without_asking() {
    let signed = Signed::new();
    let daemon = Daemon::of(&signed.upstream);
    for digest in ["sha256:zz", "1", "sha256-0123", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let target = format!("/v2/team/app/referrers/{digest}?ns=docker.io");
        daemon.get(&target).refuses(400, "DIGEST_INVALID");
    }
    assert!(signed.upstream.seen().is_empty());
}

#[test]
fn a_list_is_as_fresh_as_a_tag() {
    for (keys, asked) in [("tag_ttl = \"1h\"", 1), ("tag_ttl = 0", 4)] {
        let signed = Signed::new();
        let daemon = Daemon::with(keys, &signed.upstream);
        for _ in 0..4 {
            assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
        }
        assert_eq!(signed.upstream.count("", "/referrers/"), asked, "{keys}");
    }
}

#[test]
fn many_who_ask_at_once_are_answered_by_one_list() {
    let signed = Signed::new();
    signed.upstream.fault("/referrers/", 0..1, Fault::Delay(Duration::from_secs(1)));
    let daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(listed(daemon.get(&signed.target())), signed.referrers));
        }
    });
    assert_eq!(signed.upstream.count("", "/referrers/"), 1);
}

#[test]
fn the_last_list_is_served_while_upstream_fails_and_after_a_restart() {
    let mut signed = Signed::new();
    let mut daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    listed(daemon.get(&signed.target()));
    for fault in [Fault::Status(500), Fault::TooMany { retry_after: 0 }, Fault::HangUp, Fault::Cut(9)] {
        signed.upstream.fault("/v2/", .., fault.clone());
        let old = daemon.get(&signed.target());
        assert!(old.header("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{fault:?}");
        assert_eq!(listed(old), signed.referrers, "{fault:?}");
        signed.upstream.mend();
    }
    signed.upstream.stop();
    for _ in 0..2 {
        assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
        let filtered = daemon.get(&format!("{}&artifactType={SBOM}", signed.target()));
        assert_eq!(listed(filtered), signed.referrers[1..2]);
        daemon.restart();
    }
    eventually("the log says so", || daemon.log().lines().any(|line| line.contains("cache=stale")));
    signed.upstream.start_again();
    let fresh = daemon.get(&signed.target());
    assert_eq!(fresh.header("age"), None);
    assert_eq!(listed(fresh), signed.referrers);
}

#[test]
fn a_list_by_tag_is_served_without_upstream_too() {
    let mut signed = Signed::new();
    signed.by_tag(&signed.image.manifest.digest);
    let mut daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    listed(daemon.get(&signed.target()));
    signed.upstream.stop();
    daemon.restart();
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
}

#[test]
fn what_is_not_known_without_upstream_is_nothing_and_is_not_remembered() {
    let mut signed = Signed::new();
    signed.upstream.stop();
    let daemon = Daemon::with("tag_ttl = \"1h\"", &signed.upstream);
    assert!(listed(daemon.get(&signed.target())).is_empty());
    let named = format!("docker.io/team/app@{}", signed.image.manifest.digest);
    eventually("it is logged", || daemon.log().contains(&named));
    signed.upstream.start_again();
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
}

#[test]
fn without_upstream_the_tag_that_is_in_the_cache_is_read() {
    let mut signed = Signed::new();
    signed.by_tag(&signed.image.manifest.digest);
    let daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    let tag = format!("/v2/team/app/manifests/sha256-{}?ns=docker.io", signed.image.manifest.hex());
    daemon.get(&tag).is(200);
    signed.upstream.stop();
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
}

#[test]
fn whoever_wants_nothing_stale_is_told_of_the_failure() {
    let signed = Signed::new();
    let daemon = Daemon::with("tag_ttl = 0\nstale_if_error = 0", &signed.upstream);
    signed.upstream.fault("/referrers/", .., Fault::Status(500));
    daemon.get(&signed.target()).refuses(502, "UNAVAILABLE");
    signed.upstream.mend();
    listed(daemon.get(&signed.target()));
    signed.upstream.fault("/referrers/", .., Fault::Status(500));
    daemon.get(&signed.target()).refuses(502, "UNAVAILABLE");
}

#[test]
fn a_list_that_is_too_old_is_as_one_that_was_never_known() {
    let signed = Signed::new();
    let daemon = Daemon::with("tag_ttl = 0\nstale_if_error = \"1ms\"", &signed.upstream);
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
    signed.upstream.fault("/referrers/", .., Fault::Status(500));
    thread::sleep(Duration::from_millis(50)); // The list grows older than it may be.
    let unknown = daemon.get(&signed.target());
    assert_eq!(unknown.header("age"), None);
    assert!(listed(unknown).is_empty());
}

#[test]
fn a_registry_that_is_silent_holds_up_no_others_lists() {
    let (signed, silent) = (Signed::new(), Signed::new());
    silent.upstream.fault("/referrers/", .., Fault::Delay(Duration::from_secs(600)));
    let entries = entry("docker.io", &signed.upstream) + &entry("silent.example", &silent.upstream);
    let daemon = Daemon::configured(&format!("tag_ttl = 0\n{entries}"));
    let mut asked = vec![];
    for n in 0..40 {
        let mut connection = TcpStream::connect(daemon.addr).unwrap();
        let target = format!("/v2/silent.example/team/app/referrers/{}", sha256(&[n]));
        write!(connection, "GET {target} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        asked.push(connection);
    }
    eventually("some are asked for", || silent.upstream.count("", "/referrers/") >= 4);
    let unslowed = daemon.get(&signed.target());
    assert_eq!(unslowed.header("age"), None);
    assert_eq!(listed(unslowed), signed.referrers);
    assert_eq!(silent.upstream.count("", "/referrers/"), 4, "no more than these at once");
    // Who is not asked is not called slow, and those who wait are told what is known.
    for connection in asked {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut first = [0; 12];
        (&connection).read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
    assert_eq!(signed.upstream.count("", "/referrers/"), 2);
}

#[test]
fn what_upstream_denies_is_denied() {
    for status in [401, 403] {
        let signed = Signed::new();
        let daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
        listed(daemon.get(&signed.target()));
        signed.upstream.fault("/referrers/", .., Fault::Status(status));
        let refusal = daemon.get(&signed.target()).refuses(403, "DENIED");
        assert_eq!(refusal.header("www-authenticate"), None);
    }
}

#[test]
fn air_gapped_lists_what_is_kept_and_asks_nobody() {
    let signed = Signed::new();
    let mut daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    listed(daemon.get(&signed.target()));
    signed.upstream.forget();
    daemon.options(&["--air-gapped"]);
    daemon.restart();
    let kept = daemon.get(&signed.target());
    assert_eq!(kept.header("age"), None);
    assert_eq!(listed(kept), signed.referrers);
    let unknown = format!("/v2/team/app/referrers/{}?ns=docker.io", sha256(b"unknown"));
    assert!(listed(daemon.get(&unknown)).is_empty());
    assert!(signed.upstream.seen().is_empty());
}

#[test]
fn the_whole_list_is_kept_as_a_file_and_what_nothing_refers_to_is_not() {
    let signed = Signed::new();
    let daemon = Daemon::with("tag_ttl = 0", &signed.upstream);
    let unknown = sha256(b"unknown");
    listed(daemon.get(&format!("/v2/team/app/referrers/{unknown}?ns=docker.io")));
    listed(daemon.get(&format!("{}&artifactType={SBOM}", signed.target())));
    let file = signed.kept_in(&daemon);
    eventually("the list is kept", || file.exists());
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["list"]["manifests"], json!(signed.referrers));
    assert!(!file.with_file_name(hex_of(&unknown)).exists());

    // Of what is in the cache it is kept that nothing refers to it: so it is known without upstream.
    let plain = Image::small(7);
    signed.upstream.change(|layout| layout.add("team/app", "plain", &plain));
    daemon.get("/v2/team/app/manifests/plain?ns=docker.io").is(200);
    listed(daemon.get(&format!("/v2/team/app/referrers/{}?ns=docker.io", plain.manifest.digest)));
    eventually("the empty list is kept", || file.with_file_name(plain.manifest.hex()).exists());
}

#[test]
fn a_list_that_cannot_be_read_is_fetched_anew() {
    let signed = Signed::new();
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &signed.upstream);
    listed(daemon.get(&signed.target()));
    daemon.terminate();
    std::fs::write(signed.kept_in(&daemon), "{\"checked\":").unwrap();
    daemon.start();
    assert_eq!(listed(daemon.get(&signed.target())), signed.referrers);
    assert_eq!(signed.upstream.count("", "/referrers/"), 2);
}
