//! What is refused, and in which words.

use super::{errors, read, settings};

#[test]
fn an_error_says_where_what_and_what_is_wanted() {
    for (text, message) in [
        ("\nprot = 1", "/c.toml:2: prot: unknown key; did you mean `port`?"),
        ("frobnicate = 1", "/c.toml:1: frobnicate: unknown key"),
        ("\"a\\nb\" = 1", "/c.toml:1: \"a\\nb\": unknown key"),
        ("port = \"x\"", "/c.toml:1: port: found \"x\", want a port, 1 to 65535"),
        ("port = 70000", "/c.toml:1: port: found 70000, want a port, 1 to 65535"),
        ("port = 1.5", "/c.toml:1: port: found a fraction, want a port, 1 to 65535"),
        ("air_gapped = \"yes\"", "/c.toml:1: air_gapped: found \"yes\", want true or false"),
        ("image_path = \"x\"", "/c.toml:1: image_path: found \"x\", want an absolute path"),
        ("tag_ttl = 5", "/c.toml:1: tag_ttl: found 5, want a duration such as"),
        ("listen = \"a\"", "/c.toml:1: listen: found a string, want a list, each item an address"),
        ("listen = [\n\"x\"]", "/c.toml:2: listen[0]: found \"x\", want an address and port"),
        ("listen = [\"127.0.0.1:8080\"]", "/c.toml:1: listen: 127.0.0.1:8080 is listened on already"),
        ("server_tls = 1", "/c.toml:1: server_tls: found an integer, want a table"),
        ("server_tls.crt = \"/a\"", "/c.toml:1: server_tls.crt: unknown key; did you mean `cert`?"),
        ("no_proxy = [\"a\"]", "/c.toml:1: no_proxy: has no meaning without proxy"),
        ("registries = 1", "/c.toml:1: registries: found an integer, want a list of tables: [[registries]]"),
        ("registries = [1]", "/c.toml:1: registries[0]: found an integer, want a table"),
        ("[[registries]]", "/c.toml:1: registries[0].name: missing, want a registry"),
        ("[[registries]]\nname = \"a/b\"", "/c.toml:2: registries[0].name: found \"a/b\", want a registry"),
        (
            "[[registries]]\nname = \"a.b\"\nport = 1",
            "/c.toml:3: registries[0].port: unknown key here; it belongs above",
        ),
        (
            "[[registries]]\nname = \"a.b\"\nauth.usr = 1",
            "/c.toml:3: registries[0].auth.usr: unknown key; did you mean `user`?",
        ),
        (
            "[[registries]]\nname = \"a.b\"\nauth = 1",
            "/c.toml:3: registries[0].auth: found an integer, want a table",
        ),
        ("port = 1\nport = 2", "/c.toml:2: not TOML: duplicate key"),
        ("health = 70000", "/c.toml:1: health: found 70000, want a port, \"address:port\", or 0 for off"),
        ("\nhealth = 8080", "/c.toml:2: health: 127.0.0.1:8080 is where images are served"),
        (
            "clients = [\"10.0.0.0/99\"]",
            "/c.toml:1: clients[0]: found \"10.0.0.0/99\", want a network such as",
        ),
        ("allow = [\"quay.io\"]", "/c.toml:1: allow[0]: found \"quay.io\", want a registry (or **), /"),
        ("deny = [\n\"docker.io/a:1\"]", "/c.toml:2: deny[0]: found \"docker.io/a:1\", want"),
        ("unlisted = \"no\"", "/c.toml:1: unlisted: found \"no\", want \"public\", \"allow\" or \"deny\""),
        (
            "htpasswd = \"/does/not/exist\"",
            "/c.toml:1: htpasswd: /does/not/exist cannot be read: No such file",
        ),
    ] {
        let found = errors(text);
        assert!(found.starts_with(message), "{text}\n found: {found}\nwanted: {message}");
    }
}

#[test]
fn every_error_is_reported_in_the_order_of_lines() {
    let found = errors("prt = 1\nos = 1\n[[registries]]\nnme = \"a.b\"\nurl = 1\n[prun]\n");
    let places: Vec<_> = found.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        ["/c.toml:1", "/c.toml:2", "/c.toml:3", "/c.toml:4", "/c.toml:5", "/c.toml:6"],
        "{found}"
    );
}

