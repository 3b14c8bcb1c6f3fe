//! The store on a real folder.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::oci::{Algorithm, Digest, Image, MediaType, Name, Referrers, Subject, TagList};

fn name() -> Name {
    Name::new("quay.io".parse().unwrap(), "a/b".parse().unwrap())
}

fn image(reference: &str) -> Image {
    Image { name: name(), reference: reference.parse().unwrap() }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn large() -> Vec<u8> {
    (0..3 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn record(bytes: &[u8]) -> Arc<Record> {
    let media_type = MediaType::new(MediaType::OCI_IMAGE).unwrap();
    Arc::new(Record::fetched_now(digest(bytes), media_type, bytes.len() as u64, false))
}

#[tokio::test]
async fn a_blob_is_found_before_and_after_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let bytes = b"a layer";
    let mut partial = store.begin(digest(bytes)).unwrap();
    partial.expect(&name(), Some(7)).unwrap();
    partial.append(bytes).unwrap();
    assert!(store.blob(&digest(bytes)).unwrap().is_none());
    store.publish_blob(Arc::new(partial.finish().unwrap())).await;
    assert_eq!(store.blob(&digest(bytes)).unwrap().unwrap().1, 7);
    store.close();
    let path = folder.path().join("blobs").join(digest(bytes).hex());
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
    assert_eq!(store.blob(&digest(bytes)).unwrap().unwrap().1, 7);
}

#[test]
fn wrong_bytes_are_never_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut partial = store.begin(digest(b"right")).unwrap();
    partial.expect(&name(), None).unwrap();
    partial.append(b"wrong").unwrap();
    assert_eq!(partial.finish().unwrap_err().got, digest(b"wrong"));
    assert_eq!(fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_partial_blob_is_resumed_in_the_same_boot() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = large();
    {
        let store = Store::open(folder.path()).unwrap();
        let mut partial = store.begin(digest(&bytes)).unwrap();
        partial.expect(&name(), Some(bytes.len() as u64)).unwrap();
        partial.append(&bytes[..2 << 20]).unwrap();
    }
    let store = Store::open(folder.path()).unwrap();
    let mut partial = store.begin(digest(&bytes)).unwrap();
    assert_eq!((partial.length(), partial.size()), (2 << 20, Some(bytes.len() as u64)));
    partial.append(&bytes[2 << 20..]).unwrap();
    assert!(partial.finish().is_ok());
}

#[test]
fn after_another_boot_only_the_known_prefix_counts() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = large();
    let partials = folder.path().join("partial");
    {
        let store = Store::open(folder.path()).unwrap();
        let mut partial = store.begin(digest(&bytes)).unwrap();
        partial.expect(&name(), Some(bytes.len() as u64)).unwrap();
        partial.append(&bytes[..2 << 20]).unwrap();
        // What a crash of the machine can leave behind the synced part.
        partial.file().write_all_at(&[0; 100], 1 << 20).unwrap();
    }
    let sidecar = partials.join(format!("{}.json", digest(&bytes).hex()));
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&sidecar).unwrap()).unwrap();
    json["boot"] = "another".into();
    json["prefix"] = (1 << 20).into();
    fs::write(&sidecar, json.to_string()).unwrap();

    let store = Store::open(folder.path()).unwrap();
    let mut partial = store.begin(digest(&bytes)).unwrap();
    assert_eq!(partial.length(), 1 << 20);
    // What is written from now on can be gone on from as long as this boot lasts.
    partial.expect(&name(), Some(bytes.len() as u64)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&sidecar).unwrap()).unwrap();
    assert_ne!(json["boot"], "another");
    assert_eq!(json["prefix"], 1 << 20);
    partial.append(&bytes[1 << 20..]).unwrap();
    assert!(partial.finish().is_ok());
}

#[test]
fn a_sweep_leaves_the_sidecar_of_a_download_and_goes_on_behind_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let partials = folder.path().join("partial");
    let days_ago = |name: &str, days: u64| {
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        fs::File::open(partials.join(name)).unwrap().set_modified(time).unwrap();
    };
    fs::create_dir(partials.join("somebody's")).unwrap();
    for name in ["a", "a.json", "b", "b.json", "new-7"] {
        fs::write(partials.join(name), b"").unwrap();
    }
    for name in ["somebody's", "a.json", "b", "b.json"] {
        days_ago(name, 2);
    }
    drop(Store::open(folder.path()).unwrap());
    let mut left: Vec<_> = fs::read_dir(&partials)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["a", "a.json", "somebody's"]);
}

