//! docker: `registry-mirrors` in daemon.json, which holds for docker.io alone.
//!
//! JSON has no comments: what is ours is known by its value. All else in the file stays as it is, to the byte.

use serde_json::value::RawValue;

use super::members::{self, Member};
use super::{Address, Change, MirrorError, Plan, Root, Wanted};

const FILE: &str = "/etc/docker/daemon.json";
const KEY: &str = "registry-mirrors";
const AFTERWARDS: &str = "Docker reads this when told to: systemctl reload docker (containers go on running)";

pub fn enable(wanted: &Wanted, root: &Root) -> Result<Plan, MirrorError> {
    let impossible = |what: &str| Err(MirrorError::Impossible(what.to_owned()));
    if !wanted.fallback {
        return impossible(
            "docker cannot do without a fallback: what its mirrors do not have it asks docker.io for. To pull \
             through here only, name it in the image: docker pull localhost:8080/docker.io/library/busybox",
        );
    }
    if let Some(other) = wanted.registries.iter().find(|registry| !registry.is_docker()) {
        return impossible(&format!(
            "docker has mirrors for docker.io only. To pull what {other} has, name this registry in the image: \
             docker pull {}/{other}/…",
            wanted.address.authority()
        ));
    }
    let url = wanted.address.to_string();
    let place = root.place(FILE);
    let before = root.read(FILE)?;
    let after = match before.as_deref().filter(|text| !text.trim().is_empty()) {
        None => made(&url),
        Some(text) => {
            with(text, &url).map_err(|what| MirrorError::Malformed { path: place.clone(), what })?
        }
    };
    let note = format!(
        "docker asks mirrors for docker.io only; other registries are pulled through here by their path: docker pull \
         {}/quay.io/…",
        wanted.address.authority()
    );
    Ok(Plan {
        changes: vec![Change::new(root, FILE, before, Some(after))?],
        notes: vec![note],
        obstacles: Vec::new(),
        afterwards: AFTERWARDS,
    })
}

pub fn disable(address: &Address, root: &Root) -> Result<Plan, MirrorError> {
    let url = address.to_string();
    let place = root.place(FILE);
    let before = root.read(FILE)?;
    let after = match before.as_deref() {
        None => None,
        Some(text) if text == made(&url) => None,
        Some(text) if text.trim().is_empty() => before.clone(),
        Some(text) => {
            Some(without(text, &url).map_err(|what| MirrorError::Malformed { path: place.clone(), what })?)
        }
    };
    let changes = if before == after { Vec::new() } else { vec![Change::new(root, FILE, before, after)?] };
    Ok(Plan { changes, afterwards: AFTERWARDS, ..Plan::default() })
}

/// A file of our own.
fn made(url: &str) -> String {
    format!("{{\n  \"{KEY}\": [\"{url}\"]\n}}\n")
}

/// Our mirror before all others; the text as it is where it is among them.
fn with(text: &str, url: &str) -> Result<String, String> {
    let Some(member) = members::find(text, KEY)? else {
        // Without a line break in an empty object, so that it does not look like one that we made.
        return Ok(members::prepend(text, text, &format!("\"{KEY}\": [\"{url}\"]"), ""));
    };
    let mirrors = mirrors(&member)?;
    if mirrors.iter().any(|mirror| is(mirror, url)) {
        return Ok(text.to_owned());
    }
    // With a space in an empty list, so that it does not look like one that we made.
    Ok(members::prepend(text, member.value.get(), &format!("\"{url}\""), " "))
}

fn without(text: &str, url: &str) -> Result<String, String> {
    let Some(member) = members::find(text, KEY)? else {
        return Ok(text.to_owned());
    };
    let mirrors = mirrors(&member)?;
    if member.value.get() == format!("[\"{url}\"]") {
        return Ok(members::remove(text, member.start..member.end));
    }
    match mirrors.iter().find(|mirror| is(mirror, url)) {
        Some(mirror) => {
            let place = members::place(text, mirror.get());
            Ok(members::remove(text, place))
        }
        None => Ok(text.to_owned()),
    }
}

fn mirrors<'a>(member: &Member<'a>) -> Result<Vec<&'a RawValue>, String> {
    serde_json::from_str(member.value.get()).map_err(|_| format!("{KEY} is no list"))
}

/// Docker puts a slash behind what has none.
fn is(mirror: &RawValue, url: &str) -> bool {
    serde_json::from_str::<String>(mirror.get()).is_ok_and(|mirror| mirror.trim_end_matches('/') == url)
}
