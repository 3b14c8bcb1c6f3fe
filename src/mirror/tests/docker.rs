use proptest::prelude::*;
use serde_json::Value;

use super::*;
use Runtime::Docker;

const FILE: &str = "/etc/docker/daemon.json";
const URL: &str = "http://127.0.0.1:8080";

/// Enables on this file, and gives what it became; then takes it back.
fn enabled(former: &str) -> String {
    let host = Host::new().with(FILE, former);
    host.enable(Docker, ALL);
    let text = host.read(FILE);
    host.disable(Docker);
    assert_eq!(host.read(FILE), former, "after {text}");
    text
}

#[test]
fn a_file_is_made_and_taken_away() {
    let host = Host::new();
    host.enable(Docker, ALL);
    assert_eq!(host.read(FILE), "{\n  \"registry-mirrors\": [\"http://127.0.0.1:8080\"]\n}\n");
    host.disable(Docker);
    assert!(!host.tree().contains_key(FILE));
}

#[test]
fn what_is_there_stays_as_it_is() {
    let text = enabled("{\n    \"log-driver\": \"journald\",\n    \"unknown\": {\"a\":   [1,2]}\n}\n");
    assert_eq!(
        text,
        "{\n    \"registry-mirrors\": [\"http://127.0.0.1:8080\"],\n    \"log-driver\": \"journald\",\n    \
         \"unknown\": {\"a\":   [1,2]}\n}\n"
    );
    let text = enabled("{\"a\": 1, \"registry-mirrors\": [\"https://b\", \"https://c\"]}");
    assert_eq!(
        text,
        "{\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:8080\", \"https://b\", \"https://c\"]}"
    );
}

#[test]
fn every_layout_comes_back_to_the_byte() {
    for former in [
        "{}",
        "{ }\n",
        "{\n}\n",
        "{\"registry-mirrors\":[]}",
        "{\"registry-mirrors\": [ ], \"a\": 1}",
        "{\"a\": 1, \"registry-mirrors\": [\n]}",
        "{\r\n\t\"a\" : \"}\" ,\r\n\t\"registry-mirrors\" : [\r\n\t\t\"https://b/\"\r\n\t]\r\n}",
        "\n{\"a\":{\"registry-mirrors\":[\"http://127.0.0.1:8080\"]}}",
    ] {
        let text = enabled(former);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["registry-mirrors"][0], URL, "{text}");
    }
}

#[test]
fn our_mirror_is_found_wherever_it_is() {
    for (text, without) in [
        (
            "{\"registry-mirrors\": [\"https://b\", \"http://127.0.0.1:8080/\"]}",
            "{\"registry-mirrors\": [\"https://b\"]}",
        ),
        ("{\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:8080\"]}", "{\"a\": 1}"),
        ("{\"registry-mirrors\": [ \"http://127.0.0.1:8080\" ]}", "{\"registry-mirrors\": [ ]}"),
    ] {
        let host = Host::new().with(FILE, text);
        assert!(host.plan(Docker, ALL).unwrap().is_done(), "{text}");
        host.disable(Docker);
        assert_eq!(host.read(FILE), without);
        assert!(host.disable(Docker).changes.is_empty());
    }
}

#[test]
fn what_docker_could_not_read_is_refused() {
    for text in ["{", "[]", "{\"a\": 1,}", "{\"registry-mirrors\": \"a\"}"] {
        Host::new().with(FILE, text).refuses(Docker, ALL, &[FILE]);
    }
}

#[test]
fn what_docker_cannot_do_is_said() {
    let host = Host::new();
    host.refuses(Docker, Ask { fallback: false, ..ALL }, &["without a fallback"]);
    host.refuses(Docker, of(&["docker.io", "quay.io"]), &["docker.io only", "127.0.0.1:8080/quay.io"]);
    host.enable(Docker, of(&["docker.io"]));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\\\\\"{}\\[\\],: \n]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z\"\\\\]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost(
        members in prop::collection::hash_map("[a-z\"\\\\]{1,4}", json(), 0..4),
        mirrors in prop::option::of(prop::collection::vec("https://[a-z]{1,3}", 0..3)),
        pretty in any::<bool>(),
    ) {
        let mut former: serde_json::Map<String, Value> = members.into_iter().collect();
        former.extend(mirrors.map(|mirrors| ("registry-mirrors".to_owned(), mirrors.into())));
        let text = if pretty {
            serde_json::to_string_pretty(&former).unwrap()
        } else {
            serde_json::to_string(&former).unwrap()
        };
        let mut merged: serde_json::Map<String, Value> = serde_json::from_str(&enabled(&text)).unwrap();
        let all = merged.get_mut("registry-mirrors").and_then(Value::as_array_mut).unwrap();
        prop_assert_eq!(all.remove(0), URL);
        if all.is_empty() && !former.contains_key("registry-mirrors") {
            merged.remove("registry-mirrors");
        }
        prop_assert_eq!(merged, former);
    }
}
