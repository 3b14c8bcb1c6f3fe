//! Every answer beside the upstream's own: all that a rich layout holds, online, and again with the upstream stopped.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::thread;

use support::client::{Request, Response, get};
use support::daemon::Daemon;
use support::layout::*;
use support::multipart;
use support::process::eventually;
use support::upstream::Upstream;

const REPOSITORY: &str = "team/rich";

/// Nested indexes, sha512, artifacts, referrers of subjects with and without a manifest, empty and large blobs.
fn rich() -> Layout {
    let mut layout = Layout::new();
    let images =
        [Image::new(vec![Layer::of_noise(1, 40_000), Layer::of_noise(2, 10)]), Image::of_size(3, 3 * MIB)];
    let docker = Image::docker(vec![Layer::of_noise(4, 5000)]);
    layout.add(REPOSITORY, "one", &images[0]);
    layout.add(REPOSITORY, "Two.2_x-y", &images[1]);
    layout.add(REPOSITORY, "docker", &docker);
    let inner = index(OCI_INDEX, &[(&images[0].manifest, "amd64"), (&images[1].manifest, "arm64")]);
    layout.add_manifest(REPOSITORY, "", &inner);
    layout.add_manifest(
        REPOSITORY,
        "nested",
        &index(OCI_INDEX, &[(&inner, ""), (&docker.manifest, "s390x")]),
    );
    layout.add_manifest(REPOSITORY, "list", &index(DOCKER_LIST, &[(&docker.manifest, "amd64")]));
    layout.add_manifest(REPOSITORY, "chart", &artifact("application/vnd.cncf.helm.chart.v1+json", 4 << 20));
    let long = artifact("application/vnd.tests.long+json", 999).under_sha512();
    layout.add_manifest(REPOSITORY, "", &long);
    layout.add_manifest(
        REPOSITORY,
        "odd",
        &Manifest::new(OCI_MANIFEST, "{ \"schemaVersion\":2,\r\n \"odd\" : [ ] }\n"),
    );
    for blob in [Blob::new(vec![]), Blob::new(vec![7]), Blob::with_sha512(vec![9; 2_000_000])] {
        layout.add_blob(REPOSITORY, &blob);
    }
    for (kind, seed) in
        [("application/spdx+json", 1), ("application/vnd.tests.sig", 2), ("application/spdx+json", 3)]
    {
        layout.add_referrer(REPOSITORY, &images[0].manifest, kind, seed);
    }
    let nobody = Manifest::new(OCI_MANIFEST, "{\"never\":\"pushed\"}");
    layout.add_referrer(REPOSITORY, &nobody, "application/vnd.tests.sig", 4);
    layout
}

/// What is asked: a path behind the repository's, and a Range.
struct Question {
    path: String,
    range: Option<String>,
    /// How it is said to be docker.io's.
    way: Way,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Default,
    Query,
    Path,
}

fn questions(layout: &Layout) -> Vec<Question> {
    let repository = &layout.0[REPOSITORY];
    let mut questions = vec![];
    let mut ask = |path: String, range: Option<String>| {
        let way = [Way::Default, Way::Query, Way::Path][questions.len() % 3];
        questions.push(Question { path, range, way });
    };
    for reference in repository.tags.keys().chain(repository.manifests.keys()) {
        ask(format!("manifests/{reference}"), None);
        ask(format!("manifests/{reference}"), Some("bytes=1-9".into()));
    }
    for (n, (digest, blob)) in repository.blobs.iter().enumerate() {
        let size = blob.size();
        let mut ranges = [
            "0-0".to_owned(),
            "0-".into(),
            "-1".into(),
            format!("{}-", size / 2),
            format!("1-{}", size / 2),
            format!("{size}-"),
        ];
        // Of most blobs a range is the first that anybody asks for, each time another.
        let first = n % ranges.len();
        ranges.rotate_left(first);
        for range in ranges {
            // An upstream may see the ranges of an empty blob as it likes; ours are in other tests.
            if size > 4 {
                ask(format!("blobs/{digest}"), Some(format!("bytes={range}")));
            }
        }
        ask(format!("blobs/{digest}"), None);
    }
    for digest in repository.manifests.keys().chain(repository.referrers.keys()) {
        ask(format!("referrers/{digest}"), None);
    }
    for digest in repository.referrers.keys() {
        ask(format!("referrers/{digest}?artifactType=application/vnd.tests.sig"), None);
    }
    for page in ["", "?n=2", "?n=2&last=Two.2_x-y", "?last=docker"] {
        ask(format!("tags/list{page}"), None);
    }
    questions
}

