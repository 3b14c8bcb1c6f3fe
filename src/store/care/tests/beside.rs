//! A sweep beside pulls. `prune` tells of each image as it goes: that is the moment at which these tests act.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::oci::Reference;

/// Prunes all, and acts once, when the first name is gone.
fn prune_and(store: &Store, request: &PruneRequest, act: impl FnOnce(&Image)) -> PruneReport {
    let mut act = Some(act);
    let mut tell = |image: &Image| {
        if let Some(act) = act.take() {
            act(image);
        }
    };
    let report = store.prune(request, &Pace::free(), &mut tell).unwrap();
    assert!(act.is_none(), "nothing was told: {report:?}");
    report
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn publish(store: &Store, tag: &str, manifest: &Bytes) {
    let (tag, record) = (image(tag), Arc::new(record(manifest)));
    let names = vec![(by_digest(&tag.name.to_string(), manifest), record.clone()), (tag, record)];
    wait(store.publish_manifest(manifest.clone(), names));
}

fn publish_blob(store: &Store, bytes: &[u8]) {
    let mut partial = store.begin(digest(bytes)).unwrap();
    partial.append(bytes).unwrap();
    wait(store.publish_blob(Arc::new(partial.finish().unwrap())));
}

#[test]
fn what_is_published_during_a_sweep_keeps_blobs_that_nobody_led_to() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"1", b"2"], 100);
    cache.blob(b"garbage that is wanted again");
    cache.blob(b"garbage");
    let store = cache.open();
    let new = manifest_of(&[b"1", b"garbage that is wanted again"]);
    prune_and(&store, &everything(), |_| publish(&store, "quay.io/b:new", &new));
    assert!(store.reference(&image("quay.io/b:new")).is_some());
    assert!(store.reference(&image("quay.io/a:old")).is_none());
    store.close();
    assert!(cache.has_manifest(&new) && cache.has_blob(b"1"));
    assert!(cache.has_blob(b"garbage that is wanted again"));
    assert!(!cache.has_blob(b"2") && !cache.has_blob(b"garbage"));
    let refs = cache.files("refs");
    assert_eq!(refs.len(), 2, "{refs:?}");
}

#[test]
fn what_is_served_during_a_sweep_stays_with_all_that_it_leads_to() {
    let cache = Cache::new();
    let child = manifest_of(&[b"1", b"2"]);
    let index = index_of(&[&child]);
    for tag in ["quay.io/a:x", "quay.io/b:x"] {
        let name = image(tag).name.to_string();
        cache.name(&image(tag), &index, false, 100);
        cache.name(&by_digest(&name, &index), &index, false, 100);
        cache.name(&by_digest(&name, &child), &child, false, 100);
    }
    cache.manifest(&child);
    cache.manifest(&index);
    cache.blob(b"1");
    cache.blob(b"2");
    cache.blob(b"3");
    let store = cache.open();
    let served = std::cell::OnceCell::new();
    let report = prune_and(&store, &everything(), |gone| {
        let other = if gone.name.repository.as_str() == "a" { "quay.io/b:x" } else { "quay.io/a:x" };
        let record = store.reference(&image(other)).unwrap();
        store.touch(&image(other), &record);
        served.set(image(other)).unwrap();
    });
    let served = served.into_inner().unwrap();
    assert_eq!(report.images, 1);
    assert!(report.spared >= 4, "{report:?}");
    store.close();
    let store = {
        drop(store);
        cache.open()
    };
    let record = store.reference(&served).unwrap();
    assert_eq!(store.manifest(&record.digest).unwrap(), index);
    let child_of = Image { name: served.name, reference: Reference::Digest(digest(&child)) };
    assert_eq!(store.manifest(&store.reference(&child_of).unwrap().digest).unwrap(), child);
    assert!(cache.has_blob(b"1") && cache.has_blob(b"2") && !cache.has_blob(b"3"));
}

