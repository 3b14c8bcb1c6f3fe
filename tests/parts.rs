//! The parts of the tests against each other, without the daemon: what the rest proves is worth what the parts are.

mod support;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use support::client::{End, get, head, raw};
use support::layout::*;
use support::registry::Registry;
use support::runtimes::{Containerd, Dockerd, Podman, Skopeo};
use support::tls::Ca;
use support::upstream::{Fault, Upstream};

const REPOSITORY: &str = "library/busybox";

fn one_blob(size: u64) -> (Blob, String, Upstream) {
    let image = Image::of_size(1, size);
    let blob = image.layers[0].clone();
    let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
    (blob, path, Upstream::start(Layout::of(REPOSITORY, "1", &image)))
}

#[test]
fn noise_is_the_same_read_in_whatever_pieces() {
    let blob = Blob::random(7, 3 * MIB + 5);
    let whole = blob.bytes();
    assert_eq!(whole.len() as u64, blob.size());
    assert_eq!(sha256(&whole), blob.digest);
    for (offset, len) in [(0, 1), (3, 20), (MIB - 3, 9), (MIB + 4, MIB), (3 * MIB, 100)] {
        let end = (offset + len).min(blob.size());
        assert_eq!(blob.slice(offset, len), whole[offset as usize..end as usize]);
    }
    assert_ne!(whole[..MIB as usize], whole[MIB as usize..2 * MIB as usize]);
    assert_ne!(Blob::random(8, 3 * MIB + 5).digest, blob.digest);
}

#[test]
fn upstream_answers_ranges_and_counts() {
    let (blob, path, upstream) = one_blob(1000);
    let whole = get(&path).send(upstream.addr).is(200);
    assert_eq!(whole.body, blob.bytes());
    assert_eq!(whole.header("docker-content-digest"), Some(&*blob.digest));
    for (range, start, end) in [("0-0", 0, 1), ("10-19", 10, 20), ("990-", 990, 1000), ("-5", 995, 1000)] {
        let part = get(&path).range(&format!("bytes={range}")).send(upstream.addr).is(206);
        assert_eq!(part.header("content-range").unwrap(), format!("bytes {start}-{}/1000", end - 1));
        assert_eq!(part.body, blob.slice(start, end - start));
    }
    let past = get(&path).range("bytes=1000-").send(upstream.addr).is(416);
    assert_eq!(past.header("content-range"), Some("bytes */1000"));
    assert_eq!(head(&path).send(upstream.addr).is(200).header("content-length"), Some("1000"));
    assert_eq!((upstream.count("GET", "/blobs/"), upstream.count("HEAD", "/blobs/")), (6, 1));
    assert_eq!(upstream.sent(&blob.digest), 1000 + 1 + 10 + 10 + 5);
    let upstream = upstream.without_ranges();
    assert_eq!(get(&path).range("bytes=1-").send(upstream.addr).is(200).body.len(), 1000);
}

#[test]
fn upstream_misbehaves_where_it_is_told_to() {
    let (blob, path, upstream) = one_blob(3 * MIB);
    let whole = blob.bytes();
    let mut ends = vec![];
    upstream.fault("/blobs/", 1..2, Fault::Cut(MIB));
    upstream.fault("/blobs/", 2..3, Fault::Reset(MIB));
    upstream.fault("/blobs/", 3..4, Fault::Length(10));
    upstream.fault("/blobs/", 4..5, Fault::Flip(MIB + 1));
    for _ in 0..5 {
        let answer = get(&path).send(upstream.addr);
        ends.push((answer.end, answer.body.len() as u64, whole.starts_with(&answer.body)));
    }
    assert_eq!(ends[0], (End::Whole, 3 * MIB, true));
    assert_eq!(ends[1], (End::Short, MIB, true));
    assert_eq!((ends[2].0, ends[2].2), (End::Reset, true));
    assert_eq!(ends[3], (End::Short, 3 * MIB, true));
    assert_eq!(ends[4], (End::Whole, 3 * MIB, false));
    upstream.fault("/blobs/", 5.., Fault::Status(500)); // counted from now on
    upstream.fault("/blobs/", 0..1, Fault::TooMany { retry_after: 7 });
    assert_eq!(get(&path).send(upstream.addr).is(429).header("retry-after"), Some("7"));
    upstream.fault("/blobs/", .., Fault::Status(503));
    get(&path).send(upstream.addr).refuses(503, "UNKNOWN");
    upstream.mend();
    get(&path).send(upstream.addr).is(200);
}