#[test]
fn a_bad_value_at_the_top_is_told_once() {
    let found =
        errors("tag_ttl = 5\n[[registries]]\nname = \"a.b\"\n[[registries]]\nname = \"b.b\"\ntag_ttl = 6");
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[test]
fn commands_come_over_the_network_only_with_a_token_that_is_none_to_guess() {
    let token = "0123456789abcdef";
    for (text, message) in [
        (
            "\nadmin.listen = \"127.0.0.1:1\"",
            "/c.toml:2: admin.listen: has no token, want one of token, token_file",
        ),
        (&format!("admin.token = \"{token}\""), "/c.toml:1: admin.token: has no meaning without listen"),
        (
            "admin.token_file = \"/not/there\"",
            "/c.toml:1: admin.token_file: the secret in /not/there cannot be read",
        ),
        (
            "admin.listen = \"127.0.0.1:1\"\nadmin.token = \"0123456789abcde\"",
            "/c.toml:2: admin.token: the secret is too short, want at least 16",
        ),
        (
            "admin.listen = \"127.0.0.1:1\"\nadmin.token = \"0123456789 abcdef\"",
            "/c.toml:2: admin.token: the secret has a space",
        ),
        (
            &format!("[admin]\nlisten = \"127.0.0.1:8080\"\ntoken = \"{token}\""),
            "/c.toml:2: admin.listen: 127.0.0.1:8080 is where images are served",
        ),
        (
            &format!("health = 1\n[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"{token}\""),
            "/c.toml:3: admin.listen: 127.0.0.1:1 is where health is told",
        ),
        ("admin.listen = \"a\"", "/c.toml:1: admin.listen: found \"a\", want an address and port"),
        ("admin.lisen = \"a\"", "/c.toml:1: admin.lisen: unknown key; did you mean `listen`?"),
    ] {
        let found = errors(text);
        assert!(found.starts_with(message) && found.lines().count() == 1, "{text}\n found: {found}");
        assert!(!found.contains("0123456789"), "{found}");
    }
    let settings = settings(&format!("[admin]\nlisten = \"0.0.0.0:1\"\ntoken = \"{token}\""));
    assert_eq!(settings.admin.unwrap().listen, "0.0.0.0:1".parse().unwrap());
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (entry, message) in [
        ("name = \"*.b\"\nurl = \"http://c\"", "url: has no meaning for a wildcard"),
        ("name = \"a.b\"\nscheme = \"https\"\nurl = \"http://c\"", "scheme: contradicts url"),
        ("name = \"1.2.3.4.5\"", "name: is no host"),
        ("name = \"a.b\"\nscheme = \"http\"\ntls.insecure_skip_verify = true", "tls: has no meaning"),
        ("name = \"a.b\"\nauth.user = \"x\"", "user: has no password"),
        ("name = \"a.b\"\nauth.password = \"x\"", "user: missing"),
        ("name = \"a.b\"\nauth = { user = \"a:b\", password = \"x\" }", "user: has a colon"),
        ("name = \"a.b\"\nauth = { user = \"a\", password = \"x\", token = \"y\" }", "token: given besides"),
        ("name = \"a.b\"\nauth = { token = \"x\", token_file = \"/y\" }", "token_file: given more than once"),
        ("name = \"a.b\"\ntls.cert = \"/dev/null\"", "cert: has no key"),
        ("name = \"a.b\"\ntls.ca = \"/does/not/exist\"", "ca: cannot be read: No such file"),
        ("name = \"a.b\"\n[[registries]]\nname = \"A.b\"", "name: `a.b` has an entry already"),
        (
            "name = \"docker.io\"\n[[registries]]\nname = \"index.docker.io\"",
            "name: `docker.io` has an entry already",
        ),
    ] {
        let found = errors(&format!("[[registries]]\n{entry}"));
        assert!(found.contains(message), "{entry}\n found: {found}\nwanted: {message}");
    }
}

#[test]
fn credentials_are_for_loopback_or_for_those_who_are_named() {
    let token = "[[registries]]\nname = \"a.b\"\nauth.token = \"hunter2\"";
    let certificate = "[[registries]]\nname = \"a.b\"\ntls = { cert = \"/dev/null\", key = \"/dev/null\" }";
    for entry in [token, certificate] {
        let found = errors(&format!("host = \"0.0.0.0\"\n{entry}"));
        assert!(found.starts_with("/c.toml:1: host: 0.0.0.0:8080 can be reached by others"), "{found}");
        let found = errors(&format!("listen = [\"[::]:80\"]\n{entry}"));
        assert!(found.starts_with("/c.toml:1: listen: [::]:80 can be reached by others"), "{found}");
        let found = errors(&format!("host = \"::ffff:10.0.0.1\"\n{entry}"));
        assert!(found.contains("can be reached by others"), "{found}");
        for safe in ["host = \"::1\"", "host = \"::ffff:127.0.0.1\"", "listen = [\"unix:/s\"]"] {
            settings(&format!("{safe}\n{entry}"));
        }
        for said in ["open = true", "clients = [\"10.0.0.0/8\"]"] {
            settings(&format!("host = \"0.0.0.0\"\n{said}\n{entry}"));
        }
    }
    settings("host = \"0.0.0.0\"");
}

#[test]
fn users_are_in_a_file_of_bcrypt_hashes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "host = \"0.0.0.0\"\nhtpasswd = {:?}\n[[registries]]\nname = \"a.b\"\nauth.token = \"x\"",
        file.path().display().to_string()
    );
    std::fs::write(file.path(), "me:$2y$05$abcdefghijklmnopqrstuuwqK6CQQqV9kkgeZjHZqKsbLVZ1l4kUK\n").unwrap();
    let settings = settings(&text);
    assert!(settings.passwords_in_the_clear(&settings.listen[0]));
    assert!(settings.access.users.unwrap().hash_for("me").1);
    std::fs::write(file.path(), "me:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n").unwrap();
    let wanted = format!("/c.toml:2: htpasswd: {}:1: user `me` has an MD5 hash", file.path().display());
    assert!(errors(&text).starts_with(&wanted), "{}", errors(&text));
}