#[test]
fn a_blob_that_is_found_during_a_sweep_stays() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"1"], 100);
    for bytes in [b"hit", b"see", b"has", b"not"] {
        cache.blob(bytes);
    }
    let store = cache.open();
    prune_and(&store, &everything(), |_| {
        assert!(store.blob(&digest(b"hit")).unwrap().is_some());
        // Not everywhere can a file be opened without a look at the disk.
        if store.blob_at_hand(&digest(b"see")).is_none() {
            assert!(store.blob(&digest(b"see")).unwrap().is_some());
        }
        assert!(store.has_blob(&digest(b"has")));
    });
    assert!(cache.has_blob(b"hit") && cache.has_blob(b"see") && cache.has_blob(b"has"));
    assert!(!cache.has_blob(b"not"));
}

#[test]
fn a_blob_that_is_published_during_a_sweep_stays() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"1", b"again"], 100);
    let store = cache.open();
    prune_and(&store, &everything(), |_| {
        publish_blob(&store, b"again");
        publish_blob(&store, b"new");
    });
    store.close();
    assert!(cache.has_blob(b"again") && cache.has_blob(b"new") && !cache.has_blob(b"1"));
}

#[test]
fn what_was_handed_over_just_before_a_sweep_is_seen_by_it() {
    let cache = Cache::new();
    let store = cache.open();
    let manifest = manifest_of(&[b"1"]);
    publish_blob(&store, b"1");
    publish(&store, "quay.io/a:1", &manifest);
    // Perhaps nothing of it is on disk yet.
    prune(&store, &only_garbage());
    assert!(cache.has_blob(b"1") && cache.has_manifest(&manifest));
    let report = prune(&store, &everything());
    assert_eq!((report.images, report.manifests.files, report.blobs.files), (1, 1, 1));
    store.close();
    assert!(!cache.has_blob(b"1") && !cache.has_manifest(&manifest));
    assert!(cache.files("refs").is_empty());
}

#[test]
fn a_blob_that_is_being_read_stays_readable() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"layer"], 100);
    let store = cache.open();
    let (file, _) = store.blob(&digest(b"layer")).unwrap().unwrap();
    prune(&store, &everything());
    assert!(store.blob(&digest(b"layer")).unwrap().is_none());
    let mut bytes = [0; 5];
    std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"layer");
}

#[test]
fn memory_forgets_what_is_pruned_and_takes_it_back_when_it_comes_again() {
    let cache = Cache::new();
    let manifest = cache.pulled("quay.io/a:1", &[b"1"], 100);
    let store = cache.open();
    let name = image("quay.io/a:1");
    assert!(store.reference(&name).is_some() && store.manifest(&digest(&manifest)).is_some());
    prune(&store, &everything());
    assert!(store.reference_at_hand(&name).is_none() && store.reference(&name).is_none());
    assert!(store.manifest_at_hand(&digest(&manifest)).is_none());
    assert!(store.manifest(&digest(&manifest)).is_none());
    publish(&store, "quay.io/a:1", &manifest);
    assert!(store.reference(&name).is_some() && store.manifest(&digest(&manifest)).is_some());
    store.close();
    assert!(cache.has_manifest(&manifest));
}

#[test]
fn a_tag_that_is_confirmed_after_it_was_pruned_stays_away() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 100);
    let store = cache.open();
    let record = store.reference(&image("quay.io/a:1")).unwrap();
    prune(&store, &everything());
    store.refresh(&image("quay.io/a:1"), Arc::new(record.checked_now()));
    assert!(store.reference(&image("quay.io/a:1")).is_none());
}

