//! How a registry that misbehaves is dealt with, over real connections.

mod auth;
mod blobs;
mod lists;
mod manifests;
mod peer;
mod places;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::{Download, Upstream, UpstreamError, Upstreams};
use crate::config::{
    Abandoned, AccessSettings, Account, Age, CheckSettings, ClientTls, Credentials, Log, LogFormat, Prefetch,
    Preload, PreloadSettings, Proxy, PruneBy, PruneSettings, RegistryDefaults, RegistrySettings, Scheme,
    Secret, Settings, Share,
};
use crate::oci::{Algorithm, Digest, Platform, Reference, Repository};
use peer::{Fault, Peer, Reply, Request};

const VIA: &str = "1.1 ociregistry-test";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn settings(registries: Vec<RegistrySettings>) -> Settings {
    Settings {
        image_path: PathBuf::new(),
        server_tls: None,
        listen: Vec::new(),
        health: None,
        access: AccessSettings::default(),
        hello_world: false,
        default_registry: None,
        log: Log { level: LevelFilter::OFF, file: None, format: LogFormat::Text },
        account: Account { user: String::new(), group: String::new() },
        platform: Platform::host(),
        pull_timeout: Duration::from_millis(300),
        air_gapped: false,
        not_found_ttl: Duration::ZERO,
        abandoned: Abandoned::Finish,
        // One that is never used, whatever the environment says.
        proxy: Proxy::Explicit {
            url: Secret::new("http://127.0.0.1:9".to_owned()),
            except: vec!["*".to_owned()],
        },
        preload: PreloadSettings { images: Vec::new(), mode: Preload::Wait },
        prune: PruneSettings {
            enabled: false,
            min_free: Share::None,
            max_size: Share::None,
            duration: None,
            by: PruneBy::Accessed,
            frequency: Duration::MAX,
            count: 0,
            dry_run: false,
            keep: Vec::new(),
        },
        check: CheckSettings { every: None },
        admin: None,
        defaults: policy(4),
        registries,
    }
}

fn policy(max_downloads: usize) -> RegistryDefaults {
    RegistryDefaults {
        tag_ttl: Age::Forever,
        stale_if_error: Age::Forever,
        always_pull_latest: false,
        prefetch: Prefetch::None,
        max_downloads,
    }
}

fn entry(url: &str, credentials: Credentials) -> RegistrySettings {
    RegistrySettings {
        name: "registry.example".parse().unwrap(),
        description: String::new(),
        scheme: Scheme::Https,
        url: Some(url.parse().unwrap()),
        credentials,
        tls: ClientTls::default(),
        policy: policy(7),
    }
}

fn upstream(url: &str, credentials: Credentials) -> Arc<Upstream> {
    let upstreams = Upstreams::new(&settings(vec![entry(url, credentials)]), VIA).unwrap();
    upstreams.get(&"registry.example".parse().unwrap())
}

/// The peer as a configured registry, with a path prefix.
fn registry(peer: &Peer) -> Arc<Upstream> {
    upstream(&peer.url("/hub/"), Credentials::Anonymous)
}

fn me() -> Credentials {
    Credentials::Basic { user: "me".to_owned(), password: Secret::new("pass:word".to_owned()) }
}

/// `me:pass:word`
const ME: &str = "Basic bWU6cGFzczp3b3Jk";

fn repository() -> Repository {
    "a/b".parse().unwrap()
}

fn tag() -> Reference {
    "1.0".parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn rest(mut download: Download) -> Result<Vec<u8>, UpstreamError> {
    let mut whole = Vec::new();
    while let Some(bytes) = download.chunk().await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

#[test]
fn listed_registries_have_their_own_policy_and_others_the_common_one() {
    let upstreams =
        Upstreams::new(&settings(vec![entry("https://r.example", Credentials::Anonymous)]), VIA).unwrap();
    assert_eq!(upstreams.get(&"registry.example".parse().unwrap()).policy().max_downloads, 7);
    let other = "other.example".parse().unwrap();
    assert_eq!(upstreams.get(&other).policy().max_downloads, 4);
    assert!(Arc::ptr_eq(&upstreams.get(&other), &upstreams.get(&other)));
}

#[test]
fn what_cannot_work_is_found_at_the_start() {
    let mut bad = settings(Vec::new());
    bad.proxy =
        Proxy::Explicit { url: Secret::new("gopher://me:secret@proxy".to_owned()), except: Vec::new() };
    let error = Upstreams::new(&bad, VIA).err().unwrap().to_string();
    assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
    assert!(Upstreams::new(&settings(Vec::new()), "a\nb").is_err());
}
