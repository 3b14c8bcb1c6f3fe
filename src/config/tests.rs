//! Documents against what becomes of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::oci::Registry;

fn read(text: &str) -> Result<Configuration, ConfigError> {
    read_with(text, &[])
}

fn read_with(text: &str, overrides: &[Override]) -> Result<Configuration, ConfigError> {
    Configuration::read(Some((Path::new("/c.toml"), text)), overrides)
}

fn settings(text: &str) -> Settings {
    read(text).unwrap_or_else(|e| panic!("{e}")).settings
}

/// The error messages, one a line.
fn errors(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn overrides(key: &'static str, option: &'static str, text: &str) -> Vec<Override> {
    vec![Override {
        key,
        option,
        text: text.to_owned(),
    }]
}

fn registry(text: &str) -> Registry {
    text.parse().unwrap()
}

#[test]
fn the_defaults() {
    let settings = settings("");
    assert_eq!(settings.image_path, Path::new("/var/lib/ociregistry"));
    assert_eq!(settings.listen, ["127.0.0.1:8080".parse::<SocketAddr>().unwrap()]);
    assert_eq!(settings.default_registry, Some(registry("docker.io")));
    assert_eq!(settings.log.level, LevelFilter::ERROR);
    assert_eq!(settings.pull_timeout, Duration::from_secs(60));
    assert_eq!(settings.proxy, Proxy::Environment);
    assert_eq!(
        settings.defaults,
        RegistryDefaults {
            tag_ttl: Age::For(Duration::from_secs(60)),
            stale_if_error: Age::Forever,
            always_pull_latest: false,
            prefetch: Prefetch::Image,
            max_downloads: 8,
        }
    );
}

#[test]
fn what_is_set_is_in_force() {
    let settings = settings(
        r#"
        host = "::1"
        port = 5000
        listen = ["127.0.0.1:5000", "[::1]:5001"]
        default_ns = ""
        log_format = "json"
        pull_timeout = "30s"
        air_gapped = true
        abandoned = "1m"
        not_found_ttl = 0
        prefetch = "none"
        proxy = "http://user:word@proxy:3128"
        no_proxy = [".example.com", "10.0.0.0/8"]
        "#,
    );
    let listen: Vec<_> = settings.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["[::1]:5000", "127.0.0.1:5000", "[::1]:5001"]);
    assert_eq!(settings.default_registry, None);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.pull_timeout, Duration::from_secs(30));
    assert!(settings.air_gapped && settings.not_found_ttl.is_zero());
    assert_eq!(settings.abandoned, Abandoned::PauseAfter(Duration::from_secs(60)));
    let Proxy::Explicit { url, except } = settings.proxy else {
        panic!("no proxy")
    };
    assert_eq!((url.reveal(), except.len()), ("http://user:word@proxy:3128", 2));
}

#[test]
fn an_entry_inherits_what_it_leaves_out() {
    let settings = settings(
        r#"
        tag_ttl = "5m"
        max_downloads = 3
        [[registries]]
        name = "quay.io"
        max_downloads = 2
        auth = { user = "me", password = "word" }
        "#,
    );
    let quay = settings.registry(&registry("quay.io")).unwrap();
    assert_eq!(quay.policy.tag_ttl, Age::For(Duration::from_secs(300)));
    assert_eq!(quay.policy.max_downloads, 2);
    let Credentials::Basic { user, password } = &quay.credentials else {
        panic!("no credentials")
    };
    assert_eq!((user.as_str(), password.reveal()), ("me", "word"));
    assert!(settings.registry(&registry("other.io")).is_none());
    assert_eq!(settings.policy(&registry("other.io")).max_downloads, 3);
}

