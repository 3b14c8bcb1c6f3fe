//! The life of the .rpm, by the rpm tool on Debian. Nothing here has systemd-update-helper: this is how the scripts
//! do without it, as on EL 8.

use crate::machine::{Machine, OLDER, VERSION, daemon, folder};
use crate::needs_machine;
use crate::support::client::get;
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
