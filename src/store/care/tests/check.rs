//! What a check finds, and what it does about it.

use super::*;

fn check(cache: &Cache) -> CheckReport {
    cache.folder().check(&Pace::free(), &mut |_| {}).unwrap()
}

fn repair(store: &Store) -> CheckReport {
    store.check_and_repair(&Pace::free(), &mut |_| {}).unwrap()
}

fn found(report: &CheckReport) -> Vec<(Fault, &str)> {
    let mut found: Vec<_> =
        report.findings.iter().map(|finding| (finding.fault, finding.path.to_str().unwrap())).collect();
    found.sort_by_key(|(_, path)| *path);
    found
}

fn below(cache: &Cache, path: &Path) -> String {
    path.strip_prefix(cache.folder.path()).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_sound_cache_is_found_sound() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"1", b"22"], 100);
    let report = check(&cache);
    assert_eq!((report.wrong, report.references, report.findings.len()), (0, 2, 0));
    assert_eq!(report.checked.blobs, Tally { files: 2, bytes: 3 });
    assert_eq!(report.checked.manifests, Tally { files: 1, bytes: manifest.len() as u64 });
    assert_eq!(report.orphans, Some(Usage::default()));
}

#[test]
fn a_turned_bit_a_short_file_and_a_stray_one_are_found_and_nothing_is_changed() {
    let cache = Cache::new();
    let flipped = vec![7; 3 << 20];
    let manifest = cache.pulled("quay.io/a:1", &[&flipped, b"short", b"sound"], 100);
    let mut bytes = flipped.clone();
    bytes[2 << 20] ^= 1;
    let path = cache.path("blobs").join(digest(&flipped).hex());
    fs::write(&path, &bytes).unwrap();
    let short = cache.path("blobs").join(digest(b"short").hex());
    fs::write(&short, b"sho").unwrap();
    fs::write(cache.path("img/README"), b"").unwrap();
    let before = [cache.files("blobs"), cache.files("img"), cache.files("refs")];
    let report = check(&cache);
    let mut wrong = [
        (Fault::WrongContent, below(&cache, &path)),
        (Fault::WrongContent, below(&cache, &short)),
        (Fault::Foreign, "img/README".to_owned()),
    ];
    wrong.sort_by_key(|(_, path)| path.clone());
    assert_eq!(found(&report), wrong.iter().map(|(fault, path)| (*fault, path.as_str())).collect::<Vec<_>>());
    assert_eq!((report.wrong, report.repaired), (2, 0));
    assert_eq!([cache.files("blobs"), cache.files("img"), cache.files("refs")], before);
    assert!(cache.has_manifest(&manifest));
}

#[test]
fn a_repair_puts_aside_what_is_wrong_and_the_store_forgets_it() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"layer"], 100);
    let other = cache.pulled("quay.io/b:1", &[b"other"], 100);
    let store = cache.open();
    assert!(store.manifest(&digest(&manifest)).is_some());
    fs::write(cache.path("blobs").join(digest(b"other").hex()), b"othes").unwrap();
    fs::write(cache.path("img").join(digest(&manifest).hex()), b"{}").unwrap();
    let report = repair(&store);
    assert_eq!((report.wrong, report.repaired), (2, 2));
    assert!(store.manifest(&digest(&manifest)).is_none(), "memory served what the disk had lost");
    assert!(store.blob(&digest(b"other")).unwrap().is_none());
    assert_eq!(fs::read(cache.path(format!("partial/{}.bad", digest(b"other").hex()))).unwrap(), b"othes");
    assert!(store.manifest(&digest(&other)).is_some());
    assert_eq!(cache.folder().last_check(), Some(report));
    // The names that led to it have gone along.
    assert!(store.reference(&image("quay.io/a:1")).is_none());
    assert_eq!(repair(&store).wrong, 0);
}

