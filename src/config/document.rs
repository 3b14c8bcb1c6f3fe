//! The whole document, key by key, and what has to hold between keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::address::*;
use super::keys::Keys;
use super::kind::*;
use super::settings::{Account, Log, Proxy, RegistryDefaults, Settings};
use super::{Secret, access, admin, care, later, preload, registry, secret, server_tls};
use crate::oci::Platform;

/// Keys of the top level, then the tables. None when a problem was reported; problems may have been reported
/// even when it is not.
pub fn read(keys: &mut Keys) -> Option<Settings> {
    let this = Platform::host();
    let image_path = image_path(keys);
    let host = keys.read("host", "127.0.0.1", &HOST);
    let listen = listen(keys, host);
    let default_registry = keys.read("default_ns", "docker.io", &REGISTRY);
    let health = door(keys, "health", host, listen.as_deref());
    let hello_world = keys.read("hello_world", false, &BOOL);
    let access = access::read(keys);
    let level = keys.read("log_level", "error", &LOG_LEVEL);
    let file = keys.read("log_file", "", &FILE);
    let format = keys.read("log_format", "auto", &LOG_FORMAT);
    let os = keys.read("os", this.os.as_str(), &PLATFORM);
    let arch = keys.read("arch", this.arch.as_str(), &PLATFORM);
    let pull_timeout = keys.read("pull_timeout", 60_000, &PULL_TIMEOUT);
    let air_gapped = keys.read("air_gapped", false, &BOOL);
    let not_found_ttl = keys.read("not_found_ttl", "5s", &DURATION);
    let abandoned = keys.read("abandoned", "finish", &ABANDONED);
    let tag_ttl = keys.read("tag_ttl", "1m", &AGE);
    let stale_if_error = keys.read("stale_if_error", "forever", &AGE);
    let always_pull_latest = keys.read("always_pull_latest", false, &BOOL);
    let prefetch = keys.read("prefetch", "image", &PREFETCH);
    let max_downloads = keys.read("max_downloads", 8, &CONNECTIONS);
    let proxy = proxy(keys);
    let user = keys.read("user", "ociregistry", &ACCOUNT);
    let group = keys.read("group", "ociregistry", &ACCOUNT);
    let preload = preload::read(keys);
    let prune = care::prune(keys);
    let check = care::check(keys);
    let served = listen.iter().flatten().map(|listen| (listen.clone(), "images are served"));
    let told = health.flatten().map(|address| (Listen::Tcp(address), "health is told"));
    let admin = admin::read(keys, &served.chain(told).collect::<Vec<_>>());
    later::check(keys);
    let server_tls = server_tls::read(keys);
    let mut names = Vec::new();
    let registries = keys.tables("registries", |keys| registry::read(keys, &mut names));

    let settings = Settings {
        image_path: image_path?,
        listen: listen?,
        server_tls: server_tls?,
        default_registry: default_registry?,
        health: health?,
        access: access?,
        hello_world: hello_world?,
        log: Log { level: level?, file: file?, format: format? },
        account: Account { user: user?, group: group? },
        platform: Platform { os: os?, arch: arch?, variant: None },
        pull_timeout: pull_timeout?,
        air_gapped: air_gapped?,
        not_found_ttl: not_found_ttl?,
        abandoned: abandoned?,
        proxy: proxy?,
        preload: preload?,
        prune: prune?,
        check: check?,
        admin: admin?,
        defaults: RegistryDefaults {
            tag_ttl: tag_ttl?,
            stale_if_error: stale_if_error?,
            always_pull_latest: always_pull_latest?,
            prefetch: prefetch?,
            max_downloads: max_downloads?,
        },
        registries: registries.into_iter().collect::<Option<_>>()?,
    };
    access::check_trust(keys, &settings);
    Some(settings)
}

/// The key that commands need to find the daemon.
pub fn image_path(keys: &mut Keys) -> Option<PathBuf> {
    keys.read("image_path", "/var/lib/ociregistry", &FOLDER)
}

/// `host` and `port` first, then the addresses of `listen`.
fn listen(keys: &mut Keys, host: Option<IpAddr>) -> Option<Vec<Listen>> {
    let port = keys.read("port", 8080, &PORT);
    let more = keys.list("listen", &LISTEN);
    let mut addresses = vec![Listen::Tcp(SocketAddr::new(host?, port?))];
    for listen in more? {
        if addresses.contains(&listen) {
            keys.refuse("listen", &format!("{listen} is listened on already (host and port come first)"));
        } else {
            addresses.push(listen);
        }
    }
    Some(addresses)
}

/// A side door's address, which must not be the main one's.
fn door(
    keys: &mut Keys,
    key: &str,
    host: Option<IpAddr>,
    listen: Option<&[Listen]>,
) -> Option<Option<SocketAddr>> {
    let address = match keys.read(key, 0, &DOOR)? {
        Door::Off => return Some(None),
        Door::Port(port) => SocketAddr::new(host?, port),
        Door::Address(address) => address,
    };
    if listen?.contains(&Listen::Tcp(address)) {
        keys.refuse(key, &format!("{address} is where images are served: give it a port of its own"));
        return None;
    }
    Some(Some(address))
}

fn proxy(keys: &mut Keys) -> Option<Proxy> {
    let url = keys.read("proxy", "", &PROXY);
    let except = keys.list("no_proxy", &NO_PROXY);
    match (url?, except?) {
        (Some(url), except) => {
            if url.contains('@') {
                secret::warn_if_in_the_open(keys, "proxy");
            }
            Some(Proxy::Explicit { url: Secret::new(url), except })
        }
        (None, except) if except.is_empty() => Some(Proxy::Environment),
        (None, _) => {
            keys.refuse("no_proxy", "has no meaning without proxy; beside HTTPS_PROXY, set NO_PROXY");
            None
        }
    }
}
