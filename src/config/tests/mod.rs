//! Documents against what becomes of them.

mod changes;
mod errors;
mod server_tls;

use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::oci::Registry;

fn read(text: &str) -> Result<Configuration, ConfigError> {
    read_with(text, &[])
}

fn read_with(text: &str, overrides: &[Override]) -> Result<Configuration, ConfigError> {
    Configuration::read(Some((Path::new("/c.toml"), text)), overrides, Reader::Daemon)
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
    vec![Override { key, option, text: text.to_owned() }]
}

fn registry(text: &str) -> Registry {
    text.parse().unwrap()
}

#[test]
fn the_defaults() {
    let settings = settings("");
    assert_eq!(settings.image_path, Path::new("/var/lib/ociregistry"));
    assert_eq!(settings.listen, [Listen::Tcp("127.0.0.1:8080".parse().unwrap())]);
    assert_eq!(settings.default_registry, Some(registry("docker.io")));
    assert_eq!(settings.log.level, LevelFilter::ERROR);
    assert_eq!(settings.pull_timeout, Duration::from_secs(60));
    assert_eq!(settings.proxy, Proxy::Environment);
    assert_eq!((settings.prune.min_free, settings.prune.max_size), (Share::Percent(15), Share::None));
    assert_eq!(settings.check.every, Some(Duration::from_secs(7 * 24 * 60 * 60)));
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
        hello_world = true
        health = 5002
        unlisted = "deny"
        allow = ["quay.io/**"]
        deny = ["quay.io/a"]
        clients = ["10.0.0.0/8", "::ffff:192.0.2.0/120"]
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
    assert_eq!(settings.health, Some("[::1]:5002".parse().unwrap()));
    let access = &settings.access;
    assert_eq!((access.allow.len(), access.deny.len(), access.unlisted), (1, 1, Unlisted::Deny));
    assert_eq!(access.clients, ["10.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()]);
    assert!(settings.hello_world);
    assert!(settings.air_gapped && settings.not_found_ttl.is_zero());
    assert_eq!(settings.abandoned, Abandoned::PauseAfter(Duration::from_secs(60)));
    let Proxy::Explicit { url, except } = settings.proxy else { panic!("no proxy") };
    assert_eq!((url.reveal(), except.len()), ("http://user:word@proxy:3128", 2));
}

#[test]
fn lists_of_images_are_read_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (first, _) = (list("a.list", "nginx # ours\nquay.io/a/b:1\n"), list("b.list", "nginx:latest\nc\n"));
    let pattern = folder.path().join("*.list").display().to_string();
    let text = format!("preload_images = \"{first} , {pattern}\"\npreload = \"background\"");
    let preload = settings(&text).preload;
    let names: Vec<_> = preload.images.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/library/nginx:latest", "quay.io/a/b:1", "docker.io/library/c:latest"]);
    assert_eq!(preload.mode, Preload::Background);

    let old = read(&text).unwrap();
    list("b.list", "d\n");
    let changes = old.changes(&read(&text).unwrap());
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (changes[0].to_string(), changes[0].needs_restart()),
        ("preload_images: changed".to_owned(), true)
    );
    let wrong = list("c.list", "ok\nNO\n");
    assert!(errors(&text).starts_with(&format!("/c.toml:1: preload_images: {wrong}:2: `NO` is no ")));
    assert!(errors("preload = \"later\"").contains("want \"wait\" or \"background\""));
    assert!(errors("preload_images = \"a.list\"").contains("want absolute paths"));
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
    let Credentials::Basic { user, password } = &quay.credentials else { panic!("no credentials") };
    assert_eq!((user.as_str(), password.reveal()), ("me", "word"));
    assert!(settings.registry(&registry("other.io")).is_none());
    assert_eq!(settings.policy(&registry("other.io")).max_downloads, 3);
}