#[test]
fn the_best_entry_counts() {
    let settings = settings(
        r#"
        [[registries]]
        name = "*.example.com"
        description = "short"
        [[registries]]
        name = "*.eu.example.com"
        description = "long"
        [[registries]]
        name = "a.eu.example.com"
        description = "exact"
        [[registries]]
        name = "*.*.example.com"
        description = "wide"
        "#,
    );
    for (name, entry) in [
        ("a.example.com", "short"),
        ("b.eu.example.com", "long"),
        ("a.eu.example.com", "exact"),
        ("b.us.example.com", "wide"),
    ] {
        assert_eq!(
            settings.registry(&registry(name)).unwrap().description,
            entry,
            "{name}"
        );
    }
}

#[test]
fn where_an_api_is() {
    let settings = settings(
        r#"
        [[registries]]
        name = "index.docker.io"
        [[registries]]
        name = "registry.k8s.io"
        url = "http://127.0.0.1:5000/hub/"
        [[registries]]
        name = "localhost:5000"
        scheme = "http"
        [[registries]]
        name = "*.example"
        "#,
    );
    let api = |name: &str| {
        let name = registry(name);
        settings
            .registry(&name)
            .and_then(|entry| entry.api(&name))
            .map(String::from)
    };
    assert_eq!(api("docker.io").unwrap(), "https://registry-1.docker.io/");
    assert_eq!(api("registry.k8s.io").unwrap(), "http://127.0.0.1:5000/hub");
    assert_eq!(api("localhost:5000").unwrap(), "http://localhost:5000/");
    assert_eq!(api("a.example").unwrap(), "https://a.example/");
    assert_eq!(Scheme::Https.api(&registry("1.2.3.4.5")), None);
}

#[test]
fn an_error_says_where_what_and_what_is_wanted() {
    for (text, message) in [
        ("\nprot = 1", "/c.toml:2: prot: unknown key; did you mean `port`?"),
        ("frobnicate = 1", "/c.toml:1: frobnicate: unknown key"),
        ("\"a\\nb\" = 1", "/c.toml:1: \"a\\nb\": unknown key"),
        (
            "port = \"x\"",
            "/c.toml:1: port: found \"x\", want a port, 1 to 65535",
        ),
        (
            "port = 70000",
            "/c.toml:1: port: found 70000, want a port, 1 to 65535",
        ),
        (
            "port = 1.5",
            "/c.toml:1: port: found a fraction, want a port, 1 to 65535",
        ),
        (
            "air_gapped = \"yes\"",
            "/c.toml:1: air_gapped: found \"yes\", want true or false",
        ),
        (
            "image_path = \"x\"",
            "/c.toml:1: image_path: found \"x\", want an absolute path",
        ),
        (
            "tag_ttl = 5",
            "/c.toml:1: tag_ttl: found 5, want a duration such as",
        ),
        (
            "listen = \"a\"",
            "/c.toml:1: listen: found a string, want a list, each item an address",
        ),
        (
            "listen = [\n\"x\"]",
            "/c.toml:2: listen[0]: found \"x\", want an address and port",
        ),
        (
            "listen = [\"127.0.0.1:8080\"]",
            "/c.toml:1: listen: 127.0.0.1:8080 is listened on already",
        ),
        (
            "no_proxy = [\"a\"]",
            "/c.toml:1: no_proxy: has no meaning without proxy",
        ),
        (
            "registries = 1",
            "/c.toml:1: registries: found an integer, want a list of tables: [[registries]]",
        ),
        (
            "registries = [1]",
            "/c.toml:1: registries[0]: found an integer, want a table",
        ),
        (
            "[[registries]]",
            "/c.toml:1: registries[0].name: missing, want a registry",
        ),
        (
            "[[registries]]\nname = \"a/b\"",
            "/c.toml:2: registries[0].name: found \"a/b\", want a registry",
        ),
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
    ] {
        let found = errors(text);
        assert!(
            found.starts_with(message),
            "{text}\n found: {found}\nwanted: {message}"
        );
    }
}

