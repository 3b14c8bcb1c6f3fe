//! What is listed, and pins.

use std::ops::ControlFlow;

use super::*;

fn list(cache: &Cache, request: &ListRequest) -> Vec<ListedImage> {
    let mut rows = Vec::new();
    let mut tell = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    cache.folder().list(request, &Pace::free(), &mut tell).unwrap();
    rows.sort_by_key(|row| (row.image.clone(), row.tag.clone(), row.digest));
    rows
}

fn names(rows: &[ListedImage]) -> Vec<String> {
    rows.iter().map(ListedImage::full_name).collect()
}

#[test]
fn an_image_of_several_platforms_is_a_list_and_the_images_that_we_hold_of_it() {
    let cache = Cache::new();
    let child = manifest_of(&[b"config", b"layer", b"layer"]);
    let elsewhere = manifest_of(&[b"another platform"]);
    let index = index_of(&[&child, &elsewhere]);
    cache.manifest(&child);
    cache.manifest(&index);
    cache.name(&image("quay.io/a:1"), &index, false, 5000);
    cache.name(&by_digest("quay.io/a", &index), &index, false, 100);
    cache.name(&by_digest("quay.io/a", &child), &child, false, 3000);
    let rows = list(&cache, &ListRequest::default());
    assert_eq!(names(&rows), [format!("quay.io/a@{}", digest(&child)), "quay.io/a:1".to_owned()]);
    assert_eq!((rows[0].kind, rows[1].kind), (ListedType::Image, ListedType::List));
    // A layer that is named twice is there once.
    assert_eq!(rows[0].size, child.len() as u64 + 6 + 5);
    assert_eq!(rows[1].size, rows[0].size + index.len() as u64);
    // By tag or by digest: the later use counts.
    let ago = jiff::Timestamp::now().duration_since(rows[1].pulled).as_secs();
    assert!((90..200).contains(&ago), "{ago}");
}

#[test]
fn what_was_asked_for_by_digest_is_listed_beside_its_tag() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"1"], 100);
    assert_eq!(names(&list(&cache, &ListRequest::default())), ["quay.io/a:1"]);
    cache.name(&by_digest("quay.io/a", &manifest), &manifest, true, 100);
    assert_eq!(list(&cache, &ListRequest::default()).len(), 2);
}

#[test]
fn patterns_are_found_anywhere_in_a_name_and_one_is_enough() {
    let cache = Cache::new();
    for tag in ["quay.io/a/b:1", "quay.io/a/c:1", "docker.io/library/d:latest"] {
        cache.pulled(tag, &[tag.as_bytes()], 100);
    }
    let matching = |patterns: &[&str]| {
        let patterns = patterns.iter().map(ToString::to_string).collect();
        names(&list(&cache, &ListRequest { patterns, ..ListRequest::default() }))
    };
    assert_eq!(matching(&["^quay.io/a/[bx]:"]), ["quay.io/a/b:1"]);
    assert_eq!(matching(&["latest$", "/c"]), ["docker.io/library/d:latest", "quay.io/a/c:1"]);
    assert!(matching(&["nothing"]).is_empty());
    let request = ListRequest { patterns: vec!["a(".to_owned()], ..ListRequest::default() };
    let error = cache.folder().list(&request, &Pace::free(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.to_string(), "`a(` is no regular expression: unclosed group");
}

#[test]
fn a_pin_outlives_a_restart_and_keeps_its_image() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 9000);
    cache.pulled("quay.io/a:2", &[b"2"], 9000);
    {
        let store = cache.open();
        let report = store.pin(&image("quay.io/a:1"), PinAction::Pin).unwrap();
        assert!(report.changed && report.pinned && report.cached);
        assert!(!store.pin(&image("quay.io/a:1"), PinAction::Pin).unwrap().changed);
        assert!(!store.pin(&image("quay.io/later:1"), PinAction::Pin).unwrap().cached);
    }
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(cache.path("pins.json")).unwrap()).unwrap();
    assert!(json["pins"]["quay.io/a:1"]["since"].is_string(), "{json}");
    let rows = list(&cache, &ListRequest { pinned: true, ..ListRequest::default() });
    assert_eq!(names(&rows), ["quay.io/a:1"]);
    let store = cache.open();
    let report = prune(&store, &everything());
    assert_eq!((report.images, report.kept), (1, 1));
    assert!(cache.has_blob(b"1") && !cache.has_blob(b"2"));
    assert!(store.pin(&image("quay.io/a:1"), PinAction::Unpin).unwrap().changed);
    assert_eq!(prune(&store, &everything()).images, 1);
}

#[test]
fn pins_that_cannot_be_understood_stop_a_prune() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 9000);
    fs::write(cache.path("pins.json"), b"{").unwrap();
    let store = cache.open();
    assert!(matches!(
        store.prune(&everything(), &Pace::free(), &mut |_| {}),
        Err(CareError::Malformed { .. })
    ));
    assert!(cache.has_blob(b"1"));
}

#[test]
fn a_folder_that_is_no_cache_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Folder::open(folder.path()), Err(OpenError::Missing(_))));
    assert!(matches!(Folder::open(&folder.path().join("nowhere")), Err(OpenError::Missing(_))));
    assert!(matches!(Store::open_existing(folder.path()), Err(OpenError::Missing(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
