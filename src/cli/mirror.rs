//! `ociregistry mirror`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Error, GlobalOptions, print};
use crate::mirror::{Address, Change, MirrorError, Plan, Root, Runtime, Wanted, probe};
use crate::oci::Registry;

const EXAMPLES: &str = "\
Examples:
  What would be written for containerd, and where:
    ociregistry mirror containerd

  Have podman pull docker.io and quay.io through here, and see whether it does:
    ociregistry mirror podman --enable --registry docker.io,quay.io
    ociregistry mirror podman --check --registry docker.io,quay.io
    podman pull docker.io/library/busybox

  As it was before:
    ociregistry mirror podman --disable

Exit codes: 0 all is as asked, 1 it is not (somebody else's file is in the way, a check failed), \
2 wrong usage, 78 wrong configuration.";

/// Point a container runtime at this daemon: show, write, take back or check its configuration
///
/// Once enabled, images keep their names (docker.io/library/busybox) and are pulled through the daemon; where that
/// fails, the runtime turns to the registry itself. Without an action it is only shown what would be written. Files
/// that somebody else wrote are never replaced, and --disable gives back the former ones.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Mirror {
    #[command(subcommand)]
    runtime: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    /// containerd (Kubernetes, nerdctl): hosts.toml below /etc/containerd/certs.d, for all registries
    ///
    /// Says what /etc/containerd/config.toml must have so that Kubernetes' pulls read it; does not write there.
    Containerd(Options),
    /// podman, skopeo, buildah and CRI-O: /etc/containers/registries.conf.d/50-ociregistry.conf
    ///
    /// These know mirrors for single registries only: those of the configuration and some that everybody uses,
    /// or those of --registry.
    Podman(Options),
    /// docker: registry-mirrors in /etc/docker/daemon.json, for docker.io only
    Docker(Options),
    /// k3s: mirrors in /etc/rancher/k3s/registries.yaml, for all registries
    K3s(Options),
    /// RKE2: mirrors in /etc/rancher/rke2/registries.yaml, for all registries
    Rke2(Options),
}

#[derive(Args, Debug)]
struct Options {
    #[command(flatten)]
    action: Action,
    /// A registry to pull through here; may be given again, or several with commas [default: all]
    #[arg(long, value_name = "REGISTRY", value_delimiter = ',', conflicts_with = "disable")]
    registry: Vec<Registry>,
    /// Never turn to the registry itself when the daemon fails
    #[arg(long, conflicts_with = "disable")]
    no_fallback: bool,
    /// Where the runtime reaches the daemon, such as http://127.0.0.1:8080 [default: as configured]
    #[arg(long, value_name = "URL")]
    address: Option<Address>,
    /// The folder that stands for /, for an image that is being built
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
struct Action {
    /// Show what would be written, and where (without any other action)
    #[arg(long)]
    print: bool,
    /// Write it; what --enable wrote before is replaced
    #[arg(long)]
    enable: bool,
    /// Take back what --enable wrote
    #[arg(long)]
    disable: bool,
    /// Say whether it is in place as asked, is read by the runtime, and the daemon answers; if not, exit with 1
    #[arg(long)]
    check: bool,
}

impl Mirror {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let (runtime, options) = match self.runtime {
            Which::Containerd(options) => (Runtime::Containerd, options),
            Which::Podman(options) => (Runtime::Podman, options),
            Which::Docker(options) => (Runtime::Docker, options),
            Which::K3s(options) => (Runtime::K3s, options),
            Which::Rke2(options) => (Runtime::Rke2, options),
        };
        let root = Root::new(std::path::absolute(&options.root).unwrap_or(options.root));
        if options.action.disable {
            let address = match options.address {
                Some(address) => address,
                None => Address::of(&global.load(Vec::new())?.settings),
            };
            let plan = runtime.disable(&address, &root)?;
            plan.apply()?;
            return print(&done(&plan));
        }
        let settings = global.load(Vec::new())?.settings;
        let address = options.address.unwrap_or_else(|| Address::of(&settings));
        let mut registries = options.registry;
        registries.sort();
        registries.dedup();
        let wanted = Wanted { address, registries, fallback: !options.no_fallback, settings: &settings };
        let plan = runtime.enable(&wanted, &root)?;
        if options.action.check {
            check(runtime, &wanted.address, &plan)
        } else if options.action.enable {
            plan.apply()?;
            print(&done(&plan))
        } else {
            print(&shown(&plan))
        }
    }
}

/// What would be done.
fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let path = change.path().display();
        text += &match (change.before(), change.after()) {
            _ if change.is_done() => format!("## {path} is as it should be:\n"),
            (None, _) => format!("## {path} would be made:\n"),
            (Some(_), None) => format!("## {path} would be removed.\n"),
            (Some(_), Some(_)) => format!("## {path} would become:\n"),
        };
        text += change.after().unwrap_or_default();
        text += "\n";
    }
    text + &remarks(plan)
}

/// What was done.
fn done(plan: &Plan) -> String {
    let line = |change: &Change| {
        let path = change.path().display();
        match change.after() {
            _ if change.is_done() => format!("{path}: nothing to change\n"),
            Some(_) => format!("{path}: written\n"),
            None => format!("{path}: removed\n"),
        }
    };
    let lines: String = plan.changes.iter().map(line).collect();
    if lines.is_empty() { "Nothing to take back.\n".to_owned() } else { lines + &remarks(plan) }
}

fn remarks(plan: &Plan) -> String {
    let notes = plan.notes.iter().map(|note| format!("Note: {note}\n"));
    let to_do = plan.obstacles.iter().map(|obstacle| format!("To do: {obstacle}\n"));
    let afterwards = Some(plan.afterwards).filter(|_| !plan.is_done()).map(|text| format!("{text}\n"));
    notes.chain(to_do).chain(afterwards).collect()
}

fn check(runtime: Runtime, address: &Address, plan: &Plan) -> Result<(), Error> {
    let mut failed = Vec::new();
    let mut text = String::new();
    for change in &plan.changes {
        let path = change.path().display();
        match (change.before(), change.after()) {
            _ if change.is_done() => text += &format!("ok: {path} is in place\n"),
            (None, _) => failed.push(format!("{path} is not there: not enabled")),
            (Some(_), None) => failed.push(format!("{path} is there, and was not asked for")),
            (Some(_), Some(_)) => {
                failed.push(format!("{path} says otherwise: not enabled, or with other options"))
            }
        }
    }
    failed.extend(plan.obstacles.iter().cloned());
    match probe(address) {
        Ok(()) => text += &format!("ok: the daemon answers at {address}\n"),
        Err(error) => failed.push(error.to_string()),
    }
    text.extend(failed.iter().map(|failure| format!("failed: {failure}\n")));
    text.extend(plan.notes.iter().map(|note| format!("note: {note}\n")));
    print(&text)?;
    match failed.len() {
        0 => Ok(()),
        count => Err(MirrorError::NotInPlace { runtime: runtime.name(), count }.into()),
    }
}