#[test]
fn what_is_pruned_and_checked() {
    let settings = settings(
        r#"
        [prune]
        min_free = "5GiB"
        max_size = "40%"
        duration = "30d"
        type = "created"
        frequency = "10m"
        count = 7
        dry_run = true
        keep = ["quay.io/team/**", "docker.io/alpine"]
        [check]
        every = ""
        "#,
    );
    let prune = &settings.prune;
    assert!(prune.enabled && prune.dry_run);
    assert_eq!((prune.min_free, prune.max_size), (Share::Bytes(5 << 30), Share::Percent(40)));
    assert_eq!(prune.max_size.of(1000), Some(400));
    assert_eq!(prune.duration, Some(Duration::from_secs(30 * 24 * 60 * 60)));
    assert_eq!((prune.by, prune.count), (PruneBy::Created, 7));
    assert_eq!(prune.frequency, Duration::from_secs(600));
    let keeps = |text: &str| prune.keeps(&text.parse::<crate::oci::Image>().unwrap().name);
    assert!(keeps("quay.io/team/a/b:1") && keeps("alpine:3") && !keeps("quay.io/other/a:1"));
    assert_eq!(settings.check.every, None);
    for (text, want) in [
        ("prune.frequency = \"0\"", "prune.frequency"),
        ("prune.duration = \"0\"", "prune.duration"),
        ("prune.min_free = \"101%\"", "prune.min_free"),
        ("prune.type = \"pattern\"", "want \"accessed\" or \"created\""),
        ("prune.keep = [\"library/**\"]", "prune.keep[0]"),
    ] {
        assert!(errors(text).contains(want), "{}", errors(text));
    }
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
        assert_eq!(settings.registry(&registry(name)).unwrap().description, entry, "{name}");
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
        settings.registry(&name).and_then(|entry| entry.api(&name)).map(String::from)
    };
    assert_eq!(api("docker.io").unwrap(), "https://registry-1.docker.io/");
    assert_eq!(api("registry.k8s.io").unwrap(), "http://127.0.0.1:5000/hub");
    assert_eq!(api("localhost:5000").unwrap(), "http://localhost:5000/");
    assert_eq!(api("a.example").unwrap(), "https://a.example/");
    assert_eq!(Scheme::Https.api(&registry("1.2.3.4.5")), None);
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let port = |text, overrides: &[_]| read_with(text, overrides).map(|c| c.settings.listen[0].to_string());
    assert_eq!(port("port = 1", &overrides("port", "--port", "2")).unwrap(), "127.0.0.1:2");
    assert_eq!(port("", &overrides("port", "--port", "2")).unwrap(), "127.0.0.1:2");
    let wrong = port("", &overrides("port", "--port", "x")).unwrap_err().to_string();
    assert_eq!(wrong, "--port: found \"x\", want a port, 1 to 65535");
    // A file that is wrong stays wrong.
    assert!(port("port = 0", &overrides("port", "--port", "2")).is_err());
    let later = port("", &overrides("metrics", "--metrics", "9")).unwrap_err().to_string();
    assert_eq!(later, "--metrics: not supported yet, leave it at 0");
}

#[test]
fn what_is_in_force_says_where_it_came_from_and_reads_back() {
    let text = "port = 5000\n\n[[registries]]\nname = \"quay.io\"\nurl = \"http://c\"\ntag_ttl = \"2m\"\nauth = { token = \"hunter2\" }\n";
    let configuration = read_with(text, &overrides("log_level", "--log-level", "info")).unwrap();
    let shown = configuration.in_force.to_string();
    for line in [
        "port = 5000  # /c.toml:1",
        "host = \"127.0.0.1\"  # default",
        "log_level = \"info\"  # --log-level",
        "name = \"quay.io\"  # /c.toml:4",
        "tag_ttl = \"2m\"  # /c.toml:6",
        "auth.token = \"(secret)\"  # /c.toml:7",
        "stale_if_error = \"forever\"  # default",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    let again = settings(&shown);
    assert_eq!(again.listen, configuration.settings.listen);
    assert_eq!(again.registries[0].policy, configuration.settings.registries[0].policy);
}

#[test]
fn a_secret_can_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let text = format!("[[registries]]\nname = \"a.b\"\nauth.token_file = {:?}", path.display().to_string());
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
    let sample = include_str!("../../../etc/ociregistry.toml");
    assert_eq!(settings(sample).log.level, LevelFilter::INFO);

    let all = read(&uncommented(sample)).unwrap_or_else(|e| panic!("{e}")).in_force;
    let defaults = read("[[registries]]\nname = \"registry.example:5000\"").unwrap().in_force;
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
        assert!(all.lines.iter().any(same), "the sample shows another default for {key}");
    }
    for key in [
        "description",
        "scheme",
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
    for key in ["token", "password_file", "password_from_env", "password_credential"] {
        assert!(sample.contains(&format!("{key} = ")), "{key} is missing in the sample");
    }
}
