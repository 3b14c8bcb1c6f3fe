use super::*;
use Runtime::Containerd;

const DEFAULT: &str = "/etc/containerd/certs.d/_default/hosts.toml";
const CONFIG: &str = "/etc/containerd/config.toml";

/// Without the comment that says it is ours.
fn body(text: &str) -> &str {
    text.split_once('\n').unwrap().1
}

#[test]
fn one_file_is_for_all_registries() {
    let host = Host::new();
    host.enable(Containerd, ALL);
    let text = host.read(DEFAULT);
    assert!(text.starts_with("# Written by ociregistry mirror containerd ("));
    assert_eq!(body(&text), "[host.\"http://127.0.0.1:8080\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
}

#[test]
fn a_named_registry_has_a_file_that_names_its_server() {
    let host = Host::configured(
        "[[registries]]\nname = \"reg.example:5000\"\nscheme = \"http\"\n\
         [[registries]]\nname = \"quay.io\"\nurl = \"http://127.0.0.1:9\"\n",
    );
    host.enable(Containerd, of(&["docker.io", "reg.example:5000", "quay.io"]));
    for (registry, server) in [
        ("docker.io", "https://registry-1.docker.io"),
        ("reg.example:5000", "http://reg.example:5000"),
        ("quay.io", "https://quay.io"),
    ] {
        let text = host.read(&format!("/etc/containerd/certs.d/{registry}/hosts.toml"));
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["server"].as_str(), Some(server));
        let here = &table["host"]["http://127.0.0.1:8080"];
        assert_eq!(here["capabilities"].as_array().unwrap().len(), 2);
        assert_eq!(here.as_table().unwrap().len(), 1);
    }
    assert!(!host.tree().contains_key(DEFAULT));
}

#[test]
fn without_a_fallback_the_server_is_ours_too() {
    let host = Host::new();
    host.enable(Containerd, Ask { fallback: false, ..ALL });
    let table: toml::Table = toml::from_str(&host.read(DEFAULT)).unwrap();
    assert_eq!(table["server"].as_str(), Some("http://127.0.0.1:8080"));
    assert_eq!(table["capabilities"].as_array().unwrap().len(), 2);
    assert!(table["host"].get("http://127.0.0.1:8080").is_some());
}

#[test]
fn enabling_otherwise_replaces_what_was_enabled() {
    let host = Host::new();
    host.enable(Containerd, ALL);
    host.enable(Containerd, of(&["docker.io"]));
    assert!(!host.tree().contains_key("/etc/containerd/certs.d/_default/"));
    host.enable(Containerd, Ask { address: "http://127.0.0.1:5000", ..of(&["quay.io"]) });
    let tree = host.tree();
    let files: Vec<_> = tree.keys().filter(|name| name.ends_with(".toml")).collect();
    assert_eq!(files, ["/etc/containerd/certs.d/quay.io/hosts.toml"]);
}

#[test]
fn disabling_gives_back_the_former_files() {
    let theirs = "[host.\"https://mirror.example\"]\n";
    let host = Host::new()
        .with("/etc/containerd/certs.d/quay.io/hosts.toml", theirs)
        .with("/etc/containerd/certs.d/docker.io/notes", "kept");
    let former = host.tree();
    host.enable(Containerd, ALL);
    host.enable(Containerd, of(&["docker.io", "ghcr.io"]));
    host.disable(Containerd);
    assert_eq!(host.tree(), former);
    assert!(host.disable(Containerd).changes.is_empty());
}

#[test]
fn what_others_wrote_is_refused_with_what_to_add() {
    let host = Host::new().with(DEFAULT, "[host.\"https://mirror.example\"]\n");
    host.refuses(Containerd, ALL, &["_default/hosts.toml", "[host.\"http://127.0.0.1:8080\"]"]);
    assert!(host.disable(Containerd).changes.is_empty());
}

#[test]
fn what_others_wrote_will_do_if_it_says_the_same() {
    let host = Host::new()
        .with(DEFAULT, "# mine\n[host.'http://127.0.0.1:8080']\ncapabilities = [\"pull\", \"resolve\"]\n");
    assert!(host.plan(Containerd, ALL).unwrap().is_done());
    assert!(host.disable(Containerd).changes.is_empty());
    let host = host.with("/etc/containerd/certs.d/quay.io/hosts.toml", "[host.\"http://127.0.0.1:8080\"]\n");
    assert!(host.plan(Containerd, ALL).unwrap().notes.is_empty());
}

#[test]
fn what_was_changed_since_is_refused_both_ways() {
    let host = Host::new();
    host.enable(Containerd, ALL);
    let text = host.read(DEFAULT) + "[host.\"https://mirror.example\"]\n";
    let host = host.with(DEFAULT, &text);
    host.refuses(Containerd, ALL, &["was changed since"]);
    assert!(matches!(
        Containerd.disable(&ALL.address.parse().unwrap(), &host.root()),
        Err(MirrorError::Changed { .. })
    ));
    assert_eq!(host.read(DEFAULT), text);
}

