//! podman, skopeo, buildah and CRI-O: a drop-in of registries.conf (containers-registries.conf(5)).
//!
//! A mirror there belongs to a registry that is named; a wildcard has no mirrors, so each registry has its table.
//! These clients name the registry in the path, and want `insecure` for plain http, on loopback too.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{MirrorError, Plan, Root, Runtime, Wanted, own_file, take_back_file};
use crate::config::{RegistryPattern, Scheme};
use crate::oci::Registry;

const RUNTIME: Runtime = Runtime::Podman;
const FILE: &str = "50-ociregistry.conf";
const FOLDER: &str = "/etc/containers/registries.conf.d";
const OTHERS: [&str; 2] = ["/usr/share/containers/registries.conf", "/etc/containers/registries.conf"];
const AFTERWARDS: &str = "Nothing has to be restarted for podman, skopeo and buildah, which read this at each \
                          pull. CRI-O: systemctl reload crio";

/// Mirrored when no registry is named, beside those of our configuration.
const WELL_KNOWN: [&str; 13] = [
    "docker.io",
    "quay.io",
    "ghcr.io",
    "registry.k8s.io",
    "gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.gitlab.com",
    "registry.fedoraproject.org",
    "registry.access.redhat.com",
    "nvcr.io",
    "docker.elastic.co",
    "cgr.dev",
];

pub fn enable(wanted: &Wanted, root: &Root) -> Result<Plan, MirrorError> {
    let Some(address) = wanted.address.nameable() else {
        return Err(MirrorError::Impossible(format!(
            "older podmans fail every pull by a mirror at an IPv6 address such as {}. Give a name for it: \
             --address http://host:port",
            wanted.address
        )));
    };
    let wanted = &Wanted { address, ..wanted.clone() };
    let others = others(root)?;
    let mut plan = Plan { afterwards: AFTERWARDS, ..Plan::default() };
    let mut tables = Vec::new();
    for registry in registries(wanted, &mut plan.notes)? {
        let table = table(wanted, &registry);
        match others.get(registry.as_str()) {
            None => tables.push(table),
            // A table of ours would take the place of theirs, with all it says.
            Some(file) if wanted.registries.is_empty() => plan.notes.push(format!(
                "{registry} is left out: {file} has a table for it. To pull through here, add to that table\n{}",
                super::indent(&mirror(wanted, &registry))
            )),
            Some(file) => {
                return Err(MirrorError::Foreign {
                    path: root.place(file),
                    what: format!("has a table for {registry} already"),
                    advice: super::indent(&mirror(wanted, &registry)),
                });
            }
        }
    }
    let closed = "# Only the mirrors are asked, and never the registries themselves: `location` is not where the\n\
                  # registry is. (A plain http location would need `insecure`, which pushes would go by as well.)\n\n";
    let body = format!("{}{}", if wanted.fallback { "" } else { closed }, tables.join("\n"));
    plan.changes.push(own_file(RUNTIME, root, &format!("{FOLDER}/{FILE}"), &body)?);
    Ok(plan)
}

pub fn disable(root: &Root) -> Result<Plan, MirrorError> {
    let change = take_back_file(RUNTIME, root, &format!("{FOLDER}/{FILE}"))?;
    Ok(Plan { changes: change.into_iter().collect(), afterwards: AFTERWARDS, ..Plan::default() })
}

/// Those named, or else all that are known.
fn registries(wanted: &Wanted, notes: &mut Vec<String>) -> Result<Vec<Registry>, MirrorError> {
    if !wanted.registries.is_empty() {
        return match wanted.registries.iter().find(|registry| !is_segment(registry)) {
            Some(registry) => Err(MirrorError::Impossible(format!("{registry} {NO_SEGMENT}"))),
            None => Ok(wanted.registries.clone()),
        };
    }
    let mut all: Vec<Registry> = WELL_KNOWN.iter().filter_map(|name| name.parse().ok()).collect();
    for entry in &wanted.settings.registries {
        match &entry.name {
            RegistryPattern::Exact(registry) if all.contains(registry) => {}
            RegistryPattern::Exact(registry) if is_segment(registry) => all.push(registry.clone()),
            RegistryPattern::Exact(registry) => {
                notes.push(format!("{registry} is left out: it {NO_SEGMENT}"))
            }
            RegistryPattern::Wildcard(pattern) => notes.push(format!(
                "{pattern} is left out: podman has no mirrors for wildcards; name each by --registry"
            )),
        }
    }
    Ok(all)
}

const NO_SEGMENT: &str = "cannot have a mirror in podman: a mirror like this one is told the registry by the path, where \
                          an image's name has no place for a port, and a name without a dot is no registry";

/// Whether it can be the first segment of a path: podman fails every pull by a mirror whose location would make
/// no valid name.
fn is_segment(registry: &Registry) -> bool {
    !registry.as_str().contains(':') && Registry::is_meant(registry.as_str())
}

fn table(wanted: &Wanted, registry: &Registry) -> String {
    let here = location(wanted, registry);
    let mirror = mirror(wanted, registry);
    match (wanted.fallback, wanted.address.scheme()) {
        (true, _) => format!("[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n{mirror}"),
        (false, Scheme::Http) => {
            format!("[[registry]]\nprefix = \"{registry}\"\nlocation = \"{here}\"\n{mirror}")
        }
        (false, Scheme::Https) => format!("[[registry]]\nprefix = \"{registry}\"\nlocation = \"{here}\"\n"),
    }
}

fn mirror(wanted: &Wanted, registry: &Registry) -> String {
    let insecure = match wanted.address.scheme() {
        Scheme::Http => "insecure = true\n",
        Scheme::Https => "",
    };
    format!("[[registry.mirror]]\nlocation = \"{}\"\n{insecure}", location(wanted, registry))
}

fn location(wanted: &Wanted, registry: &Registry) -> String {
    format!("{}/{registry}", wanted.address.authority())
}

/// The prefixes that others have a table for, and where.
fn others(root: &Root) -> Result<BTreeMap<String, String>, MirrorError> {
    let mut paths: Vec<String> = OTHERS.map(str::to_owned).into();
    for folder in ["/usr/share/containers/registries.conf.d", FOLDER] {
        let names = root.list(folder)?;
        let read = names.iter().filter(|name| name.ends_with(".conf") && *name != FILE);
        paths.extend(read.map(|name| format!("{folder}/{name}")));
    }
    let mut found = BTreeMap::new();
    for path in paths {
        let Some(text) = root.read(&path)? else {
            continue;
        };
        let table: Table = toml::from_str(&text).map_err(|error| MirrorError::Malformed {
            path: root.place(&path),
            what: error.to_string().trim_end().to_owned(),
        })?;
        for prefix in prefixes(&table) {
            found.entry(prefix).or_insert_with(|| path.clone());
        }
    }
    Ok(found)
}

/// Of `[[registry]]`, and of the lists that stood in for them in version 1 of the format.
fn prefixes(table: &Table) -> Vec<String> {
    let tables = table.get("registry").and_then(Value::as_array).into_iter().flatten();
    let named = |table: &Value| {
        let text = |key: &str| table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text("prefix").or(text("location")).map(|prefix| prefix.trim_end_matches('/').to_owned())
    };
    let mut found: Vec<String> = tables.filter_map(named).collect();
    for key in ["insecure", "block"] {
        let list = table.get("registries").and_then(|old| old.get(key)?.get("registries")?.as_array());
        found.extend(list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }
    found
}
