use super::*;
use Runtime::Podman;

const FILE: &str = "/etc/containers/registries.conf.d/50-ociregistry.conf";
const THEIRS: &str = "/etc/containers/registries.conf";

/// prefix → (location, its mirrors).
fn tables(host: &Host) -> BTreeMap<String, (String, Vec<toml::Table>)> {
    let table: toml::Table = toml::from_str(&host.read(FILE)).unwrap();
    let read = |table: &toml::Value| {
        assert!(table.get("insecure").is_none(), "pushes go by it too");
        let text = |key: &str| table[key].as_str().unwrap().to_owned();
        let mirrors = table.get("mirror").map_or(vec![], |mirrors| mirrors.as_array().unwrap().clone());
        let mirrors = mirrors.into_iter().map(|mirror| mirror.as_table().unwrap().clone()).collect();
        (text("prefix"), (text("location"), mirrors))
    };
    table["registry"].as_array().unwrap().iter().map(read).collect()
}

#[test]
fn known_and_configured_registries_are_mirrored() {
    let host = Host::configured(
        "[[registries]]\nname = \"reg.example\"\n[[registries]]\nname = \"quay.io\"\n\
         [[registries]]\nname = \"*.dkr.ecr.*.amazonaws.com\"\n",
    );
    let plan = host.enable(Podman, ALL);
    assert!(plan.notes.concat().contains("*.dkr.ecr.*.amazonaws.com"), "{plan:?}");
    let tables = tables(&host);
    for registry in ["docker.io", "quay.io", "registry.k8s.io", "reg.example"] {
        let (location, mirrors) = &tables[registry];
        assert_eq!(location, registry);
        assert_eq!(mirrors.len(), 1);
        assert_eq!(mirrors[0]["location"].as_str(), Some(&*format!("127.0.0.1:8080/{registry}")));
        assert_eq!(mirrors[0]["insecure"].as_bool(), Some(true));
    }
}

#[test]
fn a_registry_that_no_path_can_name_is_left_out() {
    let host =
        Host::configured("[[registries]]\nname = \"reg.example:5000\"\n[[registries]]\nname = \"reg\"\n");
    let plan = host.enable(Podman, ALL);
    for registry in ["reg.example:5000", "reg"] {
        assert!(
            plan.notes.iter().any(|note| note.starts_with(&format!("{registry} is left out"))),
            "{plan:?}"
        );
        assert!(!tables(&host).contains_key(registry));
        host.refuses(Podman, of(&[registry]), &[registry, "cannot have a mirror"]);
    }
}

#[test]
fn only_named_registries_are_mirrored() {
    let host = Host::new();
    host.enable(Podman, of(&["docker.io", "quay.io"]));
    assert_eq!(tables(&host).keys().collect::<Vec<_>>(), ["docker.io", "quay.io"]);
    host.enable(Podman, of(&["quay.io"]));
    assert_eq!(tables(&host).keys().collect::<Vec<_>>(), ["quay.io"]);
}

#[test]
fn without_a_fallback_the_location_is_ours() {
    let host = Host::new();
    host.enable(Podman, Ask { fallback: false, ..of(&["docker.io"]) });
    let (location, mirrors) = &tables(&host)["docker.io"];
    assert_eq!(location, "127.0.0.1:8080/docker.io");
    assert_eq!(mirrors[0]["insecure"].as_bool(), Some(true));
}

#[test]
fn no_location_has_an_ipv6_address() {
    let host = Host::new();
    host.enable(Podman, Ask { address: "http://[::1]:8080", ..of(&["quay.io"]) });
    assert_eq!(tables(&host)["quay.io"].1[0]["location"].as_str(), Some("localhost:8080/quay.io"));
    host.refuses(Podman, Ask { address: "http://[fd00::1]:8080", ..ALL }, &["IPv6", "--address"]);
}

#[test]
fn nothing_is_insecure_over_tls() {
    let host = Host::new();
    let address = "https://mirror.example";
    host.enable(Podman, Ask { address, ..of(&["docker.io"]) });
    let (_, mirrors) = &tables(&host)["docker.io"];
    assert_eq!(mirrors[0]["location"].as_str(), Some("mirror.example:443/docker.io"));
    assert!(!mirrors[0].contains_key("insecure"));
    host.enable(Podman, Ask { address, fallback: false, ..of(&["docker.io"]) });
    assert_eq!(tables(&host)["docker.io"], ("mirror.example:443/docker.io".to_owned(), vec![]));
}

#[test]
fn tables_of_others_are_not_overruled() {
    for (path, text) in [
        (THEIRS, "[[registry]]\nprefix = \"quay.io/\"\nblocked = true\nlocation = \"elsewhere\"\n"),
        (THEIRS, "[registries.block]\nregistries = [\"quay.io\"]\n"),
        ("/etc/containers/registries.conf.d/90-mine.conf", "[[registry]]\nlocation = \"quay.io\"\n"),
        ("/usr/share/containers/registries.conf.d/a.conf", "[[registry]]\nlocation = \"quay.io\"\n"),
    ] {
        let host = Host::new().with(path, text);
        host.refuses(Podman, of(&["quay.io"]), &[path, "quay.io", "[[registry.mirror]]"]);
        let plan = host.enable(Podman, ALL);
        assert!(plan.notes.concat().contains("quay.io is left out"), "{plan:?}");
        assert!(!tables(&host).contains_key("quay.io"));
        assert_eq!(host.read(path), text);
    }
}

#[test]
fn tables_for_a_part_of_a_registry_are_no_hindrance() {
    let text = "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"quay.io/mine\"\n";
    Host::new().with(THEIRS, text).enable(Podman, of(&["quay.io"]));
}

#[test]
fn disabling_gives_back_the_former_files() {
    let host = Host::new().with(THEIRS, "").with("/etc/containers/registries.conf.d/a.conf", "# a\n");
    let former = host.tree();
    host.enable(Podman, ALL);
    host.disable(Podman);
    assert_eq!(host.tree(), former);
}

#[test]
fn a_file_of_others_in_our_place_is_refused() {
    let host = Host::new().with(FILE, "# mine\n");
    host.refuses(Podman, of(&["quay.io"]), &[FILE, "prefix = \"quay.io\""]);
    assert!(host.disable(Podman).changes.is_empty());
}