#[test]
fn certificates_that_would_count_no_more_are_refused() {
    let host = Host::new().with("/etc/containerd/certs.d/reg.example:5000/ca.crt", "");
    host.refuses(Containerd, of(&["reg.example:5000"]), &["ca.crt", "server = \"https://reg.example:5000\""]);
    let plan = host.enable(Containerd, ALL);
    assert!(plan.notes.iter().any(|note| note.contains("reg.example:5000")), "{plan:?}");
}

#[test]
fn the_folder_that_containerd_looks_at_first_is_used() {
    let host = Host::new().with("/etc/containerd/certs.d/reg.example_5000_/notes", "");
    host.enable(Containerd, of(&["reg.example:5000"]));
    host.read("/etc/containerd/certs.d/reg.example_5000_/hosts.toml");
}

fn v2(registry: &str) -> String {
    format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n{registry}\n")
}

fn v3(registry: &str) -> String {
    format!("version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n{registry}\n")
}

const SET: &str = "config_path = \"/etc/containerd/certs.d\"";

#[test]
fn a_config_path_is_found_in_each_version_of_the_file() {
    for config in [v2(SET), v3(SET), format!("[plugins.cri.registry]\n{SET}")] {
        let host = Host::new().with(CONFIG, &config);
        assert_eq!(host.enable(Containerd, ALL).obstacles, [""; 0], "{config}");
    }
}

#[test]
fn where_it_is_not_set_it_says_what_to_add() {
    for (config, wanted) in [
        (v2(""), "[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        (v2("config_path = \"\""), "[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        (v3(""), "[plugins.\"io.containerd.cri.v1.images\".registry]"),
        // What the other version of the file calls it counts for nothing.
        (v3(SET).replace("version = 3", "version = 2"), "[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        (v2(SET).replace("version = 2", "version = 3"), "[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ("oom_score = 0".to_owned(), "[plugins.cri.registry]"),
    ] {
        let host = Host::new().with(CONFIG, &config);
        let obstacles = host.enable(Containerd, ALL).obstacles.concat();
        assert!(obstacles.contains(wanted) && obstacles.contains(SET), "{config}: {obstacles}");
        assert_eq!(host.read(CONFIG), config);
    }
    let both = Host::new().enable(Containerd, ALL).obstacles.concat();
    assert!(both.contains("version = 3") && both.contains("version = 2"), "{both}");
}

#[test]
fn another_config_path_is_where_files_go() {
    let host = Host::new().with(CONFIG, &v2("config_path = \"/srv/hosts\""));
    host.enable(Containerd, ALL);
    host.read("/srv/hosts/_default/hosts.toml");
    let host = host.with(CONFIG, "");
    assert!(host.disable(Containerd).changes.is_empty(), "no file says any more that it is there");
}

#[test]
fn a_list_of_folders_is_not_read_by_newer_ones() {
    let list = "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"";
    let new = Host::new().with(CONFIG, &v3(list)).enable(Containerd, ALL);
    assert!(new.obstacles.concat().contains(SET), "{new:?}");
    let old = Host::new().with(CONFIG, &v2(list)).enable(Containerd, ALL);
    assert!(old.obstacles.is_empty() && old.notes.concat().contains("list"), "{old:?}");
}

#[test]
fn older_keys_that_keep_the_cri_from_starting_are_named() {
    let mirrors = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = []";
    let host = Host::new().with(CONFIG, &v2(&format!("{SET}\n{mirrors}")));
    assert!(host.enable(Containerd, ALL).obstacles.concat().contains("registry.mirrors"));
    let tls = "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"a.example\".tls]\nca_file = \"/a\"";
    let host = Host::new().with(CONFIG, &v2(&format!("{SET}\n{tls}")));
    assert!(host.enable(Containerd, ALL).obstacles.concat().contains("tls"));
    let auth =
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"a.example\".auth]\nusername = \"a\"";
    let host = Host::new().with(CONFIG, &v2(&format!("{SET}\n{auth}")));
    assert!(host.enable(Containerd, ALL).obstacles.is_empty());
}

#[test]
fn imported_files_count() {
    let host = Host::new()
        .with(CONFIG, "version = 2\nimports = [\"conf.d/*.toml\", \"/none.toml\"]\n")
        .with("/etc/containerd/conf.d/a.toml", &v2(SET))
        .with("/etc/containerd/conf.d/b.txt", "not toml")
        .with("/etc/containerd/conf.d/c.toml", "imports = [\"../config.toml\"]");
    assert_eq!(host.enable(Containerd, ALL).obstacles, [""; 0]);
    // The whole of what was said of the plugin is replaced.
    let host = host
        .with("/etc/containerd/conf.d/d.toml", "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\na = 1");
    assert_eq!(host.plan(Containerd, ALL).unwrap().obstacles.len(), 1);
}

#[test]
fn where_the_cri_is_disabled_nothing_has_to_be_set() {
    let host = Host::new().with(CONFIG, "disabled_plugins = [\"cri\"]");
    let plan = host.enable(Containerd, ALL);
    assert!(plan.obstacles.is_empty() && plan.notes.concat().contains("nerdctl"), "{plan:?}");
}

#[test]
fn a_broken_config_is_an_error() {
    Host::new().with(CONFIG, "version = ").refuses(Containerd, ALL, &["config.toml"]);
}
