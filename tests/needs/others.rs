//! docker, crane, oras, helm, regctl.

use super::*;

#[test]
fn dockers_ping_does_not_wait_for_an_upstream() {
    let mut scene = Scene::small();
    scene.upstream.stop();
    scene.get("/v2/").is(200);
}

#[test]
fn dockers_range_has_a_content_range_from_its_offset_to_the_end() {
    let scene = Scene::of(3 * MIB);
    let got = scene.range("bytes=1000-").is(206);
    let size = scene.layer().size();
    assert_eq!(got.header("content-range").unwrap(), format!("bytes 1000-{}/{size}", size - 1));
}

#[test]
fn cranes_plain_get_of_a_blob_is_200_with_the_descriptors_length() {
    let scene = Scene::small();
    for _cold_and_cached in 0..2 {
        let got = scene.get(&scene.blob()).is(200);
        assert_eq!(got.header("content-length").unwrap(), scene.layer().size().to_string());
        assert_eq!(got.header("content-range"), None);
    }
}

#[test]
fn a_manifests_content_type_carries_no_parameters() {
    let scene = Scene::small();
    let odd = Manifest::new(&format!("{OCI_MANIFEST}; charset=utf-8"), scene.image.manifest.bytes.to_vec());
    scene.upstream.change(|layout| layout.add_manifest("library/app", "odd", &odd));
    assert_eq!(scene.get(&scene.manifest("odd")).is(200).header("content-type"), Some(OCI_MANIFEST));
}

#[test]
fn oras_and_helm_get_the_digest_that_they_asked_for_on_blobs_too() {
    let scene = Scene::small();
    assert_eq!(
        scene.get(&scene.blob()).is(200).header("docker-content-digest"),
        Some(&*scene.layer().digest)
    );
    let part = scene.range("bytes=0-9").is(206);
    assert_eq!(part.header("docker-content-digest"), Some(&*scene.layer().digest));
    let manifest = scene.get(&scene.manifest(&scene.index.digest)).is(200);
    assert_eq!(manifest.header("docker-content-digest"), Some(&*scene.index.digest));
}

#[test]
fn regctl_resumes_one_past_the_end() {
    let scene = Scene::of(3 * MIB);
    let size = scene.layer().size();
    let got = scene.range(&format!("bytes=1000-{size}")).is(206);
    assert!(got.body == scene.layer().slice(1000, size - 1000));
}

#[test]
fn pages_of_tags_lead_back_here() {
    let scene = Scene::small();
    for tag in ["2", "3"] {
        scene.upstream.change(|layout| layout.add_manifest("library/app", tag, &scene.index));
    }
    for (begin, kept) in [
        ("/v2/library/app/tags/list?n=1&ns=docker.io", "ns=docker.io"),
        ("/v2/docker.io/library/app/tags/list?n=1", "/v2/docker.io/library/app/tags/list?"),
    ] {
        let (mut target, mut tags) = (begin.to_owned(), vec![]);
        loop {
            let page = scene.get(&target).is(200);
            let list: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
            tags.extend(list["tags"].as_array().unwrap().clone());
            let Some(link) = page.header("link") else { break };
            assert!(
                link.ends_with("; rel=\"next\"") && link.starts_with("</v2/") && link.contains(kept),
                "{link}"
            );
            target = link[1..link.find('>').unwrap()].to_owned();
        }
        assert_eq!(tags, ["1", "2", "3"]);
    }
}

#[test]
fn referrers_are_exactly_an_index_and_say_when_they_are_filtered() {
    let scene = Scene::small();
    let target = format!("/v2/library/app/referrers/{}?ns=docker.io", scene.image.manifest.digest);
    let all = scene.get(&target).is(200);
    assert_eq!(all.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    assert_eq!(all.header("oci-filters-applied"), None);
    let some = scene.get(&format!("{target}&artifactType=a%2Fb")).is(200);
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
}

#[test]
fn a_tag_of_cosigns_is_a_tag_like_any_other() {
    let scene = Scene::small();
    let tag = scene.image.manifest.digest.replace(':', "-");
    let signature = artifact("application/vnd.tests.signature+json", 300);
    scene.upstream.change(|layout| layout.add_manifest("library/app", &tag, &signature));
    assert!(scene.get(&scene.manifest(&tag)).is(200).body == *signature.bytes);
}