#[test]
fn wherever_a_prune_ends_no_name_has_lost_its_content() {
    for steps in 0u32.. {
        let cache = Cache::new();
        let child = manifest_of(&[b"1", b"2"]);
        let index = index_of(&[&child]);
        for manifest in [&child, &index] {
            cache.manifest(manifest);
            cache.name(&by_digest("quay.io/a", manifest), manifest, false, 100);
        }
        cache.name(&image("quay.io/a:x"), &index, false, 100);
        cache.blob(b"1");
        cache.pulled("quay.io/a:y", &[b"2", b"3"], 100);
        cache.pulled("ghcr.io/b:y", &[b"3", b"4"], 100);
        let store = cache.open();
        let left = std::cell::Cell::new(steps);
        let stop = || left.replace(left.get().saturating_sub(1)) == 0;
        let ended = store.prune(&everything(), &Pace::until(&stop), &mut |_| {});
        for (tag, blobs) in
            [("quay.io/a:x", [b"1", b"2"]), ("quay.io/a:y", [b"2", b"3"]), ("ghcr.io/b:y", [b"3", b"4"])]
        {
            let Some(record) = store.reference(&image(tag)) else { continue };
            assert!(cache.path("img").join(record.digest.hex()).exists(), "{tag} after {steps} steps");
            for blob in blobs {
                assert!(cache.has_blob(blob), "{tag} after {steps} steps");
            }
        }
        if ended.is_ok() {
            assert!(steps > 20, "only {steps} steps");
            assert!(cache.files("refs").is_empty() && cache.files("blobs").is_empty());
            return;
        }
        assert!(matches!(ended, Err(CareError::Stopped)));
        // What was left over goes the next time.
        prune(&store, &everything());
        assert!(cache.files("img").is_empty() && cache.files("blobs").is_empty());
    }
}

#[test]
fn pulls_go_on_while_everything_else_is_pruned_again_and_again() {
    let cache = Cache::new();
    let pool: Vec<Vec<u8>> = (0..40u8).map(|number| vec![number; 100]).collect();
    for (number, blobs) in pool.chunks(2).enumerate() {
        cache.pulled(&format!("quay.io/old:{number}"), &[&blobs[0], &blobs[1]], 1000);
    }
    let store = cache.open();
    let rounds = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // The old ones are pulled again meanwhile, so that there is always something to do.
                prune(&store, &PruneRequest { patterns: vec!["old".to_owned()], ..only_garbage() });
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        for number in 0..60usize {
            let blobs: Vec<&Vec<u8>> =
                (0..3).map(|part| &pool[(number * 7 + part * 5) % pool.len()]).collect();
            let parts: Vec<&[u8]> = blobs.iter().map(|blob| blob.as_slice()).collect();
            let manifest = manifest_of(&parts);
            let tag = format!("quay.io/new:{number}");
            publish(&store, &tag, &manifest);
            // As a pull does: what is there is used, what is not is fetched. From then on it stays.
            for blob in &parts {
                if store.blob(&digest(blob)).unwrap().is_none() {
                    publish_blob(&store, blob);
                }
            }
            let again = manifest_of(&[&pool[number % pool.len()], &pool[(number + 1) % pool.len()]]);
            publish(&store, &format!("quay.io/old:{number}"), &again);
            let seen = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) == seen {
                std::thread::yield_now();
            }
            assert!(store.reference(&image(&tag)).is_some(), "{tag}");
            assert_eq!(store.manifest(&digest(&manifest)).unwrap(), manifest);
            for blob in &parts {
                assert!(store.has_blob(&digest(blob)), "{tag}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.close();
    for number in 0..60usize {
        for part in 0..3 {
            assert!(cache.has_blob(&pool[(number * 7 + part * 5) % pool.len()]));
        }
    }
    assert!(rounds.load(Ordering::Relaxed) >= 60);
    // Nothing is held back for ever.
    let store = {
        drop(store);
        cache.open()
    };
    prune(&store, &everything());
    assert!(cache.files("blobs").is_empty() && cache.files("refs").is_empty());
}

#[test]
fn room_is_made_only_when_the_rules_allow_it() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"1234"], 9000);
    cache.pulled("quay.io/a:kept", &[b"5678"], 9000);
    cache.pulled("quay.io/a:recent", &[b"abcd"], 60);
    let store = cache.open();
    let evict = |bytes| store.evict(bytes, &Pace::free()).unwrap().map(|report| report.images);
    assert_eq!(evict(1), None);
    assert_eq!(cache.files("blobs").len(), 3);
    store.pin(&image("quay.io/a:kept"), PinAction::Pin).unwrap();
    store.set_rules(Rules { evict: true, ..Rules::default() });
    // More than there is: nothing goes for it.
    assert_eq!(evict(1 << 20), None);
    assert_eq!(cache.files("blobs").len(), 3);
    assert_eq!(evict(1), Some(1));
    assert!(!cache.has_blob(b"1234") && cache.has_blob(b"5678") && cache.has_blob(b"abcd"));
    // There is nothing else: what was used within the hour.
    assert_eq!(evict(1), Some(1));
    assert!(cache.has_blob(b"5678") && !cache.has_blob(b"abcd"));
    assert_eq!(evict(1), None);
    assert!(cache.has_blob(b"5678"));
}

