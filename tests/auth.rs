//! Upstreams that want to know who asks: docker-registry with Basic and with tokens, and one without either.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use support::client::Response;
use support::daemon::Daemon;
use support::layout::*;
use support::registry::{PASSWORD, Registry};
use support::tls::Ca;
use support::upstream::Upstream;

fn pull(daemon: &Daemon, registry: &str, image: &Image) {
    let manifest = daemon.get(&format!("/v2/team/app/manifests/1?ns={registry}")).is(200);
    assert_eq!(manifest.body, *image.manifest.bytes);
    for blob in image.blobs() {
        let got = daemon.get(&format!("/v2/team/app/blobs/{}?ns={registry}", blob.digest)).is(200);
        assert!(got.body == blob.bytes());
    }
}

fn denied(response: Response, registry: &str) {
    let response = response.refuses(403, "DENIED");
    assert_eq!(response.header("www-authenticate"), None);
    assert!(response.text().contains(registry), "{}", response.text());
}

#[test]
fn docker_registry_plain_with_basic_and_with_tokens() {
    needs!("docker-registry", "htpasswd");
    let ca = Arc::new(Ca::new());
    let mut registries = [Registry::plain(), Registry::with_htpasswd(&ca), Registry::with_tokens(&ca)];
    let names = ["plain.example", "basic.example", "tokens.example"];
    let images =
        [1, 2, 3].map(|seed| Image::new(vec![Layer::random(seed, 3 * MIB), Layer::random(seed + 10, 100)]));
    for (registry, image) in registries.iter().zip(&images) {
        registry.push("team/app", "1", image);
    }
    let entries = [0, 1, 2].map(|n| registries[n].entry(names[n])).concat();
    let mut daemon = Daemon::configured(&format!("tag_ttl = 0\n{entries}"));
    for round in ["pulled", "from the cache", "after a restart"] {
        for (name, image) in names.iter().zip(&images) {
            println!("{name} {round}");
            pull(&daemon, name, image);
        }
        registries.iter_mut().for_each(Registry::stop);
        if round == "from the cache" {
            daemon.restart();
        }
    }
    assert!(!daemon.log().contains(PASSWORD));
}

#[test]
fn a_wrong_password_is_403_and_names_the_registry() {
    needs!("docker-registry", "htpasswd");
    let ca = Arc::new(Ca::new());
    for registry in [Registry::with_htpasswd(&ca), Registry::with_tokens(&ca)] {
        registry.push("team/app", "1", &Image::small(1));
        let wrong = registry.entry("private.example").replace(PASSWORD, "a guess");
        let daemon = Daemon::configured(&wrong);
        denied(daemon.get("/v2/team/app/manifests/1?ns=private.example"), "private.example");
        assert!(!daemon.log().contains("a guess"));
    }
}

#[test]
fn a_certificate_of_nobody_we_know_is_no_upstream() {
    needs!("docker-registry", "htpasswd");
    let registry = Registry::with_htpasswd(&Arc::new(Ca::new()));
    registry.push("team/app", "1", &Image::small(1));
    let entry = format!("[[registries]]\nname = \"private.example\"\nurl = \"{}\"\n", registry.url());
    let answer = Daemon::configured(&entry).get("/v2/team/app/manifests/1?ns=private.example");
    assert!([502, 504].contains(&answer.status()), "{}", answer.status());
}

#[test]
fn a_certificate_of_the_systems_trust_store_is_believed() {
    needs!("docker-registry", "htpasswd");
    let ca = Arc::new(Ca::new());
    let registry = Registry::with_htpasswd(&ca);
    let image = Image::small(1);
    registry.push("team/app", "1", &image);
    let entry = registry.entry("private.example");
    let entry: Vec<_> = entry.lines().filter(|line| !line.starts_with("tls = ")).collect();
    let mut daemon = Daemon::prepared(&entry.join("\n"));
    let store = daemon.dir.path().join("store.pem");
    std::fs::write(&store, ca.pem()).unwrap();
    let mut command = daemon.command();
    command.env("SSL_CERT_FILE", store);
    daemon.start_by(command);
    pull(&daemon, "private.example", &image);
}

#[test]
fn many_who_wait_share_one_token() {
    needs!("docker-registry", "htpasswd");
    let registry = Registry::with_tokens(&Arc::new(Ca::new()));
    let image = Image::new((0..10).map(|n| Layer::random(n, 1000)).collect());
    registry.push("team/app", "1", &image);
    let issued = || registry.tokens.as_ref().unwrap().issued.load(Ordering::SeqCst);
    let before = issued();
    let daemon = Daemon::configured(&registry.entry("tokens.example"));
    thread::scope(|scope| {
        for blob in image.blobs() {
            let target = format!("/v2/team/app/blobs/{}?ns=tokens.example", blob.digest);
            let daemon = &daemon;
            scope.spawn(move || daemon.get(&target).is(200));
        }
        scope.spawn(|| daemon.get("/v2/team/app/manifests/1?ns=tokens.example").is(200));
    });
    assert_eq!(issued(), before + 1);
}

#[test]
fn anonymous_pulls_get_a_token_where_one_is_wanted() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image)).with_tokens();
    let daemon = Daemon::of(&upstream);
    pull(&daemon, "docker.io", &image);
    assert_eq!(upstream.tokens_issued(), 1);
}