#[test]
fn a_folder_that_has_names_already_is_not_new() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("refs/quay.io")).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().images(), None);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().images(), Some(0));
}

#[test]
fn what_a_download_left_goes_when_the_disk_is_full_or_has_lost_it() {
    use nix::errno::Errno;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (digest, path) = (digest(b"x"), folder.path().join("partial").join(digest(b"x").hex()));
    for (errno, stays) in [(Errno::EMFILE, true), (Errno::ENOSPC, false), (Errno::EIO, false)] {
        fs::write(&path, b"").unwrap();
        store.give_up(&digest, &StoreError::on("write", &path)(errno.into()), 1);
        assert_eq!(path.exists(), stays, "{errno}");
    }
}

#[test]
fn without_a_sidecar_a_partial_blob_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    fs::write(folder.path().join("partial").join(digest(b"x").hex()), b"leftover").unwrap();
    assert_eq!(store.begin(digest(b"x")).unwrap().length(), 0);
}

#[tokio::test]
async fn a_manifest_is_found_under_its_names_only_and_survives() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Bytes::from_static(b"{}");
    let by_digest = image(&digest(&bytes).to_string());
    {
        let store = Store::open(folder.path()).unwrap();
        let record = record(&bytes);
        let names = vec![(by_digest.clone(), record.clone()), (image("v1"), record)];
        store.publish_manifest(bytes.clone(), names).await;
        assert!(store.reference(&image("v1")).is_some());
        assert!(store.reference(&image("v2")).is_none());
    }
    let store = Store::open(folder.path()).unwrap();
    let record = store.reference(&image("v1")).unwrap();
    assert_eq!(store.manifest(&record.digest).unwrap(), bytes);
    assert!(store.reference(&by_digest).is_some());
    let other = Image { name: Name::new("ghcr.io".parse().unwrap(), "a/b".parse().unwrap()), ..by_digest };
    assert!(store.reference(&other).is_none());
    let tag = folder.path().join("refs/quay.io/a/b/_tags/v1");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(tag).unwrap()).unwrap();
    assert_eq!(json["digest"], record.digest.to_string());
    assert!(json["checked"].is_string() && json["fetched"].is_string() && json["size"] == 2);
}

#[tokio::test]
async fn a_forgotten_tag_is_gone_for_good() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = Store::open(folder.path()).unwrap();
        let bytes = Bytes::from_static(b"{}");
        store.publish_manifest(bytes.clone(), vec![(image("v1"), record(&bytes))]).await;
        store.forget(&image("v1")).await;
        assert!(store.reference(&image("v1")).is_none());
    }
    assert!(Store::open(folder.path()).unwrap().reference(&image("v1")).is_none());
}

#[tokio::test]
async fn a_manifest_that_rotted_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let hex = digest(b"{}").hex();
    {
        let store = Store::open(folder.path()).unwrap();
        let bytes = Bytes::from_static(b"{}");
        store.publish_manifest(bytes.clone(), vec![(image("v1"), record(&bytes))]).await;
    }
    fs::write(folder.path().join("img").join(&hex), b"[]").unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert!(store.manifest(&digest(b"{}")).is_none());
    assert!(!folder.path().join("img").join(&hex).exists());
    assert!(folder.path().join("partial").join(format!("{hex}.bad")).exists());
}

#[tokio::test]
async fn a_reference_that_cannot_be_read_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let tags = folder.path().join("refs/quay.io/a/b/_tags");
    fs::create_dir_all(&tags).unwrap();
    fs::write(tags.join("v1"), b"{ half").unwrap();
    assert!(store.reference(&image("v1")).is_none());
}

fn tags(tags: &[&str]) -> Arc<Kept<TagList>> {
    Arc::new(Kept::now(TagList::of(tags.iter().map(|tag| tag.parse().unwrap())).unwrap()))
}

