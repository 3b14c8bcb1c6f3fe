//! podman, skopeo, CRI-O, buildah.

use super::*;
use crate::support::client::End;
use crate::support::upstream::Fault;

const TYPES: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];

#[test]
fn a_ping_and_then_the_manifest_with_the_registry_in_the_path() {
    let scene = Scene::small();
    scene.get("/v2/").is(200);
    let accept = TYPES.iter().fold(get("/v2/docker.io/library/app/manifests/1"), |request, media_type| {
        request.header("Accept", media_type)
    });
    assert!(scene.send(accept).is(200).body == *scene.index.bytes);
}

#[test]
fn accept_may_come_in_six_lines_and_never_makes_a_406() {
    let scene = Scene::small();
    let request = get(&scene.manifest("1")).header("Accept", TYPES[2]).header("Accept", TYPES[3]);
    scene.send(request).is(200);
}

#[test]
fn a_stale_tag_whose_blobs_cannot_be_had_is_not_served() {
    let mut scene = Scene::with("tag_ttl = 0\nprefetch = \"none\"", 20_000);
    scene.get(&scene.manifest("1")).is(200);
    scene.get(&scene.manifest(&scene.image.manifest.digest)).is(200);
    scene.upstream.stop();
    assert!([502, 504].contains(&scene.get(&scene.manifest("1")).status()));
    scene.upstream.start_again();
    let mut scene = scene.pulled();
    scene.upstream.stop();
    scene.get(&scene.manifest("1")).is(200);
}

#[test]
fn what_is_resumed_after_a_cut_is_206_from_there_to_the_end() {
    let scene = Scene::of(8 * MIB);
    scene.upstream.fault(&scene.layer().digest, 0..1, Fault::Cut(3 * MIB));
    scene.upstream.fault(&scene.layer().digest, 1..2, Fault::Status(404));
    let got = scene.get(&scene.blob());
    assert_eq!(got.end, End::Short);
    let (at, size) = (got.body.len(), scene.layer().size());
    let rest = scene.range(&format!("bytes={at}-")).is(206);
    let told: Vec<_> =
        rest.head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-range")).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, format!("bytes {at}-{}/{size}", size - 1));
    assert!([got.body, rest.body].concat() == scene.layer().bytes());
}

#[test]
fn zstd_chunked_asks_for_many_ranges_at_once() {
    let scene = Scene::of(3 * MIB);
    let ranges: Vec<(u64, u64)> = (0..1024).map(|n| (n * 3000, n * 3000 + 9)).collect();
    let header: Vec<_> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    for _cold_and_cached in 0..2 {
        let got = scene.range(&format!("bytes={}", header.join(","))).is(206);
        let kind = got.header("content-type").unwrap().to_owned();
        let boundary =
            kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
        let boundary = boundary.trim_matches('"');
        assert_eq!(got.header("content-length").unwrap(), got.body.len().to_string());
        let mut rest = &got.body[..];
        for (first, last) in &ranges {
            let head = format!("--{boundary}\r\n");
            let at = find(rest, head.as_bytes());
            rest = &rest[at + head.len()..];
            let end = find(rest, b"\r\n\r\n");
            let headers = String::from_utf8_lossy(&rest[..end]).to_lowercase();
            let range = format!("content-range: bytes {first}-{last}/{}", scene.layer().size());
            assert!(headers.contains(&range), "{headers}");
            let length = (last - first + 1) as usize;
            assert!(rest[end + 4..end + 4 + length] == scene.layer().slice(*first, length as u64));
            rest = &rest[end + 4 + length..];
        }
        assert_eq!(String::from_utf8_lossy(rest).trim(), format!("--{boundary}--"));
    }
}

#[test]
fn more_ranges_than_anybody_asks_for_are_400() {
    let scene = Scene::of(3 * MIB);
    let header: Vec<_> = (0..1025).map(|n| format!("{n}-{n}")).collect();
    scene.range(&format!("bytes={}", header.join(","))).is(400);
}

#[test]
fn a_missing_signature_is_manifest_unknown() {
    let scene = Scene::small();
    let tag = format!("{}.sig", scene.image.manifest.digest.replace(':', "-"));
    scene.get(&scene.manifest(&tag)).refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn support_of_signatures_is_not_claimed() {
    let scene = Scene::small();
    for target in ["/v2/".to_owned(), scene.manifest("1")] {
        assert_eq!(scene.get(&target).is(200).header("x-registry-supports-signatures"), None);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap_or_else(|| {
        panic!(
            "no {:?} in {:?}",
            String::from_utf8_lossy(what),
            String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
        )
    })
}