#[test]
fn references_are_held_against_their_content() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"1"], 100);
    let gone = manifest_of(&[b"2"]);
    let dangling = cache.name(&image("quay.io/a:dangling"), &gone, false, 100);
    let malformed = cache.name(&image("quay.io/a:malformed"), &manifest, false, 100);
    fs::write(&malformed, b"{ half").unwrap();
    let wrong = cache.name(&image("quay.io/a:wrong"), &manifest, false, 100);
    let text = fs::read_to_string(&wrong).unwrap();
    let size = format!("\"size\":{}", manifest.len());
    fs::write(&wrong, text.replace(&size, "\"size\":5")).unwrap();
    let expected = [
        (Fault::Dangling, below(&cache, &dangling)),
        (Fault::Malformed, below(&cache, &malformed)),
        (Fault::WrongSize, below(&cache, &wrong)),
    ];
    let expected: Vec<_> = expected.iter().map(|(fault, path)| (*fault, path.as_str())).collect();
    assert_eq!(found(&check(&cache)), expected);
    let store = cache.open();
    assert_eq!(found(&repair(&store)), expected);
    assert!(!dangling.exists() && !malformed.exists() && !wrong.exists());
    assert_eq!(repair(&store).wrong, 0);
    assert!(store.reference(&image("quay.io/a:1")).is_some());
}

#[test]
fn a_pipe_and_a_folder_among_the_contents_are_nobody_s_and_hold_nobody_up() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"1"], 9000);
    let at = |folder: &str, bytes: &[u8]| cache.path(folder).join(digest(bytes).hex());
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o640);
    nix::unistd::mkfifo(&at("blobs", b"pipe"), mode).unwrap();
    fs::create_dir(at("blobs", b"folder")).unwrap();
    let store = cache.open();
    let report = repair(&store);
    assert_eq!((report.wrong, report.findings.len()), (0, 2));
    assert!(report.findings.iter().all(|finding| finding.fault == Fault::Foreign));
    assert!(at("blobs", b"folder").exists());
    assert!(store.blob(&digest(b"pipe")).unwrap().is_none());
    assert!(store.blob(&digest(b"folder")).unwrap().is_none());
    prune(&store, &only_garbage());
    assert!(at("blobs", b"folder").exists() && cache.has_manifest(&manifest));
}

#[test]
fn a_folder_in_a_reference_s_place_ends_neither_list_nor_prune() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 9000);
    fs::create_dir(cache.path("refs/quay.io/a/_tags/2")).unwrap();
    cache.blob(b"orphan");
    let mut listed = 0;
    let mut tell = |_| {
        listed += 1;
        std::ops::ControlFlow::Continue(())
    };
    cache.folder().list(&ListRequest::default(), &Pace::free(), &mut tell).unwrap();
    assert_eq!(listed, 1);
    prune(&cache.open(), &only_garbage());
    assert!(cache.has_blob(b"1") && !cache.has_blob(b"orphan"));
}

#[test]
fn a_use_that_is_still_to_come_keeps_no_image() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 9000);
    let ahead = SystemTime::now() + Duration::from_secs(86_400);
    let tag = cache.path("refs/quay.io/a/_tags/1");
    let text = fs::read_to_string(&tag).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["fetched"] = "2020-01-01T00:00:00Z".into();
    fs::write(&tag, record.to_string()).unwrap();
    File::open(&tag).unwrap().set_modified(ahead).unwrap();
    let request = PruneRequest { free: Some(1), spare_recent: true, ..PruneRequest::default() };
    assert_eq!(prune(&cache.open(), &request).images, 1);
}

#[test]
fn orphans_are_counted_and_are_no_fault() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 100);
    cache.blob(b"orphan");
    // Not younger than the check, by a clock of seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let report = check(&cache);
    assert_eq!(report.wrong, 0);
    assert_eq!(report.orphans.unwrap().blobs, Tally { files: 1, bytes: 6 });
}

#[test]
fn a_newer_file_is_not_put_aside_for_an_older_one() {
    let cache = Cache::new();
    let path = cache.blob(b"layer");
    let store = cache.open();
    let (old, _) = store.blob(&digest(b"layer")).unwrap().unwrap();
    let new = cache.path("partial/x");
    fs::write(&new, b"layer").unwrap();
    fs::rename(&new, &path).unwrap();
    assert!(!store.put_aside(crate::store::Kind::Blob, &digest(b"layer"), Some(&old), "for a test"));
    assert!(path.exists());
}

#[test]
fn a_check_stops_when_it_is_told_to() {
    let cache = Cache::new();
    cache.blob(&[0; 100]);
    let stop = || true;
    let ended = cache.folder().check(&Pace::until(&stop), &mut |_| {});
    assert!(matches!(ended, Err(CareError::Stopped)));
}