#[tokio::test]
async fn lists_are_found_before_and_after_they_are_durable_and_can_be_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let subject = Subject { name: name(), digest: digest(b"x") };
    let signed = Referrers::parse(br#"{"manifests":[{"digest":"sha256:y"}]}"#).unwrap();
    {
        let store = Store::open(folder.path()).unwrap();
        assert!(store.tag_list(&name()).await.is_none() && store.referrers(&subject).await.is_none());
        store.publish_tag_list(&name(), tags(&["z", "a"])).await;
        store.publish_referrers(&subject, Arc::new(Kept::now(signed.clone()))).await;
        assert_eq!(store.tag_list(&name()).await.unwrap().list.as_str(), r#""z","a""#);
    }
    let repository = folder.path().join("refs/quay.io/a/b");
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(repository.join(file)).unwrap()).unwrap()
    };
    assert_eq!(json("_tags.json")["list"], serde_json::json!(["z", "a"]));
    assert!(json("_tags.json")["checked"].is_string());
    assert!(json(&format!("_referrers/{}", subject.digest.hex()))["list"]["manifests"].is_array());
    {
        let store = Store::open(folder.path()).unwrap();
        let kept = store.tag_list(&name()).await.unwrap();
        assert_eq!(kept.list, tags(&["z", "a"]).list);
        assert_eq!(store.referrers(&subject).await.unwrap().list, signed);
        store.forget_tag_list(&name()).await;
        assert!(store.tag_list(&name()).await.is_none());
    }
    assert!(!repository.join("_tags.json").exists());
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let repository = folder.path().join("refs/quay.io/a/b");
    fs::create_dir_all(&repository).unwrap();
    let now = r#""checked":"2026-01-01T00:00:00Z""#;
    for text in
        ["", "{ half", &format!("{{{now}}}"), &format!(r#"{{{now},"list":5}}"#), r#"{"checked":5,"list":[]}"#]
    {
        fs::write(repository.join("_tags.json"), text).unwrap();
        assert!(store.tag_list(&name()).await.is_none(), "{text}");
    }
    fs::write(repository.join("_tags.json"), format!(r#"{{"list" : [ "a" ],{now}}}"#)).unwrap();
    assert_eq!(store.tag_list(&name()).await.unwrap().list.as_str(), r#""a""#);
}

#[tokio::test]
async fn the_longest_list_is_found_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let longest = TagList::of((0..125_000).map(|n| format!("{n:0>128}").parse().unwrap())).unwrap();
    let kept = Arc::new(Kept::now(longest));
    store.publish_tag_list(&name(), kept.clone()).await;
    store.close();
    assert!(Arc::ptr_eq(&store.tag_list(&name()).await.unwrap(), &kept));
}

#[tokio::test]
async fn held_tags_are_those_on_disk_and_those_on_their_way() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Bytes::from_static(b"{}");
    let store = Store::open(folder.path()).unwrap();
    let by_digest = image(&digest(&bytes).to_string());
    let other = Image { name: Name::new("quay.io".parse().unwrap(), "a/c".parse().unwrap()), ..image("v9") };
    let names = [image("v2"), image("v1"), image("gone"), by_digest, other];
    store.publish_manifest(bytes.clone(), names.map(|name| (name, record(&bytes))).to_vec()).await;
    store.forget(&image("gone")).await;
    let held =
        || async { store.held_tags(&name()).await.iter().map(ToString::to_string).collect::<Vec<_>>() };
    assert_eq!(held().await, ["v1", "v2"]);
    store.close();
    fs::write(folder.path().join("refs/quay.io/a/b/_tags/.swp"), b"").unwrap();
    assert_eq!(held().await, ["v1", "v2"]);
}

#[tokio::test]
async fn hundreds_of_blobs_in_one_batch_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for number in 0u32..500 {
        let bytes = number.to_le_bytes();
        let mut partial = store.begin(digest(&bytes)).unwrap();
        partial.append(&bytes).unwrap();
        store.publish_blob(Arc::new(partial.finish().unwrap())).await;
    }
    store.close();
    for file in fs::read_dir(folder.path().join("blobs")).unwrap() {
        let path = file.unwrap().path();
        let hex = digest(&fs::read(&path).unwrap()).hex();
        assert_eq!(path.file_name().unwrap().to_str(), Some(hex.as_str()));
    }
    assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 500);
    assert_eq!(fs::read_dir(folder.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_folder_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), b"").unwrap();
    assert!(matches!(Store::open(folder.path()), Err(OpenError::NotOurs(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_store_of_the_go_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("lts")).unwrap();
    fs::create_dir_all(folder.path().join("blobs")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(OpenError::Legacy(_))));
}

#[test]
fn a_version_of_the_future_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.json"), b"{\"version\":2}").unwrap();
    assert!(matches!(Store::open(folder.path()), Err(OpenError::Version { found: 2, .. })));
}

#[test]
fn what_a_crash_left_behind_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let left = folder.path().join("partial/new-7");
    fs::write(&left, b"").unwrap();
    drop(Store::open(folder.path()).unwrap());
    assert!(!left.exists());
}

#[test]
fn two_processes_do_not_write_to_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let Err(OpenError::Locked { holder, .. }) = Store::open(folder.path()) else { panic!("opened twice") };
    assert_eq!(holder.unwrap().pid, std::process::id().to_string());
    drop(store);
    assert!(Store::open(folder.path()).is_ok());
}
