//! `[[registries]]`: one upstream each, or a wildcard for several.

use super::address::URL;
use super::keys::Keys;
use super::kind::{AGE, BOOL, CONNECTIONS, FILE, PREFETCH, REGISTRY_PATTERN, SCHEME, TEXT};
use super::later;
use super::secret::{self, Given};
use super::settings::{ClientTls, Credentials, RegistryDefaults, RegistrySettings, Scheme};
use super::{Access, PemFile, RegistryPattern, drop_in};

/// Reads one entry. `names` holds those of the entries before it.
pub fn read(keys: &mut Keys, names: &mut Vec<RegistryPattern>) -> Option<RegistrySettings> {
    let name = keys.require("name", &REGISTRY_PATTERN);
    let description = keys.read_extra("description", "", &TEXT);
    // Not shown unless given: where there is a url, that says it.
    let scheme = keys.read_extra("scheme", "https", &SCHEME);
    let url = keys.read("url", "", &URL);
    let credentials = credentials(keys);
    let tls = tls(keys);
    let tag_ttl = keys.inherit("tag_ttl", &AGE);
    let stale_if_error = keys.inherit("stale_if_error", &AGE);
    let always_pull_latest = keys.inherit("always_pull_latest", &BOOL);
    let prefetch = keys.inherit("prefetch", &PREFETCH);
    let max_downloads = keys.inherit("max_downloads", &CONNECTIONS);
    later::check_registry(keys);

    let (name, url) = (name?, url?);
    if names.contains(&name) {
        keys.refuse("name", &format!("`{name}` has an entry already"));
    }
    names.push(name.clone());
    let url_scheme =
        url.as_ref().map(|url| if url.scheme() == "http" { Scheme::Http } else { Scheme::Https });
    if url_scheme.is_some_and(|of_url| keys.is_given("scheme") && Some(of_url) != scheme) {
        keys.refuse("scheme", "contradicts url, leave one of them out");
    }
    let scheme = url_scheme.or(scheme)?;
    match &name {
        RegistryPattern::Wildcard(_) if url.is_some() => {
            keys.refuse("url", "has no meaning for a wildcard, whose registries are each at their own name");
        }
        RegistryPattern::Exact(registry) if url.is_none() && scheme.api(registry).is_none() => {
            keys.refuse("name", "is no host that a URL could hold");
        }
        _ => {}
    }
    let tls = tls?;
    if scheme == Scheme::Http && tls != ClientTls::default() {
        keys.refuse("tls", "has no meaning for a registry spoken to by http");
    }
    Some(RegistrySettings {
        name,
        description: description?,
        scheme,
        url,
        credentials: credentials?,
        tls,
        policy: RegistryDefaults {
            tag_ttl: tag_ttl?,
            stale_if_error: stale_if_error?,
            always_pull_latest: always_pull_latest?,
            prefetch: prefetch?,
            max_downloads: max_downloads?,
        },
    })
}

/// The `auth` table of a registry or mirror.
pub fn credentials(keys: &mut Keys) -> Option<Credentials> {
    keys.table("auth", |keys| {
        let user = keys.read_extra("user", "", &TEXT);
        let password = secret::read(keys, "password");
        let token = secret::read(keys, "token");
        later::check_credentials(keys);
        let (user, password, token) = (user?, password?, token?);
        match (user.as_str(), password, token) {
            ("", None, None) => Some(Credentials::Anonymous),
            ("", None, Some(Given::Here(token))) => Some(Credentials::Token(token)),
            ("", None, Some(Given::Withheld)) => Some(Credentials::Withheld),
            ("", Some(_), None) => refuse(keys, "user", "missing, want the one that the password is for"),
            (_, None, None) => refuse(keys, "user", "has no password, want one of password, password_file, password_from_env, password_credential"),
            (_, Some(password), None) => basic(keys, user, password),
            (_, _, Some(_)) => refuse(keys, "token", "given besides a user or password, want one or the other"),
        }
    })
}

/// RFC 7617: the colon ends the user.
fn basic(keys: &mut Keys, user: String, password: Given) -> Option<Credentials> {
    if user.contains(|c: char| c == ':' || c.is_control()) {
        return refuse(keys, "user", "has a colon or control character in it");
    }
    Some(match password {
        Given::Here(password) => Credentials::Basic { user, password },
        Given::Withheld => Credentials::Withheld,
    })
}

fn refuse<T>(keys: &mut Keys, key: &str, what: &str) -> Option<T> {
    keys.refuse(key, what);
    None
}

/// The `tls` table of a registry or mirror.
pub fn tls(keys: &mut Keys) -> Option<ClientTls> {
    keys.table("tls", |keys| {
        let ca = pem_file(keys, "ca");
        let cert = pem_file(keys, "cert");
        let key = pem_file(keys, "key");
        let insecure_skip_verify = keys.read_extra("insecure_skip_verify", false, &BOOL)?;
        let identity = match (cert?, key?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return refuse(keys, "cert", "has no key, want both or neither"),
            (None, Some(_)) => return refuse(keys, "key", "has no cert, want both or neither"),
        };
        let ca = ca?;
        if insecure_skip_verify && ca.is_some() {
            return refuse(keys, "ca", "has no meaning with insecure_skip_verify, want one or the other");
        }
        Some(ClientTls { ca, identity, insecure_skip_verify })
    })
}

/// The file that a key names, if any.
pub fn pem_file(keys: &mut Keys, key: &str) -> Option<Option<PemFile>> {
    let path = keys.read_extra(key, "", &FILE)?;
    match path.as_deref().map(PemFile::read).transpose() {
        Ok(file) => {
            if let Some(file) = &file {
                keys.note_hidden(key, file.content());
            }
            Some(file)
        }
        Err(error) => {
            let hint = path.map(|path| drop_in(&path, Access::Read, &error)).unwrap_or_default();
            refuse(keys, key, &format!("cannot be read: {error}{hint}"))
        }
    }
}
