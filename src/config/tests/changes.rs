//! What a reload finds changed.

use super::*;

fn changes(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (read(old).unwrap(), read(new).unwrap());
    old.changes(&new).iter().map(ToString::to_string).collect()
}

#[test]
fn each_key_is_told_with_what_it_was_and_is() {
    assert_eq!(
        changes("port = 1\ntag_ttl = \"1m\"", "tag_ttl = \"5m\"\nport = 1\nno_proxy = []"),
        ["tag_ttl: 1m → 5m"]
    );
    assert_eq!(changes("", "air_gapped = true"), ["air_gapped: false → true"]);
    assert_eq!(changes("tag_ttl = \"1m\"", ""), [""; 0]);
    assert_eq!(changes("", "listen = [\"unix:/a\"]"), ["listen: [] → [\"unix:/a\"]"]);
}

#[test]
fn entries_come_and_go_as_a_whole_and_change_by_key() {
    let entry = |name: &str, more: &str| format!("[[registries]]\nname = \"{name}\"\n{more}\n");
    assert_eq!(changes("", &entry("quay.io", "")), ["registries.\"quay.io\": added"]);
    assert_eq!(changes(&entry("quay.io", "tag_ttl = \"2m\""), ""), ["registries.\"quay.io\": removed"]);
    let two = entry("quay.io", "") + &entry("a.b", "");
    let swapped = entry("a.b", "description = \"x\"") + &entry("quay.io", "tag_ttl = 0");
    assert_eq!(
        changes(&two, &swapped),
        ["registries.\"a.b\".description: (not set) → x", "registries.\"quay.io\".tag_ttl: 1m → 0"]
    );
    // Told once, where it was changed.
    assert_eq!(changes(&two, &format!("tag_ttl = \"2m\"\n{two}")), ["tag_ttl: 1m → 2m"]);
}

#[test]
fn a_secret_is_told_to_have_changed_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let inline = |word: &str| {
        format!("[[registries]]\nname = \"a.b\"\nauth = {{ user = \"me\", password = \"{word}\" }}")
    };
    let key = "registries.\"a.b\".auth.password";
    assert_eq!(changes(&inline("one"), &inline("two")), [format!("{key}: changed")]);
    assert_eq!(changes(&inline("one"), &inline("one")), [""; 0]);
    let proxy = |word: &str| format!("proxy = \"http://me:{word}@p:1\"");
    assert_eq!(changes(&proxy("one"), &proxy("two")), ["proxy: changed"]);

    let text =
        format!("[[registries]]\nname = \"a.b\"\nauth = {{ user = \"me\", password_file = {path:?} }}");
    std::fs::write(&path, "one").unwrap();
    let old = read(&text).unwrap();
    std::fs::write(&path, "two").unwrap();
    let change = &old.changes(&read(&text).unwrap())[..];
    assert!(matches!(change, [change] if change.to_string() == format!("{key}_file: changed")), "{change:?}");
}

#[test]
fn what_holds_from_the_start_needs_a_restart() {
    let (old, new) = (read("").unwrap(), read("port = 1\ntag_ttl = 0\nimage_path = \"/i\"").unwrap());
    let restart: Vec<_> =
        old.changes(&new).into_iter().filter(Change::needs_restart).map(|change| change.key).collect();
    assert_eq!(restart, ["image_path", "port"]);
}

#[test]
fn a_token_changes_in_a_reload_and_where_it_is_asked_for_needs_a_restart() {
    let admin =
        |port: u16, token: &str| format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken = \"{token}\"");
    let one = admin(1, "0123456789abcdef");
    let old = read(&one).unwrap();
    let change = |new: &str| -> Vec<_> {
        let changes = old.changes(&read(new).unwrap());
        changes.iter().map(|change| (change.to_string(), change.needs_restart())).collect()
    };
    assert_eq!(change(&admin(1, "another-0123456789")), [("admin.token: changed".to_owned(), false)]);
    assert_eq!(
        change(&admin(2, "0123456789abcdef")),
        [("admin.listen: 127.0.0.1:1 → 127.0.0.1:2".to_owned(), true)]
    );
}

#[test]
fn a_secret_that_everybody_can_read_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
    let text = format!("[admin]\nlisten = \"127.0.0.1:1\"\ntoken_file = {:?}", file.path());
    assert!(read(&text).unwrap().warnings.is_empty());
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = read(&text).unwrap().warnings;
    let wanted = format!("/c.toml:3: admin.token_file: {}: can be read by every user", file.path().display());
    assert!(matches!(&warnings[..], [warning] if warning.to_string().starts_with(&wanted)), "{warnings:?}");
}
