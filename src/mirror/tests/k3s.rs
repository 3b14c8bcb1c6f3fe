use super::*;
use Runtime::{K3s, Rke2};

const FILE: &str = "/etc/rancher/k3s/registries.yaml";

/// Enables on this file, and gives what it became without our comments; then takes it back.
fn enabled(former: &str, ask: Ask) -> String {
    let host = Host::new().with(FILE, former);
    host.enable(K3s, ask);
    let text = host.read(FILE);
    host.disable(K3s);
    assert_eq!(host.read(FILE), former, "after {text}");
    let ours = |line: &&str| !line.contains("ociregistry mirror") && !line.contains("what ociregistry wrote");
    text.split_inclusive('\n').filter(ours).collect()
}

const BLOCK: &str = "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n";

#[test]
fn a_file_is_made_and_taken_away() {
    for (runtime, path) in [(K3s, FILE), (Rke2, "/etc/rancher/rke2/registries.yaml")] {
        let host = Host::new();
        host.enable(runtime, ALL);
        assert!(host.read(path).contains(BLOCK));
        host.enable(runtime, of(&["docker.io", "reg.example:5000"]));
        assert!(host.read(path).contains("  \"reg.example:5000\":\n"), "{}", host.read(path));
        host.disable(runtime);
        assert!(!host.tree().contains_key(path));
    }
}

#[test]
fn what_others_add_to_a_file_of_ours_stays() {
    let host = Host::new();
    host.enable(K3s, ALL);
    let more = "configs:\n  a.example:\n    auth:\n      username: a\n";
    let text = host.read(FILE) + more;
    let host = host.with(FILE, &text);
    host.enable(K3s, of(&["docker.io"]));
    assert!(host.read(FILE).contains(more));
    host.disable(K3s);
    assert_eq!(host.read(FILE), more);
}

#[test]
fn mirrors_go_before_what_is_there() {
    let configs = "# mine\nconfigs:\n  a.example: {auth: {username: a}}";
    assert_eq!(
        enabled(configs, ALL),
        format!("# mine\n{BLOCK}configs:\n  a.example: {{auth: {{username: a}}}}")
    );
    assert_eq!(enabled(&format!("---\n{configs}"), ALL).matches("---\n# mine\nmirrors:").count(), 1);
    assert_eq!(enabled("", ALL), BLOCK);
    assert_eq!(enabled("# nothing yet", ALL), format!("{BLOCK}# nothing yet"));
    assert_eq!(enabled("---\n# nothing yet\n", ALL), format!("---\n{BLOCK}# nothing yet\n"));
}

#[test]
fn mirrors_join_those_that_are_there() {
    let text = enabled(
        "mirrors:\n    # mine\n    docker.io:\n        endpoint: [\"https://a\"]\nconfigs: {}\n",
        ALL,
    );
    assert_eq!(
        text,
        "mirrors:\n    # mine\n    \"*\":\n      endpoint:\n        - \"http://127.0.0.1:8080\"\n    docker.io:\n        \
         endpoint: [\"https://a\"]\nconfigs: {}\n"
    );
    assert_eq!(enabled("mirrors:\nconfigs:\n", ALL), format!("{BLOCK}configs:\n"));
    assert_eq!(enabled("mirrors: # none\n", ALL), BLOCK.replace("mirrors:", "mirrors: # none"));
    let theirs = Host::new().with(FILE, "mirrors:\n  docker.io:\n    endpoint: [\"https://a\"]\n");
    let plan = theirs.enable(K3s, ALL);
    assert!(plan.notes.concat().contains("docker.io is not pulled through here"), "{plan:?}");
}

#[test]
fn what_cannot_be_added_to_safely_is_refused() {
    for text in [
        "mirrors: {docker.io: {endpoint: [\"https://a\"]}}\n",
        "{mirrors: {}}\n",
        "mirrors: {}\n",
        "mirrors: text\n",
        "mirrors:",
        "- a\n",
        "a: 1\n---\nb: 1\n",
        "---",
    ] {
        Host::new().with(FILE, text).refuses(K3s, ALL, &[FILE, "mirrors:\n", "http://127.0.0.1:8080"]);
    }
    Host::new().with(FILE, "mirrors:\n\t- a\n").refuses(K3s, ALL, &[FILE]);
    Host::new().with(FILE, "a: 1\na: 2\n").refuses(K3s, ALL, &[FILE]);
}

#[test]
fn mirrors_of_others_are_not_replaced() {
    let text = "mirrors:\n  \"*\":\n    endpoint: [\"https://a\"]\n  quay.io:\n";
    let host = Host::new().with(FILE, text);
    host.refuses(K3s, ALL, &["has mirrors for * already"]);
    host.refuses(K3s, of(&["docker.io", "quay.io"]), &["has mirrors for quay.io already"]);
    host.enable(K3s, of(&["docker.io"]));
    host.disable(K3s);
    assert_eq!(host.read(FILE), text);
}

#[test]
fn mirrors_of_others_will_do_if_they_begin_with_ours() {
    let text = "mirrors: {docker.io: {endpoint: [\"http://127.0.0.1:8080\", \"https://a\"]}}\n";
    let host = Host::new().with(FILE, text);
    assert!(host.plan(K3s, of(&["docker.io"])).unwrap().is_done());
    let text = "mirrors:\n  docker.io:\n    endpoint:\n    - http://127.0.0.1:8080\n";
    let merged = enabled(text, of(&["docker.io", "quay.io"]));
    assert!(merged.contains("quay.io") && merged.matches("docker.io").count() == 1, "{merged}");
}

#[test]
fn what_was_changed_since_is_refused_both_ways() {
    let host = Host::new();
    host.enable(K3s, ALL);
    let text = host.read(FILE).replace("      - ", "      - \"https://a\"\n      - ");
    let host = host.with(FILE, &text);
    host.refuses(K3s, ALL, &["was changed since"]);
    assert!(matches!(
        K3s.disable(&ALL.address.parse().unwrap(), &host.root()),
        Err(MirrorError::Changed { .. })
    ));
}

#[test]
fn a_fallback_is_not_this_files_to_forbid() {
    Host::new().refuses(
        K3s,
        Ask { fallback: false, ..ALL },
        &["disable-default-registry-endpoint", "k3s/config.yaml"],
    );
}

#[test]
fn it_is_seen_whether_k3s_has_taken_it_over() {
    let made = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d/_default/hosts.toml";
    let host = Host::new().with(made, "# by k3s\n");
    host.enable(K3s, ALL);
    assert!(host.plan(K3s, ALL).unwrap().obstacles.concat().contains("systemctl restart k3s"));
    let host = host.with(made, "[host.\"http://127.0.0.1:8080/v2\"]\n");
    assert!(host.plan(K3s, ALL).unwrap().obstacles.is_empty());
}
