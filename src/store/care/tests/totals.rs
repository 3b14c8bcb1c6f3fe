//! The totals, kept up without a walk, against a walk.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn publish_blob(store: &Store, bytes: &[u8]) {
    let mut partial = store.begin(digest(bytes)).unwrap();
    partial.append(bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.publish_blob(Arc::new(partial.finish().unwrap())));
}

/// What there is, by looking.
fn looked_at(cache: &Cache) -> Usage {
    let tally = |folder: &str| {
        let mut tally = Tally::default();
        cache.files(folder).iter().for_each(|file| tally.add(fs::metadata(cache.path(file)).unwrap().len()));
        tally
    };
    Usage { blobs: tally("blobs"), manifests: tally("img") }
}

#[test]
fn totals_follow_what_is_published_pruned_and_put_aside() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1", b"22"], 100);
    let store = cache.open();
    assert_eq!(store.usage(), None);
    assert_eq!(store.count(&Pace::free()).unwrap(), looked_at(&cache));
    publish_blob(&store, b"333");
    publish_blob(&store, b"1"); // which is there already
    store.publisher.settle(|| ());
    assert_eq!(store.usage(), Some(looked_at(&cache)));
    prune(&store, &only_garbage());
    assert_eq!(store.usage(), Some(looked_at(&cache)));
    assert!(!cache.has_blob(b"333"));
    let (file, _) = store.blob(&digest(b"22")).unwrap().unwrap();
    assert!(store.put_aside(crate::store::Kind::Blob, &digest(b"22"), Some(&file), "for a test"));
    assert_eq!(store.usage(), Some(looked_at(&cache)));
    prune(&store, &PruneRequest { keep_size: Some(0), ..PruneRequest::default() });
    assert_eq!(store.usage(), Some(Usage::default()));
    assert_eq!(looked_at(&cache), Usage::default());
}

#[test]
fn totals_are_doubtful_when_what_was_counted_had_another_length_until_they_are_counted_again() {
    let cache = Cache::new();
    cache.blob(b"1");
    let path = cache.blob(b"55555");
    let store = cache.open();
    store.count(&Pace::free()).unwrap();
    assert!(!store.is_usage_doubtful());
    File::options().write(true).open(path).unwrap().set_len(2).unwrap();
    let (file, _) = store.blob(&digest(b"55555")).unwrap().unwrap();
    assert!(!store.is_sound(crate::store::Kind::Blob, &digest(b"55555"), &file));
    assert!(store.is_usage_doubtful() && store.usage() != Some(looked_at(&cache)));
    let stop = || true;
    assert!(matches!(store.count(&Pace::until(&stop)), Err(CareError::Stopped)));
    assert!(store.is_usage_doubtful());
    assert_eq!(store.count(&Pace::free()).unwrap(), looked_at(&cache));
    assert!(!store.is_usage_doubtful());
}

#[test]
fn what_is_published_during_the_walk_is_counted_once() {
    let cache = Cache::new();
    for number in 0..300u32 {
        cache.blob(&number.to_le_bytes());
    }
    let store = cache.open();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 100_000..u32::MAX {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                publish_blob(&store, &number.to_le_bytes());
            }
        });
        for _ in 0..20 {
            store.count(&Pace::free()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.close();
    assert_eq!(store.usage(), Some(looked_at(&cache)));
}

#[test]
fn what_vanishes_during_the_walk_is_not_taken_off_though_it_was_not_counted() {
    let cache = Cache::new();
    for number in 0..50u32 {
        cache.blob(&number.to_le_bytes());
    }
    let manifest = cache.pulled("quay.io/a:1", &[b"1"], 100);
    let store = cache.open();
    let mut left = (0..2u32).map(u32::to_le_bytes);
    let left = std::cell::RefCell::new(&mut left);
    let names = cache.path("refs/quay.io/a/_tags");
    // Before the first file is looked at, and before the first name.
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        if let Some(bytes) = left.borrow_mut().next() {
            assert!(store.put_aside(crate::store::Kind::Blob, &digest(bytes), None, "for a test"));
        }
        false
    };
    assert_eq!(store.count(&Pace::until(&stop)).unwrap(), looked_at(&cache));
    assert!(asked.get() > 100, "walked once");
    assert_eq!(store.images(), Some(1));
    assert!(names.join("1").exists() && cache.has_manifest(&manifest));
}

#[test]
fn a_walk_that_is_stopped_changes_nothing() {
    let cache = Cache::new();
    cache.blob(b"1");
    let store = cache.open();
    let counted = store.count(&Pace::free()).unwrap();
    let stop = || true;
    assert!(matches!(store.count(&Pace::until(&stop)), Err(CareError::Stopped)));
    assert_eq!(store.usage(), Some(counted));
}

#[test]
fn the_file_system_tells_its_space() {
    let space = Cache::new().folder().space().unwrap();
    assert!(space.free > 0 && space.free < space.total);
}

#[test]
fn images_are_counted_when_they_get_their_names_and_lose_them() {
    let cache = Cache::new();
    cache.pulled("quay.io/a:1", &[b"1"], 9000);
    let child = manifest_of(&[b"2"]);
    cache.manifest(&child);
    cache.name(&by_digest("quay.io/a", &child), &child, false, 60);
    let store = cache.open();
    assert_eq!(store.images(), None);
    store.count(&Pace::free()).unwrap();
    assert_eq!(store.images(), Some(1));

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let publish = |name: Image, bytes: &Bytes, asked| {
        let media_type = MediaType::new(MediaType::OCI_IMAGE).unwrap();
        let record = Arc::new(Record::fetched_now(digest(bytes), media_type, bytes.len() as u64, asked));
        runtime.block_on(store.publish_manifest(bytes.clone(), vec![(name, record)]));
        store.publisher.settle(|| ());
        store.images()
    };
    let other = manifest_of(&[b"3"]);
    assert_eq!(publish(by_digest("quay.io/b", &other), &other, true), Some(2));
    assert_eq!(publish(by_digest("quay.io/b", &other), &other, true), Some(2));
    assert_eq!(publish(image("quay.io/b:1"), &other, false), Some(3));
    assert_eq!(publish(image("quay.io/b:1"), &child, false), Some(3));
    // Another's child that was asked for after all, and the other way round.
    assert_eq!(publish(by_digest("quay.io/a", &child), &child, true), Some(4));
    assert_eq!(publish(by_digest("quay.io/a", &child), &child, false), Some(3));
    runtime.block_on(store.forget(&image("quay.io/b:1")));
    runtime.block_on(store.forget(&image("quay.io/b:none")));
    store.publisher.settle(|| ());
    assert_eq!(store.images(), Some(2));

    // A check removes a name that leads nowhere.
    fs::remove_file(cache.path(format!("img/{}", digest(&other).hex()))).unwrap();
    assert_eq!(store.check_and_repair(&Pace::free(), &mut |_| {}).unwrap().wrong, 1);
    assert_eq!(store.images(), Some(1));
    prune(&store, &PruneRequest { keep_size: Some(0), ..PruneRequest::default() });
    assert_eq!(store.images(), Some(0));
    store.count(&Pace::free()).unwrap();
    assert_eq!(store.images(), Some(0));
}
