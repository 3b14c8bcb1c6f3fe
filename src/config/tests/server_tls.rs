//! `[server_tls]`: files that will do, and what is said of those that will not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::{errors, read};

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate that is valid in these years, and its key.
    fn pair(&self, name: &str, from: i32, to: i32) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        (self.write(&format!("{name}.pem"), &cert), self.write(&format!("{name}.key"), &key.serialize_pem()))
    }
}

fn document(cert: &str, key: &str, more: &str) -> String {
    format!("[server_tls]\ncert = {cert:?}\nkey = {key:?}\n{more}")
}

#[test]
fn without_files_there_is_no_tls() {
    assert!(read("").unwrap().settings.server_tls.is_none());
    assert!(
        read(&document("", "", "ca = \"\"\nclient_auth = \"none\"")).unwrap().settings.server_tls.is_none()
    );
}

#[test]
fn a_pair_is_spoken_with_and_authorities_are_verified_by() {
    let files = Files::new();
    let (cert, key) = files.pair("a", 2020, 9999);
    let configuration = read(&document(&cert, &key, "")).unwrap();
    assert!(configuration.warnings.is_empty());
    assert!(configuration.settings.server_tls.unwrap().clients.is_none());

    let verified = document(&cert, &key, &format!("client_auth = \"verify\"\nca = {cert:?}"));
    let tls = read(&verified).unwrap().settings.server_tls.unwrap();
    assert_eq!(tls.clients.unwrap().len(), 1);
}

#[test]
fn with_verified_clients_others_may_reach_what_credentials_can_read() {
    let files = Files::new();
    let (cert, key) = files.pair("a", 2020, 9999);
    let open = |tls: &str| {
        let tls = document(&cert, &key, tls);
        format!("host = \"0.0.0.0\"\n{tls}\n[[registries]]\nname = \"a.b\"\nauth.token = \"x\"")
    };
    assert!(errors(&open("")).contains("server_tls.client_auth"));
    read(&open(&format!("client_auth = \"verify\"\nca = {cert:?}"))).unwrap();
}

#[test]
fn what_is_wrong_is_said_with_the_key_and_the_file() {
    let files = Files::new();
    let (cert, key) = files.pair("a", 2020, 9999);
    let (_, other_key) = files.pair("b", 2020, 9999);
    let (old, old_key) = files.pair("old", 2020, 2021);
    let (early, early_key) = files.pair("early", 9998, 9999);
    let empty = files.write("empty", "");
    let text = files.write("text", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let broken = files.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = files.write(
        "locked",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let missing = files.path("missing").display().to_string();
    let verify = |ca: &str| format!("client_auth = \"verify\"\nca = {ca:?}");
    for (text, message) in [
        (document(&cert, "", ""), "2: server_tls.cert: has no key".to_owned()),
        (document("", &key, ""), "3: server_tls.key: has no cert".to_owned()),
        (
            document(&missing, &key, ""),
            format!("2: server_tls.cert: {missing}: cannot be read: No such file"),
        ),
        (
            document(&cert, &missing, ""),
            format!("3: server_tls.key: {missing}: cannot be read: No such file"),
        ),
        (document(&empty, &key, ""), format!("2: server_tls.cert: {empty}: no certificate in it, want PEM")),
        (document(&key, &key, ""), format!("2: server_tls.cert: {key}: no certificate in it, want PEM")),
        (document(&text, &key, ""), format!("2: server_tls.cert: {text}: is not PEM")),
        (
            document(&broken, &key, ""),
            format!("2: server_tls.cert: {broken}: the first certificate in it is broken"),
        ),
        (document(&cert, &cert, ""), format!("3: server_tls.key: {cert}: no key in it, want PEM")),
        (document(&cert, &locked, ""), format!("3: server_tls.key: {locked}: the key is under a passphrase")),
        (
            document(&cert, &other_key, ""),
            format!("3: server_tls.key: {other_key}: is not the key of the certificate in {cert}"),
        ),
        (
            document(&old, &old_key, ""),
            format!("2: server_tls.cert: {old}: expired on 2021-01-01 00:00:00 UTC, and it is 2"),
        ),
        (
            document(&early, &early_key, ""),
            format!("2: server_tls.cert: {early}: is not valid before 9998-01-01 00:00:00 UTC, and it is 2"),
        ),
        (
            document(&cert, &key, "ca = \"/a\""),
            "4: server_tls.ca: has no meaning unless client_auth".to_owned(),
        ),
        (
            document(&cert, &key, "client_auth = \"verify\""),
            "4: server_tls.client_auth: \"verify\" has nothing to go by, want ca".to_owned(),
        ),
        (
            document(&cert, &key, "client_auth = \"yes\""),
            "4: server_tls.client_auth: found \"yes\", want \"none\" or \"verify\"".to_owned(),
        ),
        (
            document(&cert, &key, &verify(&broken)),
            format!("5: server_tls.ca: {broken}: certificate 1 is of no use"),
        ),
        (document(&cert, &key, &verify(&empty)), format!("5: server_tls.ca: {empty}: no certificate in it")),
        (
            document("", "", &verify(&cert)),
            "4: server_tls.client_auth: \"verify\" has no meaning without cert and key".to_owned(),
        ),
    ] {
        let found = errors(&text);
        let wanted = format!("/c.toml:{message}");
        assert!(found.starts_with(&wanted), "{text}\n found: {found}\nwanted: {wanted}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn what_is_hardly_wanted_is_warned_of() {
    let files = Files::new();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let end = std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 24 * 3600);
    params.not_after = end.into();
    let pair = KeyPair::generate().unwrap();
    let cert = files.write("cert", &params.self_signed(&pair).unwrap().pem());
    let key = files.write("key", &pair.serialize_pem());
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let warnings = read(&document(&cert, &key, "")).unwrap().warnings;
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].starts_with(&format!("/c.toml:2: server_tls.cert: {cert}: expires on 2")),
        "{warnings:?}"
    );
    assert_eq!(
        warnings[1],
        format!("/c.toml:3: server_tls.key: {key}: can be read by every user of this host")
    );
}
