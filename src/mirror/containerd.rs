//! containerd: a `hosts.toml` for all registries, or one for each (containerd's docs/hosts.md).
//!
//! `capabilities` is always there, else pushes would go to the mirror; never with "referrers", for which containerd
//! before 2.2 ignores the whole file; and never `ca` or `skip_verify`, with which it tries TLS on a plain port.

use std::path::Path;

use super::config_path::{self, CERTS_D};
use super::{
    Author, Change, MirrorError, Plan, Root, Runtime, Wanted, indent, mark, own_file, take_back_file,
};
use crate::config::Scheme;
use crate::oci::Registry;

const RUNTIME: Runtime = Runtime::Containerd;
const AFTERWARDS: &str = "A hosts.toml is read at each pull: for it nothing has to be restarted.";
/// The folder for registries that have none of their own.
const DEFAULT: &str = "_default";

pub fn enable(wanted: &Wanted, root: &Root) -> Result<Plan, MirrorError> {
    let config = config_path::read(root)?;
    let certs_d = config.folder();
    let mut plan = Plan {
        notes: config.notes(),
        obstacles: config.obstacles(root),
        afterwards: AFTERWARDS,
        ..Plan::default()
    };
    let mut folders = Vec::new();
    if wanted.registries.is_empty() {
        folders.push(DEFAULT.to_owned());
        plan.changes.push(hosts(root, certs_d, DEFAULT, &body(wanted, None))?);
    }
    for registry in &wanted.registries {
        let folder = folder(root, certs_d, registry);
        let body = body(wanted, Some(registry));
        refuse_certificates(root, certs_d, &folder, &body)?;
        plan.changes.push(hosts(root, certs_d, &folder, &body)?);
        folders.push(folder);
    }
    for folder in root.list(certs_d)? {
        if folders.contains(&folder) {
            continue;
        }
        if let Some(change) = take_back(root, certs_d, &folder)? {
            plan.changes.push(change);
        } else if wanted.registries.is_empty()
            && goes_elsewhere(wanted, root, &format!("{certs_d}/{folder}"))?
        {
            plan.notes.push(format!(
                "{folder} is not pulled through here: containerd reads its own folder {certs_d}/{folder} and not \
                 {DEFAULT}"
            ));
        }
    }
    Ok(plan)
}

pub fn disable(root: &Root) -> Result<Plan, MirrorError> {
    let config = config_path::read(root)?;
    let mut places = vec![config.folder()];
    if !places.contains(&CERTS_D) {
        places.push(CERTS_D);
    }
    let mut changes = Vec::new();
    for certs_d in places {
        for folder in root.list(certs_d)? {
            changes.extend(take_back(root, certs_d, &folder)?);
        }
    }
    Ok(Plan { changes, afterwards: AFTERWARDS, ..Plan::default() })
}

/// Whether it is a folder of somebody else's that does not name us.
fn goes_elsewhere(wanted: &Wanted, root: &Root, folder: &str) -> Result<bool, MirrorError> {
    let hosts = root.read(&format!("{folder}/hosts.toml"))?.unwrap_or_default();
    Ok(root.is_folder(folder) && !hosts.contains(&wanted.address.to_string()))
}

fn hosts(root: &Root, certs_d: &str, folder: &str, body: &str) -> Result<Change, MirrorError> {
    Ok(own_file(RUNTIME, root, &format!("{certs_d}/{folder}/hosts.toml"), body)?.with_folder())
}

fn take_back(root: &Root, certs_d: &str, folder: &str) -> Result<Option<Change>, MirrorError> {
    let change = take_back_file(RUNTIME, root, &format!("{certs_d}/{folder}/hosts.toml"))?;
    Ok(change.map(Change::with_folder))
}

/// A registry's, or that of all. What comes after the hosts in it is asked last; without `server` that is the
/// registry itself.
fn body(wanted: &Wanted, registry: Option<&Registry>) -> String {
    let address = &wanted.address;
    let host = format!("[host.\"{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    if !wanted.fallback {
        // Before 1.7 a file without any host is taken no notice of.
        return format!(
            "# Never the registry itself.\nserver = \"{address}\"\ncapabilities = [\"pull\", \"resolve\"]\n\n{host}"
        );
    }
    let server = registry.and_then(|registry| {
        // Not the `url` of our configuration: this is what containerd would ask without us.
        let entry = wanted.settings.registry(registry).filter(|entry| entry.url.is_none());
        entry.map_or(Scheme::Https, |entry| entry.scheme).api(registry)
    });
    let server = server.map_or(String::new(), |url| {
        format!("# Asked when the host below fails.\nserver = \"{}\"\n\n", url.as_str().trim_end_matches('/'))
    });
    format!("{server}{host}")
}

/// `reg.example_5000_` counts before `reg.example:5000`, where there is one.
fn folder(root: &Root, certs_d: &str, registry: &Registry) -> String {
    let name = registry.as_str();
    match name.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => {
            let other = format!("{host}_{port}_");
            if root.is_folder(&format!("{certs_d}/{other}")) { other } else { name.to_owned() }
        }
        None => name.to_owned(),
    }
}

/// A folder without a hosts.toml may hold certificates, which containerd takes no notice of once it has one.
fn refuse_certificates(root: &Root, certs_d: &str, folder: &str, body: &str) -> Result<(), MirrorError> {
    let path = format!("{certs_d}/{folder}");
    let names = root.list(&path)?;
    let certificate = |name: &&String| {
        let extension = Path::new(name.as_str()).extension().unwrap_or_default();
        extension == "crt" || extension == "cert" || extension == "key"
    };
    let ours = root
        .read(&format!("{path}/hosts.toml"))?
        .is_some_and(|text| mark::author(RUNTIME, &text) != Author::Others);
    match names.iter().find(certificate) {
        Some(name) if !ours => Err(MirrorError::Foreign {
            path: root.place(&path),
            what: format!("holds {name}, which containerd takes no notice of once there is a hosts.toml"),
            advice: format!(
                "write hosts.toml there, and name the certificates in it by `ca` and `client` above the [host]:\n{}",
                indent(body)
            ),
        }),
        _ => Ok(()),
    }
}
