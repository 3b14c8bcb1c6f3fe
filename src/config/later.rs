//! Keys whose capability is not built yet: checked like any other, and refused unless at their default, so
//! that nobody believes in force what is not.

use super::address::*;
use super::keys::Keys;
use super::kind::*;
use super::value::Value;

/// Those of the top level, in the order of the manual.
pub fn check(keys: &mut Keys) {
    keys.not_yet("metrics", 0, &DOOR);
    keys.not_yet("max_rate", 0, &SIZE);
    keys.not_yet("parallel", 4, &CONNECTIONS);
    keys.not_yet("parallel_from", "64MiB", &SIZE);
}

/// Those of a registry's entry.
pub fn check_registry(keys: &mut Keys) {
    keys.not_yet("max_rate", 0, &SIZE);
    keys.not_yet("parallel", 4, &CONNECTIONS);
    keys.not_yet("proxy", "", &PROXY);
    let mirrors = keys.tables("mirrors", |keys| {
        keys.require("url", &URL);
        keys.read("pass_ns", false, &BOOL);
        super::registry::credentials(keys);
        super::registry::tls(keys);
    });
    if !mirrors.is_empty() {
        keys.refuse("mirrors", "not supported yet, leave them out");
    }
    let rules = keys.tables("rules", |keys| {
        keys.require("match", &GLOB);
        keys.inherit("tag_ttl", &AGE);
        keys.inherit("stale_if_error", &AGE);
        keys.inherit("always_pull_latest", &BOOL);
    });
    if !rules.is_empty() {
        keys.refuse("rules", "not supported yet, leave them out");
    }
}

/// Those of an `auth` table.
pub fn check_credentials(keys: &mut Keys) {
    for key in
        ["identity_token", "identity_token_file", "identity_token_from_env", "identity_token_credential"]
    {
        keys.not_yet(key, "", &SECRET);
    }
    keys.not_yet("docker_config", "", &FILE);
    keys.not_yet("provider", "", &PROVIDER);
}

const PROVIDER: Kind<String> = Kind::new("\"ecr\", or \"\"", |v| one_of(v, &["", "ecr"]));

fn one_of(value: &Value, words: &[&str]) -> Option<String> {
    value.text().filter(|text| words.contains(text)).map(str::to_owned)
}