#[test]
fn what_is_not_built_is_refused_and_its_default_taken() {
    for (default, other) in [
        ("metrics = 0", "metrics = \"127.0.0.1:9090\""),
        ("max_rate = 0", "max_rate = \"5MB\""),
        ("parallel = 4", "parallel = 1"),
        ("parallel_from = 67108864", "parallel_from = \"1MiB\""),
    ] {
        settings(default);
        let found = errors(other);
        assert!(found.contains("not supported yet"), "{other}: {found}");
    }
    for (default, other) in [
        ("max_rate = 0", "max_rate = 1"),
        ("parallel = 4", "parallel = 8"),
        ("proxy = \"\"", "proxy = \"http://p:1\""),
        ("mirrors = []", "mirrors = [{ url = \"https://m\", pass_ns = true }]"),
        ("rules = []", "rules = [{ match = \"library/**\", tag_ttl = 0 }]"),
        ("auth.identity_token = \"\"", "auth.identity_token = \"x\""),
        ("auth.docker_config = \"\"", "auth.docker_config = \"/x\""),
        ("auth.provider = \"\"", "auth.provider = \"ecr\""),
    ] {
        let entry = "[[registries]]\nname = \"a.b\"\n";
        settings(&format!("{entry}{default}"));
        let found = errors(&format!("{entry}{other}"));
        assert!(found.contains("not supported yet") && found.lines().count() == 1, "{other}: {found}");
    }
}

#[test]
fn what_is_not_built_is_checked_all_the_same() {
    for text in ["metrics = 70000", "admin.frobnicate = 1"] {
        let found = errors(text);
        assert!(found.contains("want") || found.contains("unknown key"), "{text}: {found}");
    }
}

#[test]
fn no_message_holds_a_secret() {
    for text in [
        "proxy = \"http://me:hunter2@proxy/path\"",
        "proxy = \"me:hunter2@proxy\"",
        "proxy = [\"hunter2\"]",
        "[[registries]]\nname = \"a.b\"\nurl = \"https://me:hunter2@c\"",
        "[[registries]]\nname = \"a.b\"\nurl = \"https://c/?key=hunter2\"",
        "[[registries]]\nname = \"a.b\"\nauth = \"hunter2\"",
        "[[registries]]\nname = \"a.b\"\nauth.pasword = \"hunter2\"",
        "[[registries]]\nname = \"a.b\"\nauth.password = [\"hunter2\"]",
        "[[registries]]\nname = \"a.b\"\nauth.token = \"hunter2\\n\"",
        "[[registries]]\nname = \"a.b\"\nauth.identity_token = \"hunter2\"",
        "[[registries]]\nname = \"a.b\"\nauth.token = \"hunter2",
        "[[registries]]\nname = \"a.b\"\nauth.token = hunter2",
        "[[registries]]\nname = \"a.b\"\nauth.token = 12hunter2",
        "[[registries]]\nname = \"a.b\"\nauth.token \"hunter2\"",
    ] {
        let found = errors(text);
        assert!(!found.contains("hunter2"), "{found}");
    }
    let text = "proxy = \"http://me:hunter2@p:1\"\n[[registries]]\nname = \"a.b\"\nauth = { user = \"u\", password = \"hunter2\" }";
    let configuration = read(text).unwrap();
    assert!(!format!("{configuration:?}{}", configuration.in_force).contains("hunter2"));
    assert!(configuration.in_force.to_string().contains("proxy = \"http://(secret)@p:1\""));
}