impl Question {
    fn target(&self, way: Way) -> String {
        let ns = if self.path.contains('?') { "&ns=docker.io" } else { "?ns=docker.io" };
        match way {
            Way::Default => format!("/v2/{REPOSITORY}/{}", self.path),
            Way::Query => format!("/v2/{REPOSITORY}/{}{ns}", self.path),
            Way::Path => format!("/v2/docker.io/{REPOSITORY}/{}", self.path),
        }
    }

    fn get(&self, way: Way) -> Request {
        let request = get(&self.target(way));
        match &self.range {
            Some(range) => request.range(range),
            None => request,
        }
    }

    fn is_list(&self) -> bool {
        self.path.starts_with("referrers/") || self.path.starts_with("tags/list")
    }
}

/// What has to be the same, header by header.
fn told(response: &Response, list: bool) -> Vec<(&'static str, Option<String>)> {
    let names: &[&'static str] = if list {
        &["content-type", "oci-filters-applied"]
    } else {
        &["content-type", "content-length", "content-range", "docker-content-digest"]
    };
    names.iter().map(|name| (*name, response.header(name).map(str::to_owned))).collect()
}

/// What upstream says, to be compared when it is no longer there.
struct Expected {
    question: Question,
    get: Response,
    /// Whatever the Range.
    whole: Response,
}

fn ask_all(questions: Vec<Question>, upstream: &Upstream) -> Vec<Expected> {
    let ask = |question: Question| Expected {
        get: question.get(Way::Default).send(upstream.addr),
        whole: get(&question.target(Way::Default)).send(upstream.addr),
        question,
    };
    questions.into_iter().map(ask).collect()
}

#[track_caller]
fn conforms(daemon: &Daemon, expected: &Expected, when: &str) {
    let Expected { question, get, .. } = expected;
    let target = question.target(question.way);
    let what = format!("{target} {:?} {when}", question.range);
    let ours = daemon.send(question.get(question.way));
    assert_eq!(ours.status(), get.status(), "{what}: {}", ours.text());
    if get.status() == 416 {
        // The words are each registry's own.
        assert_eq!(
            (&*ours.code(), ours.header("content-range")),
            ("RANGE_INVALID", get.header("content-range"))
        );
        return;
    }
    if question.is_list() {
        let json = |response: &Response| {
            let mut json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            // It is the one that was asked for.
            json.as_object_mut().unwrap().remove("name");
            json
        };
        assert_eq!(json(&ours), json(get), "{what}");
        let next = |response: &Response| {
            response.head.headers.iter().any(|(_, value)| value.contains("rel=\"next\""))
        };
        assert_eq!(next(&ours), next(get), "{what}");
    } else {
        assert!(ours.body == get.body, "{what}");
    }
    let upstreams = told(get, question.is_list());
    for ((name, ours), (_, theirs)) in told(&ours, question.is_list()).iter().zip(&upstreams) {
        let bare = |value: &str| value.split(';').next().unwrap_or_default().to_owned();
        // One that upstream leaves out we may well say, and parameters of a type we leave out.
        if let Some(theirs) = theirs {
            assert_eq!(ours.as_deref().map(bare), Some(bare(theirs)), "{what}: {name}");
        }
    }
    if question.range.is_none() {
        let head = daemon.head(&target);
        assert_eq!(head.status(), get.status(), "{what}");
        assert!(head.body.is_empty());
        assert_eq!(told(&head, false), told(&ours, false), "{what}");
    }
}

/// With the ETag of what is there and with another's (RFC 9110, sections 13 and 14).
#[track_caller]
fn keeps_conditions(daemon: &Daemon, expected: &Expected, when: &str) {
    let Expected { question, get, whole } = expected;
    let target = question.target(question.way);
    let what = format!("{target} {:?} {when}", question.range);
    let head = daemon.head(&target).is(200);
    let (etag, other) = (head.header("etag").unwrap(), format!("\"{}\"", sha256(b"another")));
    let send = |name: &str, etag: &str| daemon.send(question.get(question.way).header(name, etag));
    let known = send("If-None-Match", etag);
    assert_eq!((known.status(), known.header("etag")), (304, Some(etag)), "{what}");
    assert!(known.body.is_empty(), "{what}");
    for (name, etag, theirs) in
        [("If-None-Match", &*other, get), ("If-Range", etag, get), ("If-Range", &*other, whole)]
    {
        let ours = send(name, etag);
        let of =
            |response: &Response| (response.status(), response.header("content-range").map(str::to_owned));
        assert_eq!(of(&ours), of(theirs), "{what}, {name}: {etag}");
        assert!(ours.body == theirs.body || ours.status() == 416, "{what}, {name}: {etag}");
    }
}