#[test]
fn room_is_made_of_what_downloads_left_before_any_image_goes() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"1234"], 9000);
    let left = |name: &str, ago| {
        let path = cache.path("partial").join(name);
        std::fs::write(&path, vec![1; 5000]).unwrap();
        set_age(&path, ago);
    };
    let store = cache.open();
    let (one, other, wrong) = (digest(b"one"), digest(b"other"), digest(b"wrong"));
    left(&one.hex(), 4000);
    left(&other.hex(), 3000);
    left(&format!("{}.bad", wrong.hex()), 0);
    store.set_rules(Rules { evict: true, ..Rules::default() });
    let report = store.evict(10_000, &Pace::free()).unwrap().unwrap();
    assert_eq!((report.images, cache.files("partial")), (0, vec![format!("partial/{}", other.hex())]));
    assert!(cache.has_blob(b"1234"));
}

#[test]
fn what_was_used_or_came_within_the_hour_is_spared_by_rounds() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:old", &[b"old"], 9000);
    let young = manifest_of(&[b"child of an index that moved"]);
    cache.manifest(&young);
    cache.blob(b"child of an index that moved");
    cache.name(&by_digest("quay.io/a", &young), &young, false, 60);
    cache.blob(b"came before its manifest");
    let store = cache.open();
    let request = PruneRequest { spare_recent: true, ..everything() };
    prune(&store, &request);
    // What was an image's goes with it, however young its file.
    assert!(!cache.has_blob(b"old"));
    assert!(cache.has_manifest(&young) && cache.has_blob(b"child of an index that moved"));
    assert!(cache.has_blob(b"came before its manifest"));
    prune(&store, &only_garbage());
    assert!(!cache.has_manifest(&young) && cache.files("blobs").is_empty());
}

#[test]
fn lists_go_with_what_they_are_of() {
    use crate::oci::{Referrers, Subject, TagList};
    use crate::store::Kept;
    let cache = Cache::new();
    let goes = cache.pulled("quay.io/goes:1", &[b"1"], 9000);
    let stays = cache.pulled("quay.io/stays:1", &[b"2"], 9000);
    let store = cache.open();
    let subject = |name: &str, bytes: &[u8]| Subject { name: image(name).name, digest: digest(bytes) };
    let subjects = [
        subject("quay.io/goes", &goes),
        subject("quay.io/stays", &stays),
        subject("quay.io/stays", b"another"),
    ];
    for subject in &subjects {
        let tags = Arc::new(Kept::now(TagList::parse("[\"1\"]").unwrap()));
        wait(store.publish_tag_list(&subject.name, tags));
        let referrers = Referrers::parse(br#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        wait(store.publish_referrers(subject, Arc::new(Kept::now(referrers))));
    }
    let round = PruneRequest { spare_recent: true, ..only_garbage() };
    prune(&store, &round);
    assert_eq!(cache.files("refs").len(), 4 + 2 + 3, "{:?}", cache.files("refs"));
    let request = PruneRequest { patterns: vec!["/goes:".to_owned()], ..PruneRequest::default() };
    prune(&store, &PruneRequest { dry_run: true, ..request.clone() });
    assert_eq!(cache.files("refs").len(), 4 + 2 + 3);
    prune(&store, &request);
    let layout = cache.folder().layout;
    assert!(!cache.path("refs/quay.io/goes").exists());
    assert!(layout.tag_list(&subjects[1].name).exists() && layout.referrers(&subjects[1]).exists());
    assert!(!layout.referrers(&subjects[2]).exists());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.tag_list(&subjects[0].name)).is_none());
    assert!(runtime.block_on(store.referrers(&subjects[2])).is_none());
    assert!(runtime.block_on(store.referrers(&subjects[1])).is_some());
}