#[test]
fn every_error_is_reported_in_the_order_of_lines() {
    let found = errors("prt = 1\nos = 1\n[[registries]]\nnme = \"a.b\"\nurl = 1\n[prun]\n");
    let places: Vec<_> = found
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "/c.toml:1",
            "/c.toml:2",
            "/c.toml:3",
            "/c.toml:4",
            "/c.toml:5",
            "/c.toml:6"
        ],
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
fn what_contradicts_itself_is_refused() {
    for (entry, message) in [
        (
            "name = \"*.b\"\nurl = \"http://c\"",
            "url: has no meaning for a wildcard",
        ),
        (
            "name = \"a.b\"\nscheme = \"https\"\nurl = \"http://c\"",
            "scheme: contradicts url",
        ),
        ("name = \"1.2.3.4.5\"", "name: is no host"),
        (
            "name = \"a.b\"\nscheme = \"http\"\ntls.insecure_skip_verify = true",
            "tls: has no meaning",
        ),
        ("name = \"a.b\"\nauth.user = \"x\"", "user: has no password"),
        ("name = \"a.b\"\nauth.password = \"x\"", "user: missing"),
        (
            "name = \"a.b\"\nauth = { user = \"a:b\", password = \"x\" }",
            "user: has a colon",
        ),
        (
            "name = \"a.b\"\nauth = { user = \"a\", password = \"x\", token = \"y\" }",
            "token: given besides",
        ),
        (
            "name = \"a.b\"\nauth = { token = \"x\", token_file = \"/y\" }",
            "token_file: given more than once",
        ),
        ("name = \"a.b\"\ntls.cert = \"/dev/null\"", "cert: has no key"),
        (
            "name = \"a.b\"\ntls.ca = \"/does/not/exist\"",
            "ca: cannot be read: No such file",
        ),
        (
            "name = \"a.b\"\n[[registries]]\nname = \"A.b\"",
            "name: `a.b` has an entry already",
        ),
        (
            "name = \"docker.io\"\n[[registries]]\nname = \"index.docker.io\"",
            "name: `docker.io` has an entry already",
        ),
    ] {
        let found = errors(&format!("[[registries]]\n{entry}"));
        assert!(
            found.contains(message),
            "{entry}\n found: {found}\nwanted: {message}"
        );
    }
}

#[test]
fn credentials_are_for_loopback() {
    let entry = "[[registries]]\nname = \"a.b\"\nauth.token = \"hunter2\"";
    let found = errors(&format!("host = \"0.0.0.0\"\n{entry}"));
    assert!(
        found.starts_with("/c.toml:1: host: 0.0.0.0:8080 can be reached by others"),
        "{found}"
    );
    let found = errors(&format!("listen = [\"[::]:80\"]\n{entry}"));
    assert!(
        found.starts_with("/c.toml:1: listen: [::]:80 can be reached by others"),
        "{found}"
    );
    settings(&format!("host = \"::1\"\n{entry}"));
    settings("host = \"0.0.0.0\"");
}

