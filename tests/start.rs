//! Ready at once, whatever the size of the cache.

mod support;

use std::path::{Path, PathBuf};
use std::{fs, io};

use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::trace::{read, traced};
use support::upstream::Upstream;

const BLOBS: u64 = 1_000_000;
const MANIFESTS: u64 = 100_000;

/// So many files of a few bytes under names like digests: links to a few, because a file takes 65,000 links at most.
fn fill(folder: &Path, files: u64) -> io::Result<()> {
    let origins = folder.with_extension("origins");
    fs::create_dir_all(&origins)?;
    let mut origin = PathBuf::new();
    for n in 0..files {
        if n % 60_000 == 0 {
            origin = origins.join(n.to_string());
            fs::write(&origin, b"tiny")?;
        }
        fs::hard_link(&origin, folder.join(format!("{n:064x}")))?;
    }
    fs::remove_dir_all(&origins)
}

#[test]
fn the_first_answers_come_without_a_look_at_the_other_million_blobs() {
    needs!("strace");
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    for blob in image.blobs() {
        eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    }
    assert!(daemon.terminate().success());
    fill(&daemon.images().join("blobs"), BLOBS).unwrap();
    fill(&daemon.images().join("img"), MANIFESTS).unwrap();
    upstream.forget();

    let file = daemon.dir.path().join("trace");
    let mut command = traced(support::daemon::BINARY, &file, "open,openat,openat2,getdents,getdents64");
    daemon.add_arguments(&mut command);
    daemon.start_by(command);
    assert_eq!(daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200).body, *image.manifest.bytes);
    for blob in image.blobs() {
        let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
        assert!(daemon.get(&target).is(200).body == blob.bytes());
    }
    assert!(upstream.seen().is_empty());
    daemon.kill(); // at once: nothing of the trace is from later than the answers
    let ended = || fs::read_to_string(&file).is_ok_and(|trace| trace.contains("+++ killed by SIGKILL +++"));
    eventually("the trace is written", ended);
    let calls = read(&file);
    let opened =
        |hex: &str| calls.iter().any(|call| call.name.starts_with("open") && call.arguments.contains(hex));
    assert!(opened(image.layers[0].hex()), "the trace shows what is opened");
    for folder in ["blobs", "img"] {
        let folder = daemon.images().join(folder);
        let reads = |call: &&support::trace::Call| {
            call.name.starts_with("getdents") && call.descriptor() == Some(folder.to_str().unwrap())
        };
        assert_eq!(calls.iter().filter(reads).count(), 0, "{} is read", folder.display());
    }
}
