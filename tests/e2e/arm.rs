//! The program for aarch64, out of its package, as qemu runs it.

use std::process::Command;

use crate::needs;
use crate::support::daemon::{Daemon, entry};
use crate::support::layout::{Image, Layout};
use crate::support::process::{succeed, tied};
use crate::support::upstream::Upstream;

#[test]
fn the_program_for_aarch64_tells_its_version_and_serves_a_pull() {
    needs!("qemu-aarch64-static", "dpkg-deb");
    let folder = tempfile::tempdir().unwrap();
    let package =
        format!("{}/dist/ociregistry_{}-1_arm64.deb", env!("CARGO_MANIFEST_DIR"), env!("CARGO_PKG_VERSION"));
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(package).arg(folder.path());
    succeed(unpack);
    let program = || {
        let mut command = tied("qemu-aarch64-static");
        // Debian's C library for it: libc6-arm64-cross.
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(folder.path().join("usr/bin/ociregistry"));
        command
    };
    let mut version = program();
    version.arg("version");
    assert!(succeed(version).starts_with(concat!("Version: ", env!("CARGO_PKG_VERSION"))));

    let image = Image::small(1);
    let mut upstream = Upstream::start(Layout::of("team/app", "1.0", &image));
    let mut daemon = Daemon::prepared(&entry("reg.example", &upstream));
    let mut serve = program();
    daemon.add_arguments(&mut serve);
    daemon.start_by(serve);
    let pull = || {
        daemon.get("/v2/team/app/manifests/1.0?ns=reg.example").is(200);
        for blob in image.blobs() {
            let got = daemon.get(&format!("/v2/team/app/blobs/{}?ns=reg.example", blob.digest)).is(200);
            assert_eq!(got.body, blob.bytes());
        }
    };
    pull();
    upstream.stop();
    pull();
}