#[test]
fn what_is_not_built_is_refused_and_its_default_taken() {
    for (default, other) in [
        ("health = 0", "health = 9090"),
        ("metrics = 0", "metrics = \"127.0.0.1:9090\""),
        ("hello_world = false", "hello_world = true"),
        ("preload_images = \"\"", "preload_images = \"/a\""),
        ("preload = \"wait\"", "preload = \"background\""),
        ("user = \"ociregistry\"", "user = \"me\""),
        ("group = \"ociregistry\"", "group = \"me\""),
        ("max_rate = 0", "max_rate = \"5MB\""),
        ("parallel = 4", "parallel = 1"),
        ("parallel_from = 67108864", "parallel_from = \"1MiB\""),
        ("unlisted = \"public\"", "unlisted = \"deny\""),
        ("allow = []", "allow = [\"quay.io/**\"]"),
        ("deny = []", "deny = [\"quay.io/**\"]"),
        ("clients = []", "clients = [\"10.0.0.0/8\"]"),
        ("htpasswd = \"\"", "htpasswd = \"/a\""),
        ("open = false", "open = true"),
        ("listen = []", "listen = [\"unix:/run/x\"]"),
        ("server_tls.cert = \"\"", "server_tls.cert = \"/a\""),
        ("server_tls.key = \"\"", "server_tls.key = \"/a\""),
        ("server_tls.ca = \"\"", "server_tls.ca = \"/a\""),
        (
            "server_tls.client_auth = \"none\"",
            "server_tls.client_auth = \"verify\"",
        ),
        ("prune.enabled = true", "prune.enabled = false"),
        ("prune.min_free = \"15%\"", "prune.min_free = \"5GiB\""),
        ("prune.max_size = \"\"", "prune.max_size = \"5GiB\""),
        ("prune.duration = \"\"", "prune.duration = \"7d\""),
        ("prune.type = \"accessed\"", "prune.type = \"created\""),
        ("prune.frequency = \"60m\"", "prune.frequency = \"1d\""),
        ("prune.count = 0", "prune.count = 5"),
        ("prune.dry_run = false", "prune.dry_run = true"),
        ("prune.keep = []", "prune.keep = [\"quay.io/**\"]"),
        ("check.every = \"7d\"", "check.every = \"\""),
        ("admin.listen = \"\"", "admin.listen = \"127.0.0.1:1\""),
        ("admin.token_file = \"\"", "admin.token_file = \"/a\""),
    ] {
        settings(default);
        let found = errors(other);
        assert!(found.contains("not supported yet"), "{other}: {found}");
    }
    for (default, other) in [
        ("max_rate = 0", "max_rate = 1"),
        ("parallel = 4", "parallel = 8"),
        ("proxy = \"\"", "proxy = \"http://p:1\""),
        (
            "mirrors = []",
            "mirrors = [{ url = \"https://m\", pass_ns = true }]",
        ),
        ("rules = []", "rules = [{ match = \"library/**\", tag_ttl = 0 }]"),
        ("auth.identity_token = \"\"", "auth.identity_token = \"x\""),
        ("auth.docker_config = \"\"", "auth.docker_config = \"/x\""),
        ("auth.provider = \"\"", "auth.provider = \"ecr\""),
    ] {
        let entry = "[[registries]]\nname = \"a.b\"\n";
        settings(&format!("{entry}{default}"));
        let found = errors(&format!("{entry}{other}"));
        assert!(
            found.contains("not supported yet") && found.lines().count() == 1,
            "{other}: {found}"
        );
    }
}

#[test]
fn what_is_not_built_is_checked_all_the_same() {
    for text in [
        "health = 70000",
        "preload = \"later\"",
        "clients = [\"10.0.0.0/99\"]",
        "prune.min_free = \"x\"",
        "prune.frobnicate = 1",
        "allow = [\"[\"]",
    ] {
        let found = errors(text);
        assert!(
            found.contains("want") || found.contains("unknown key"),
            "{text}: {found}"
        );
    }
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let port = |text, overrides: &[_]| read_with(text, overrides).map(|c| c.settings.listen[0].port());
    assert_eq!(port("port = 1", &overrides("port", "--port", "2")).unwrap(), 2);
    assert_eq!(port("", &overrides("port", "--port", "2")).unwrap(), 2);
    let wrong = port("", &overrides("port", "--port", "x"))
        .unwrap_err()
        .to_string();
    assert_eq!(wrong, "--port: found \"x\", want a port, 1 to 65535");
    // A file that is wrong stays wrong.
    assert!(port("port = 0", &overrides("port", "--port", "2")).is_err());
    let later = port("", &overrides("health", "--health", "9"))
        .unwrap_err()
        .to_string();
    assert_eq!(later, "--health: not supported yet, leave it at 0");
}

