//! The life of the .rpm, by the rpm tool on Debian. Debian has no systemd-update-helper: this is how the scripts do
//! without it, as on EL 8, and what they would ask of it.

use crate::machine::{Machine, OLDER, VERSION, daemon, folder};
use crate::needs_machine;
use crate::support::client::get;
use crate::support::layout::Image;
use crate::support::registry::Registry;
use crate::support::runtimes::{Containerd, Podman};
use crate::use_of_it::{cached, used};

/// Debian's packages are not in rpm's database, hence `--nodeps`. No script may complain.
fn rpm(machine: &Machine, option: &str, version: &str) {
    let architecture = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let package = format!("{}/ociregistry-{version}-1.{architecture}.rpm", folder(version));
    let said = machine.run(&format!("rpm --force-debian {option} --nodeps {package} 2>&1"));
    for complaint in ["warning", "error", "ailed", "not found"] {
        assert!(!said.contains(complaint), "{said}");
    }
}

fn is_enabled(machine: &Machine, unit: &str) -> String {
    String::from_utf8(machine.attempt(&format!("systemctl is-enabled {unit}")).stdout)
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn an_install_follows_the_presets_and_does_not_start() {
    needs_machine!();
    for (presets, enabled) in [("enable *\n", "enabled"), ("disable *\n", "disabled")] {
        let machine = Machine::boot();
        machine.run("mkdir -p /etc/systemd/system-preset");
        machine.write("/etc/systemd/system-preset/00-e2e.preset", presets);
        rpm(&machine, "-i", VERSION);
        assert_eq!(is_enabled(&machine, "ociregistry.service"), enabled);
        assert_eq!(is_enabled(&machine, "ociregistry-http.socket"), "disabled");
        assert_eq!(machine.state("ociregistry.service"), "inactive");
    }
}

#[test]
fn what_is_installed_serves_once_it_is_started() {
    needs_machine!();
    let machine = Machine::boot();
    rpm(&machine, "-i", VERSION);
    machine.run("systemctl enable ociregistry");
    machine.run("systemctl restart ociregistry");
    get("/v2/").send(daemon()).is(200);
    let version = format!("Version: {}, build date: ", env!("CARGO_PKG_VERSION"));
    assert!(machine.run("ociregistry version").starts_with(&version));
    assert_eq!(machine.run("rpm -V --nodeps ociregistry"), "", "files are not as they were packed");
    assert_eq!(machine.run("rpm -qc ociregistry"), "/etc/ociregistry.toml\n");
    assert!(machine.run("rpm -qd ociregistry").contains("/usr/share/man/man5/ociregistry.toml.5.gz\n"));
    assert!(machine.path("/usr/share/zsh/site-functions/_ociregistry").is_file());
}

#[test]
fn containerd_and_podman_pull_through_it_and_a_reload_and_the_journal_are_as_elsewhere() {
    needs_machine!("containerd", "ctr", "runc", "busybox", "podman", "docker-registry");
    let machine = Machine::boot();
    rpm(&machine, "-i", VERSION);
    let registry = Registry::plain();
    registry.push("team/app", "1.0", &Image::runnable(1));
    machine
        .write("/etc/ociregistry.toml", &format!("log_level = \"info\"\n{}", registry.entry("reg.example")));
    machine.run("systemctl start ociregistry");
    let containerd = Containerd::start();
    containerd.mirror("reg.example", daemon());
    containerd.pull("reg.example/team/app:1.0");
    assert_eq!(containerd.run("reg.example/team/app:1.0"), "ran 1\n");

    let other = registry.entry("other.example");
    machine.write("/etc/ociregistry.toml", &format!("log_level = \"info\"\n{other}"));
    machine.run("systemctl reload ociregistry");
    Podman::new(daemon(), &["other.example"]).pull("other.example/team/app:1.0");
    machine.write("/etc/ociregistry.toml", &format!("prot = 5\n{other}"));
    assert!(!machine.attempt("systemctl reload ociregistry").status.success());

    machine.run("journalctl --sync");
    for registry in ["reg.example", "other.example"] {
        let filter = format!("OCI_REGISTRY={registry} OCI_REPOSITORY=team/app STATUS=200");
        let found = machine.run(&format!("journalctl --unit ociregistry --output json --no-pager {filter}"));
        assert!(found.lines().count() > 1, "{registry}: {found}");
    }
}

#[test]
fn with_systemd_update_helper_the_scripts_leave_the_units_to_it() {
    needs_machine!();
    let machine = Machine::boot();
    let helper = "/usr/lib/systemd/systemd-update-helper";
    machine.write(helper, "#!/bin/sh\necho \"$@\" >>/asked\n");
    machine.run(&format!("chmod +x {helper}"));
    let asked = || machine.run("cat /asked; rm /asked");
    rpm(&machine, "-i", OLDER);
    assert_eq!(asked(), "install-system-units ociregistry.service\n");
    rpm(&machine, "-U", VERSION);
    assert_eq!(asked(), "mark-restart-system-units ociregistry.service\n");
    machine.run("rpm -e ociregistry");
    assert_eq!(asked(), "remove-system-units ociregistry-http.socket ociregistry.service\n");
}

#[test]
fn an_upgrade_keeps_cache_and_edited_configuration_and_restarts_what_runs() {
    needs_machine!("docker-registry");
    let machine = Machine::boot();
    rpm(&machine, "-i", OLDER);
    let manifest = used(&machine);
    let cache = cached(&machine);
    let configuration = machine.read("/etc/ociregistry.toml");
    let before = machine.property("ociregistry.service", "MainPID");

    rpm(&machine, "-U", VERSION);
    assert_eq!(machine.run("rpm -q ociregistry --qf '%{VERSION}'"), VERSION);
    assert_eq!(machine.read("/etc/ociregistry.toml"), configuration);
    assert_eq!(cached(&machine), cache);
    assert_eq!(machine.state("ociregistry.service"), "active");
    assert_ne!(machine.property("ociregistry.service", "MainPID"), before);
    get(&manifest).send(daemon()).is(200);
}

#[test]
fn what_is_stopped_and_disabled_stays_so_over_an_upgrade() {
    needs_machine!();
    let machine = Machine::boot();
    rpm(&machine, "-i", OLDER);
    machine.run("systemctl disable ociregistry");
    rpm(&machine, "-U", VERSION);
    assert_eq!(is_enabled(&machine, "ociregistry.service"), "disabled");
    assert_eq!(machine.state("ociregistry.service"), "inactive");
}

#[test]
fn a_removal_stops_and_disables_and_keeps_cache_and_edited_configuration() {
    needs_machine!("docker-registry");
    let machine = Machine::boot();
    rpm(&machine, "-i", VERSION);
    machine.run("systemctl enable ociregistry");
    used(&machine);
    let cache = cached(&machine);
    let configuration = machine.read("/etc/ociregistry.toml");

    machine.run("rpm -e ociregistry");
    assert!(get("/v2/").try_open(daemon()).is_none(), "it still listens");
    assert_eq!(cached(&machine), cache);
    assert_eq!(machine.read("/etc/ociregistry.toml.rpmsave"), configuration);
    assert_eq!(machine.run("find /etc/systemd /usr/lib/systemd -name 'ociregistry*'"), "");
    assert_eq!(machine.attempt("systemctl list-unit-files --no-legend 'ociregistry*'").stdout, b"");
}
