//! The whole document, key by key, and what has to hold between keys.

use std::net::SocketAddr;

use super::address::*;
use super::keys::Keys;
use super::kind::*;
use super::settings::{Credentials, Log, Proxy, RegistryDefaults, RegistrySettings, Settings};
use super::{Secret, later, registry};
use crate::oci::Platform;

/// Keys of the top level, then the tables. None when a problem was reported; problems may have been reported
/// even when it is not.
pub fn read(keys: &mut Keys) -> Option<Settings> {
    let host = Platform::host();
    let image_path = keys.read("image_path", "/var/lib/ociregistry", &FOLDER);
    let listen = listen(keys);
    let default_registry = keys.read("default_ns", "docker.io", &REGISTRY);
    let level = keys.read("log_level", "error", &LOG_LEVEL);
    let file = keys.read("log_file", "", &FILE);
    let format = keys.read("log_format", "auto", &LOG_FORMAT);
    let os = keys.read("os", host.os.as_str(), &PLATFORM);
    let arch = keys.read("arch", host.arch.as_str(), &PLATFORM);
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
    later::check(keys);
    let mut names = Vec::new();
    let registries = keys.tables("registries", |keys| registry::read(keys, &mut names));

    let settings = Settings {
        image_path: image_path?,
        listen: listen?,
        default_registry: default_registry?,
        log: Log { level: level?, file: file?, format: format? },
        platform: Platform { os: os?, arch: arch? },
        pull_timeout: pull_timeout?,
        air_gapped: air_gapped?,
        not_found_ttl: not_found_ttl?,
        abandoned: abandoned?,
        proxy: proxy?,
        defaults: RegistryDefaults {
            tag_ttl: tag_ttl?,
            stale_if_error: stale_if_error?,
            always_pull_latest: always_pull_latest?,
            prefetch: prefetch?,
            max_downloads: max_downloads?,
        },
        registries: registries.into_iter().collect::<Option<_>>()?,
    };
    check_trust(keys, &settings);
    Some(settings)
}

/// `host` and `port` first, then the addresses of `listen`.
fn listen(keys: &mut Keys) -> Option<Vec<Listen>> {
    let host = keys.read("host", "127.0.0.1", &HOST);
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

fn proxy(keys: &mut Keys) -> Option<Proxy> {
    let url = keys.read("proxy", "", &PROXY);
    let except = keys.list("no_proxy", &NO_PROXY);
    match (url?, except?) {
        (Some(url), except) => Some(Proxy::Explicit { url: Secret::new(url), except }),
        (None, except) if except.is_empty() => Some(Proxy::Environment),
        (None, _) => {
            keys.refuse("no_proxy", "has no meaning without proxy; beside HTTPS_PROXY, set NO_PROXY");
            None
        }
    }
}

/// Whoever reaches us can pull what our credentials can read: with credentials, only this host may.
fn check_trust(keys: &mut Keys, settings: &Settings) {
    // Who may connect to a Unix socket its file says.
    let open = |listen: &&Listen| match listen {
        Listen::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        Listen::Unix(_) => false,
    };
    let with_credentials = |entry: &&RegistrySettings| entry.credentials != Credentials::Anonymous;
    let address = settings.listen.iter().find(open);
    let entry = settings.registries.iter().find(with_credentials);
    if let (Some(address), Some(entry)) = (address, entry) {
        let key = if settings.listen.first() == Some(address) { "host" } else { "listen" };
        keys.refuse(
            key,
            &format!(
                "{address} can be reached by others, who could pull all that the credentials for `{}` can read; \
                 with credentials, want loopback addresses only (naming clients is not supported yet)",
                entry.name
            ),
        );
    }
}