#[test]
fn what_is_in_force_says_where_it_came_from_and_reads_back() {
    let text = "port = 5000\n\n[[registries]]\nname = \"quay.io\"\ntag_ttl = \"2m\"\nauth = { token = \"hunter2\" }\n";
    let configuration = read_with(text, &overrides("log_level", "--log-level", "info")).unwrap();
    let shown = configuration.in_force.to_string();
    for line in [
        "port = 5000  # /c.toml:1",
        "host = \"127.0.0.1\"  # default",
        "log_level = \"info\"  # --log-level",
        "name = \"quay.io\"  # /c.toml:4",
        "tag_ttl = \"2m\"  # /c.toml:5",
        "auth.token = \"(secret)\"  # /c.toml:6",
        "stale_if_error = \"forever\"  # default",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    let again = settings(&shown);
    assert_eq!(again.listen, configuration.settings.listen);
    assert_eq!(
        again.registries[0].policy,
        configuration.settings.registries[0].policy
    );
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
    ] {
        let found = errors(text);
        assert!(!found.contains("hunter2"), "{found}");
    }
    let text = "proxy = \"http://me:hunter2@p:1\"\n[[registries]]\nname = \"a.b\"\nauth = { user = \"u\", password = \"hunter2\" }";
    let configuration = read(text).unwrap();
    assert!(!format!("{configuration:?}{}", configuration.in_force).contains("hunter2"));
    assert!(
        configuration
            .in_force
            .to_string()
            .contains("proxy = \"http://(secret)@p:1\"")
    );
}

#[test]
fn a_secret_can_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let text = format!(
        "[[registries]]\nname = \"a.b\"\nauth.token_file = {:?}",
        path.display().to_string()
    );
    assert!(errors(&text).contains("auth.token_file: the secret in "));
    for (content, token) in [
        ("word\n", Some("word")),
        ("word\r\n", Some("word")),
        ("w d", Some("w d")),
        ("\n", None),
        ("a\nb", None),
    ] {
        std::fs::write(&path, content).unwrap();
        match (read(&text), token) {
            (Ok(c), Some(token)) => {
                assert_eq!(
                    c.settings.registries[0].credentials,
                    Credentials::Token(Secret::new(token.into()))
                );
            }
            (Err(_), None) => {}
            (other, _) => panic!("{content:?}: {other:?}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_document_is_read_without_panic(
        keys in proptest::collection::vec(("(port|listen|registries|auth|tls|proxy|[a-z_.\"]{1,8})", "([0-9]{1,20}|\"[^\"\\\\]{0,9}\"|\\[.{0,5}\\]|\\{.{0,5}\\})"), 0..6),
    ) {
        let text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        if let Err(error) = read(&text) {
            proptest::prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// `#key = value` with the `#` taken away.
fn uncommented(sample: &str) -> String {
    let is_setting = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let line = |line| str::strip_prefix(line, "#").filter(is_setting).unwrap_or(line);
    sample.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_shows_every_key_with_its_default() {
    use super::origin::Line;
    let sample = include_str!("../../etc/ociregistry.toml");
    assert_eq!(settings(sample).log.level, LevelFilter::INFO);

    let all = read(&uncommented(sample))
        .unwrap_or_else(|e| panic!("{e}"))
        .in_force;
    let defaults = read("[[registries]]\nname = \"registry.example:5000\"")
        .unwrap()
        .in_force;
    for line in &all.lines {
        if let Line::Key { key, origin, .. } = line {
            assert_ne!(*origin, Origin::Default, "{key} is missing in the sample");
        }
    }
    for line in &defaults.lines {
        let Line::Key { key, value, .. } = line else {
            continue;
        };
        if matches!(key.as_str(), "log_level" | "os" | "arch") {
            continue;
        }
        let same = |l: &Line| matches!(l, Line::Key { key: k, value: v, .. } if k == key && v == value);
        assert!(
            all.lines.iter().any(same),
            "the sample shows another default for {key}"
        );
    }
    for key in [
        "description",
        "auth.user",
        "auth.password",
        "tls.ca",
        "tls.cert",
        "tls.key",
        "tls.insecure_skip_verify",
    ] {
        let shown = |l: &Line| matches!(l, Line::Key { key: k, .. } if k == key);
        assert!(all.lines.iter().any(shown), "{key} is missing in the sample");
    }
    for key in [
        "token",
        "password_file",
        "password_from_env",
        "password_credential",
    ] {
        assert!(
            sample.contains(&format!("{key} = ")),
            "{key} is missing in the sample"
        );
    }
}
