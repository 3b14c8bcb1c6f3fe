//! k3s and RKE2: `mirrors` in registries.yaml, out of which they make their containerd's files when they start.

use super::mark::{self, Author, Cut};
use super::registries_yaml::Mirrors;
use super::{Change, MirrorError, Plan, Root, Runtime, Wanted};

const ALL: &str = "*";

/// Where one of the two keeps its files.
struct Paths {
    file: &'static str,
    /// Its containerd's, made when it starts.
    containerd: &'static str,
    afterwards: &'static str,
    config: &'static str,
}

fn paths(runtime: Runtime) -> Paths {
    if runtime == Runtime::Rke2 {
        Paths {
            file: "/etc/rancher/rke2/registries.yaml",
            containerd: "/var/lib/rancher/rke2/agent/etc/containerd",
            afterwards: "RKE2 reads this when it starts: systemctl restart rke2-server (or rke2-agent; pods go on \
                         running)",
            config: "/etc/rancher/rke2/config.yaml",
        }
    } else {
        Paths {
            file: "/etc/rancher/k3s/registries.yaml",
            containerd: "/var/lib/rancher/k3s/agent/etc/containerd",
            afterwards: "k3s reads this when it starts: systemctl restart k3s (or k3s-agent; pods go on running)",
            config: "/etc/rancher/k3s/config.yaml",
        }
    }
}

pub fn enable(runtime: Runtime, wanted: &Wanted, root: &Root) -> Result<Plan, MirrorError> {
    let paths = paths(runtime);
    if !wanted.fallback {
        return Err(MirrorError::Impossible(format!(
            "{} knows no registry without a fallback in this file. Leave --no-fallback out here, and say \
             `disable-default-registry-endpoint: true` in {}",
            runtime.name(),
            paths.config
        )));
    }
    let place = root.place(paths.file);
    let before = root.read(paths.file)?;
    let cut = before.as_deref().and_then(|text| mark::cut(runtime, text));
    if cut.as_ref().is_some_and(|cut| cut.author == Author::Changed) {
        return Err(MirrorError::Changed { path: place });
    }
    let makes_file = cut.as_ref().map_or(before.is_none(), |cut| cut.made_file);
    let others = cut.map_or_else(|| before.clone().unwrap_or_default(), |cut| cut.rest);
    let mut names: Vec<&str> = wanted.registries.iter().map(|registry| registry.as_str()).collect();
    if names.is_empty() {
        names.push(ALL);
    }
    let mirrors = Mirrors { url: wanted.address.to_string(), names };
    let after = mirrors
        .add(runtime, &others, makes_file)
        .map_err(|refusal| refusal.on(&place, &format!("mirrors:\n{}", mirrors.lines("  ", "  "))))?;
    let mut plan = Plan {
        changes: vec![Change::new(root, paths.file, before, Some(after.text))?],
        afterwards: paths.afterwards,
        ..Plan::default()
    };
    if wanted.registries.is_empty() {
        plan.notes.extend(after.elsewhere.iter().map(|name| {
            format!("{name} is not pulled through here: it has mirrors of its own in {}", paths.file)
        }));
    }
    if plan.is_done() && !taken_over(root, paths.containerd, &mirrors.url)? {
        plan.obstacles.push(format!(
            "{} was not started since: its containerd's files below {} do not name {}. {}",
            runtime.name(),
            paths.containerd,
            mirrors.url,
            paths.afterwards
        ));
    }
    Ok(plan)
}

pub fn disable(runtime: Runtime, root: &Root) -> Result<Plan, MirrorError> {
    let paths = paths(runtime);
    let place = root.place(paths.file);
    let before = root.read(paths.file)?;
    let mut plan = Plan { afterwards: paths.afterwards, ..Plan::default() };
    match before.as_deref().and_then(|text| mark::cut(runtime, text)) {
        None => {}
        Some(Cut { author: Author::Us, rest, made_file }) => {
            let after = Some(rest).filter(|rest| !made_file || !rest.trim().is_empty());
            plan.changes.push(Change::new(root, paths.file, before, after)?);
        }
        Some(_) => return Err(MirrorError::Changed { path: place }),
    }
    Ok(plan)
}

/// Whether the files it makes name the mirror; where it never ran there is nothing to be found out.
fn taken_over(root: &Root, containerd: &str, url: &str) -> Result<bool, MirrorError> {
    if !root.is_folder(containerd) {
        return Ok(true);
    }
    let certs_d = format!("{containerd}/certs.d");
    let mut files = vec![format!("{containerd}/config.toml")];
    files.extend(root.list(&certs_d)?.iter().map(|name| format!("{certs_d}/{name}/hosts.toml")));
    for file in files {
        if root.read(&file)?.is_some_and(|text| text.contains(url)) {
            return Ok(true);
        }
    }
    Ok(false)
}
