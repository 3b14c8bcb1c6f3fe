//! `[server_tls]`: its files are read here, so that what is wrong with one is said before anything starts.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::keys::Keys;
use super::kind::{FILE, Kind};
use super::{Access, drop_in};

/// A certificate that ends sooner is worth a warning.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Who we are to clients, and who they have to be.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// A certificate chain that was valid when it was read, and its key.
    pub identity: Arc<CertifiedKey>,
    /// Authorities of the certificates that clients have to show; None lets in who shows none.
    pub clients: Option<Arc<RootCertStore>>,
}

const CLIENT_AUTH: Kind<bool> = Kind::new("\"none\" or \"verify\"", |value| match value.text()? {
    "none" => Some(false),
    "verify" => Some(true),
    _ => None,
});

/// Some(None): no TLS.
pub fn read(keys: &mut Keys) -> Option<Option<ServerTls>> {
    keys.table("server_tls", |keys| {
        let cert = keys.read("cert", "", &FILE);
        let key = keys.read("key", "", &FILE);
        let ca = keys.read("ca", "", &FILE);
        let verify = keys.read("client_auth", "none", &CLIENT_AUTH);
        let (cert, key, ca, verify) = (cert?, key?, ca?, verify?);
        let identity = match (&cert, &key) {
            (Some(cert), Some(key)) => identity(keys, cert, key).map(Some),
            (None, None) => Some(None),
            (Some(_), None) => refuse(keys, "cert", "has no key, want both or neither"),
            (None, Some(_)) => refuse(keys, "key", "has no cert, want both or neither"),
        };
        let clients = match (ca, verify) {
            (Some(_), false) => refuse(keys, "ca", "has no meaning unless client_auth is \"verify\""),
            (None, true) => refuse(
                keys,
                "client_auth",
                "\"verify\" has nothing to go by, want ca: a PEM file of authorities",
            ),
            (Some(_), true) if cert.is_none() && key.is_none() => {
                refuse(keys, "client_auth", "\"verify\" has no meaning without cert and key")
            }
            (Some(path), true) => {
                read_from(keys, "ca", &path, authorities).map(|roots| Some(Arc::new(roots)))
            }
            (None, false) => Some(None),
        };
        let (identity, clients) = (identity?, clients?);
        Some(identity.map(|identity| ServerTls { identity, clients }))
    })
}

fn refuse<T>(keys: &mut Keys, key: &str, what: &str) -> Option<T> {
    keys.refuse(key, what);
    None
}

/// What was read from a file, unless that is to be refused.
fn read_from<T>(keys: &mut Keys, key: &str, path: &Path, read: fn(&[u8]) -> Result<T, String>) -> Option<T> {
    let content = fs::read(path)
        .map_err(|error| format!("cannot be read: {error}{}", drop_in(path, Access::Read, &error)));
    if let Ok(content) = &content {
        keys.note_hidden(key, content);
    }
    let found = content.and_then(|content| read(&content));
    found.map_err(|what| keys.refuse(key, &format!("{}: {what}", path.display()))).ok()
}

fn identity(keys: &mut Keys, cert_path: &Path, key_path: &Path) -> Option<Arc<CertifiedKey>> {
    let chain = read_from(keys, "cert", cert_path, chain);
    let key = read_from(keys, "key", key_path, private_key);
    let ((chain, expires), key) = (chain?, key?);
    if expires.duration_since(Timestamp::now()) < SOON {
        keys.warn("cert", &format!("{}: expires on {}", cert_path.display(), date(expires)));
    }
    if fs::metadata(key_path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
        keys.warn("key", &format!("{}: can be read by every user of this host", key_path.display()));
    }
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(identity) => Some(Arc::new(identity)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let (key, cert) = (key_path.display(), cert_path.display());
            refuse(keys, "key", &format!("{key}: is not the key of the certificate in {cert}"))
        }
        Err(error) => refuse(keys, "key", &format!("{}: is of no use: {error}", key_path.display())),
    }
}

fn authorities(content: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(content)?) {
        roots.add(certificate).map_err(|error| format!("certificate {number} is of no use: {error}"))?;
    }
    Ok(roots)
}

/// Certificates, the first of which is valid now, and when that ends.
fn chain(content: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Timestamp), String> {
    let chain = certificates(content)?;
    let (_, ours) = X509Certificate::from_der(&chain[0])
        .map_err(|error| format!("the first certificate in it is broken: {error}"))?;
    let (from, to) = (time(ours.validity().not_before), time(ours.validity().not_after));
    let now = Timestamp::now();
    if now < from {
        return Err(format!("is not valid before {}, and it is {} now", date(from), date(now)));
    }
    if now > to {
        return Err(format!("expired on {}, and it is {} now", date(to), date(now)));
    }
    Ok((chain, to))
}

/// One that never ends says the year 9999, the last hours of which are too late for us.
fn time(time: ASN1Time) -> Timestamp {
    let seconds = time.timestamp();
    Timestamp::from_second(seconds.min(Timestamp::MAX.as_second())).unwrap_or(Timestamp::MIN)
}

fn date(time: Timestamp) -> impl Display {
    time.strftime("%Y-%m-%d %H:%M:%S UTC")
}

/// At least one.
fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(content).collect::<Result<_, _>>().map_err(not_pem)?;
    if found.is_empty() {
        return Err("no certificate in it, want PEM: -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(found)
}

fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(content, b"ENCRYPTED PRIVATE KEY") => {
            "the key is under a passphrase, want it without: openssl pkey -in … -out …".to_owned()
        }
        pem::Error::NoItemsFound => "no key in it, want PEM: -----BEGIN PRIVATE KEY-----".to_owned(),
        error => not_pem(error),
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|part| part == words)
}

fn not_pem(error: pem::Error) -> String {
    format!("is not PEM: {error}")
}
