//! What nobody can make us do: reach into private networks, or hand credentials to strangers.

mod support;

use support::client::get;
use support::daemon::Daemon;
use support::layout::*;
use support::upstream::{Fault, Upstream};

const TAG: &str = "/v2/library/app/manifests/1?ns=docker.io";

#[test]
fn a_registry_that_is_not_configured_has_to_be_public() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::configured("");
    let port = upstream.addr.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let ns: String = format!("{host}:{port}").replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        let answer = daemon.get(&format!("/v2/library/app/manifests/1?ns={ns}"));
        assert!([400, 403].contains(&answer.status()), "{host}: {}", answer.status());
        if answer.status() == 403 {
            assert_eq!(answer.code(), "DENIED");
        }
    }
    daemon.get(&format!("/v2/127.0.0.1:{port}/library/app/manifests/1")).refuses(403, "DENIED");
    assert!(upstream.seen().is_empty());
}

#[test]
fn no_redirect_leads_to_metadata() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::of(&upstream);
    upstream.fault("/v2/", .., Fault::Redirect("http://169.254.169.254/latest/meta-data/".into()));
    daemon.get(TAG).refuses(403, "DENIED");
}

#[test]
fn credentials_stay_with_the_registry_they_are_for() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let cdn = Upstream::start(Layout::of("cdn", "1", &image));
    let blob = &image.layers[0];
    upstream.fault(&blob.digest, .., Fault::Redirect(format!("{}/v2/cdn/blobs/{}", cdn.url(), blob.digest)));
    let entry = format!(
        "[[registries]]\nname = \"docker.io\"\nurl = \"{}\"\nauth = {{ user = \"u\", password = \"hunter2\" }}\n",
        upstream.url()
    );
    let daemon = Daemon::configured(&entry);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    let own = get(&target).header("Authorization", "Basic bWU6bXkgc2VjcmV0");
    assert!(daemon.send(own).is(200).body == blob.bytes());
    assert_eq!(cdn.count("GET", &blob.digest), 1);
    for seen in cdn.seen() {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("cookie"), None);
    }
    for seen in upstream.seen() {
        assert_ne!(seen.header("authorization"), Some("Basic bWU6bXkgc2VjcmV0"));
    }
    assert!(!daemon.log().contains("hunter2") && !daemon.log().contains("bWU6bXkgc2VjcmV0"));
}
