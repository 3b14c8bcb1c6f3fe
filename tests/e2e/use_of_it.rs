//! What a machine's users did before something is done to the package.

use crate::machine::{Machine, daemon};
use crate::support::client::get;
use crate::support::layout::{Image, hex_of};
use crate::support::process::eventually;
use crate::support::registry::Registry;

/// Edits the configuration and pulls an image of `reg.example`, whose upstream is gone afterwards. Gives the target
/// of the image's manifest.
pub fn used(machine: &Machine) -> String {
    let registry = Registry::plain();
    let image = Image::small(1);
    registry.push("team/app", "1.0", &image);
    machine
        .write("/etc/ociregistry.toml", &format!("log_level = \"debug\"\n{}", registry.entry("reg.example")));
    machine.run("systemctl restart ociregistry");
    let target = |kind: &str, digest: &str| format!("/v2/team/app/{kind}/{digest}?ns=reg.example");
    let manifest = target("manifests", &image.manifest.digest);
    get(&manifest).send(daemon()).is(200);
    for blob in image.blobs() {
        get(&target("blobs", &blob.digest)).send(daemon()).is(200);
        kept(machine, "blobs", &blob.digest);
    }
    kept(machine, "img", &image.manifest.digest);
    manifest
}

fn kept(machine: &Machine, folder: &str, digest: &str) {
    let path = machine.path(&format!("/var/lib/ociregistry/{folder}/{}", hex_of(digest)));
    eventually("it is in the cache", || path.exists());
}

/// The names and sizes of all blobs and manifests that are kept.
pub fn cached(machine: &Machine) -> String {
    let files = machine.run("cd /var/lib/ociregistry && find blobs img -type f -printf '%p %s\\n' | sort");
    assert!(files.contains("blobs/") && files.contains("img/"), "{files}");
    files
}