#[test]
fn upstream_holds_back_stalls_delays_and_stops() {
    let (blob, path, mut upstream) = one_blob(2 * MIB);
    upstream.hold(&blob.digest, MIB);
    let mut stream = get(&path).open(upstream.addr);
    stream.read_to(MIB);
    assert_eq!(upstream.sent(&blob.digest), MIB);
    let far = get(&path).range(&format!("bytes={}-", MIB + 1)).send(upstream.addr).is(206);
    assert_eq!(far.body, blob.slice(MIB + 1, MIB));
    upstream.release(&blob.digest);
    let mut hash = Sha256::new();
    hash.update(blob.slice(0, MIB));
    assert_eq!(stream.digest(hash), (blob.digest.clone(), 2 * MIB, End::Whole));

    upstream.fault("/blobs/", .., Fault::Stall(10));
    let mut stream = get(&path).open(upstream.addr);
    stream.read_to(10);
    upstream.mend();
    assert_eq!(stream.whole().end, End::Short);
    upstream.fault("/v2/", 0..1, Fault::Delay(Duration::from_millis(50)));
    get(&path).send(upstream.addr).is(200);

    upstream.stop();
    assert!(std::net::TcpStream::connect(upstream.addr).is_err());
    upstream.start_again();
    get(&path).send(upstream.addr).is(200);
}

#[test]
fn upstream_wants_a_token_of_its_own() {
    let (_, path, upstream) = one_blob(10);
    let upstream = upstream.with_tokens();
    let refused = get(&path).send(upstream.addr).is(401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer realm="));
    let token = get("/token?service=tests").send(upstream.addr).is(200).text();
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    get(&path).header("Authorization", &bearer).send(upstream.addr).is(200);
    upstream.fault("/blobs/", 0..1, Fault::Revoked);
    get(&path).header("Authorization", &bearer).send(upstream.addr).is(401);
    get(&path).header("Authorization", &bearer).send(upstream.addr).is(401);
    assert_eq!(upstream.tokens_issued(), 1);
}

#[test]
fn raw_bytes_go_through_as_they_are() {
    let (_, _, upstream) = one_blob(10);
    let answer = raw(upstream.addr, b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n{}"), "{answer}");
}

#[test]
fn an_artifact_is_as_long_as_it_was_ordered() {
    assert_eq!(artifact("application/vnd.tests.unheard-of+json", 4 << 20).bytes.len(), 4 << 20);
}

#[test]
fn docker_registry_takes_pushes_three_ways() {
    needs!("docker-registry", "htpasswd");
    let ca = Arc::new(Ca::new());
    let image = Image::small(1);
    for registry in [Registry::plain(), Registry::with_htpasswd(&ca), Registry::with_tokens(&ca)] {
        registry.push("team/app", "1", &image);
        let manifest = get("/v2/team/app/manifests/1").header("Accept", OCI_MANIFEST);
        let answer = registry.send("team/app", manifest.clone()).is(200);
        assert_eq!(answer.body, *image.manifest.bytes);
        if let Some(ca) = &registry.ca {
            manifest.open_on(ca.connect(registry.addr), "localhost").whole().refuses(401, "UNAUTHORIZED");
        }
    }
}

#[test]
fn skopeo_and_podman_pull_straight_from_our_upstream() {
    needs!("skopeo", "podman", "busybox");
    let mut layout = Layout::of(REPOSITORY, "1", &Image::runnable(1));
    let docker = Image::docker(Image::runnable_layers(2));
    layout.add(REPOSITORY, "2", &docker);
    layout.add_manifest(REPOSITORY, "list", &index(DOCKER_LIST, &[(&docker.manifest, "amd64")]));
    let upstream = Upstream::start(layout);
    let reference = |tag: &str| format!("{}/{REPOSITORY}:{tag}", upstream.addr);
    let skopeo = Skopeo::new();
    assert_eq!(skopeo.inspect(&reference("1"))["Architecture"], "amd64");
    let copy = skopeo.copy(&reference("list"), &["--src-tls-verify=false", "--all"]);
    for blob in docker.blobs() {
        assert_eq!(file_hex(&copy.join(blob.hex())), blob.hex());
    }
    let podman = Podman::new(upstream.addr, &[]);
    podman.pull(&reference("1"));
    podman.pull(&reference("list"));
}

#[test]
fn containerd_pulls_and_runs_straight_from_docker_registry() {
    needs!("containerd", "ctr", "runc", "docker-registry", "busybox");
    let registry = Registry::plain();
    registry.push(REPOSITORY, "1", &Image::runnable(3));
    let containerd = Containerd::start();
    containerd.mirror("docker.io", registry.addr);
    containerd.pull("docker.io/library/busybox:1");
    assert_eq!(containerd.run("docker.io/library/busybox:1"), "ran 3\n");
    containerd.remove("docker.io/library/busybox:1");
}

#[test]
fn dockerd_pulls_straight_from_our_upstream() {
    needs!("dockerd", "docker", "busybox");
    let upstream = Upstream::start(Layout::of(REPOSITORY, "1", &Image::runnable(4)));
    let dockerd = Dockerd::start(&[&format!("--registry-mirror={}", upstream.url())]);
    dockerd.pull(&format!("localhost:{}/{REPOSITORY}:1", upstream.addr.port()));
    upstream.forget();
    dockerd.pull("busybox:1");
    assert!(upstream.count("HEAD", "/manifests/") + upstream.count("GET", "/manifests/") > 0);
}