/// Several at once, since each list asks in vain for an upstream first.
fn conform_all(daemon: &Daemon, expected: &[Expected], when: &str) {
    thread::scope(|scope| {
        for worker in 0..8 {
            let share = expected.iter().skip(worker).step_by(8);
            scope.spawn(move || share.for_each(|expected| conforms(daemon, expected, when)));
        }
    });
}

#[test]
fn every_answer_is_the_upstreams_online_and_offline() {
    let layout = rich();
    let questions = questions(&layout);
    let blobs: Vec<_> = layout.0[REPOSITORY].blobs.values().cloned().collect();
    let mut upstream = Upstream::start(layout);
    let expected = ask_all(questions, &upstream);
    assert!(expected.len() > 60, "{}", expected.len());
    let mut daemon = Daemon::with("tag_ttl = 0\nnot_found_ttl = 0\n", &upstream);
    for expected in &expected {
        conforms(&daemon, expected, "online");
    }
    eventually("every blob is kept", || blobs.iter().all(|blob| daemon.blob(blob.hex()).exists()));
    upstream.stop();
    conform_all(&daemon, &expected, "offline");
    daemon.restart();
    conform_all(&daemon, &expected, "offline, after a restart");
    daemon.proven();
}

#[test]
fn conditions_go_by_what_upstream_has_before_it_is_here_and_after() {
    let layout = rich();
    let questions = questions(&layout).into_iter().filter(|question| !question.is_list()).collect();
    let blobs: Vec<_> = layout.0[REPOSITORY].blobs.values().cloned().collect();
    let mut upstream = Upstream::start(layout);
    let expected = ask_all(questions, &upstream);
    let mut daemon = Daemon::with("tag_ttl = 0\n", &upstream);
    let compare = |daemon: &Daemon, when| {
        expected.iter().for_each(|expected| keeps_conditions(daemon, expected, when));
    };
    compare(&daemon, "online");
    eventually("every blob is kept", || blobs.iter().all(|blob| daemon.blob(blob.hex()).exists()));
    upstream.stop();
    compare(&daemon, "offline");
    daemon.restart();
    compare(&daemon, "offline, after a restart");
}

#[test]
fn what_upstream_does_not_have_is_said_in_its_codes() {
    let upstream = Upstream::start(rich());
    let daemon = Daemon::with("not_found_ttl = 0\n", &upstream);
    let nothing = sha256(b"nothing");
    for (path, code) in [
        (format!("{REPOSITORY}/manifests/none"), "MANIFEST_UNKNOWN"),
        (format!("{REPOSITORY}/manifests/{nothing}"), "MANIFEST_UNKNOWN"),
        (format!("{REPOSITORY}/blobs/{nothing}"), "BLOB_UNKNOWN"),
        ("no/such/tags/list".into(), "NAME_UNKNOWN"),
    ] {
        assert_eq!(get(&format!("/v2/{path}")).send(upstream.addr).is(404).code(), code);
        for target in
            [format!("/v2/{path}"), format!("/v2/{path}?ns=docker.io"), format!("/v2/docker.io/{path}")]
        {
            daemon.get(&target).refuses(404, code);
            assert_eq!(daemon.head(&target).status(), 404, "{target}");
        }
    }
}

#[test]
fn several_ranges_are_slices_of_what_upstream_has_before_it_is_here_and_after() {
    let layout = rich();
    let blobs: Vec<_> = layout.0[REPOSITORY].blobs.values().filter(|blob| blob.size() > 4).cloned().collect();
    let mut upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    let compare = |when: &str| {
        for blob in &blobs {
            let (size, bytes) = (blob.size(), blob.bytes());
            let ranges = [(size - 1, size - 1), (0, 0), (size / 2, size - 2), (1, size / 4)];
            let asked = ranges.map(|(first, last)| format!("{first}-{last}")).join(",");
            let target = format!("/v2/{REPOSITORY}/blobs/{}?ns=docker.io", blob.digest);
            let answer = get(&target).range(&format!("bytes={asked}")).send(daemon.addr).is(206);
            let parts = multipart::read(answer.header("content-type").unwrap(), &answer.body).unwrap();
            let got: Vec<_> = parts.iter().map(|part| (part.first, part.last, part.size)).collect();
            assert_eq!(got, ranges.map(|(first, last)| (first, last, size)), "{asked} {when}");
            for part in parts {
                assert!(*part.body == bytes[part.first as usize..=part.last as usize], "{asked} {when}");
            }
        }
    };
    compare("cold");
    eventually("every blob is kept", || blobs.iter().all(|blob| daemon.blob(blob.hex()).exists()));
    upstream.stop();
    compare("offline");
}
