//! The life of the .deb: install, upgrade, remove, purge.

use std::net::{SocketAddr, TcpListener};

use crate::machine::{Machine, OLDER, VERSION, daemon, folder};
use crate::needs_machine;
use crate::support::client::get;
use crate::support::layout::Image;
use crate::support::process::eventually;
use crate::support::registry::Registry;
use crate::support::runtimes::{Containerd, Podman};
use crate::use_of_it::{cached, used};

pub fn install(machine: &Machine, version: &str) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let package = format!("{}/ociregistry_{version}-1_{architecture}.deb", folder(version));
    machine.run(&format!("apt-get install -q -y -o Dpkg::Use-Pty=0 {package} 2>&1"))
}

/// A machine with the package.
pub fn machine() -> Machine {
    let machine = Machine::boot();
    install(&machine, VERSION);
    machine
}

fn status(machine: &Machine) -> String {
    machine.run("dpkg-query -W -f '${Version} ${Status}' ociregistry")
}

#[test]
fn an_install_enables_starts_and_serves() {
    needs_machine!();
    let machine = machine();

    assert_eq!(machine.state("ociregistry.service"), "active");
    assert_eq!(machine.run("systemctl is-enabled ociregistry.service"), "enabled\n");
    get("/v2/").send(daemon()).is(200);
    // Port 80 is for those who ask for it.
    assert_eq!(machine.state("ociregistry-http.socket"), "inactive");
    assert_eq!(machine.attempt("systemctl is-enabled ociregistry-http.socket").stdout, b"disabled\n");

    let modes =
        "stat -c '%A %U:%G' /etc/ociregistry.toml /var/lib/ociregistry /var/lib/ociregistry/store.json";
    assert_eq!(
        machine.run(modes),
        "-rw-r--r-- root:root\ndrwxr-x--- ociregistry:ociregistry\n-rw-r----- ociregistry:ociregistry\n"
    );
    assert!(machine.log().contains("server is running"), "{}", machine.log());
}

#[test]
fn what_is_installed_is_in_order() {
    needs_machine!();
    let machine = machine();
    let version = format!("Version: {}, build date: ", env!("CARGO_PKG_VERSION"));
    assert!(machine.run("ociregistry version").starts_with(&version));
    assert_eq!(machine.run("ociregistry config check"), "/etc/ociregistry.toml: no errors\n");
    assert_eq!(
        machine.run("systemd-analyze verify --man=no ociregistry.service ociregistry-http.socket 2>&1"),
        ""
    );
    for path in [
        "/usr/share/man/man8/ociregistry.8.gz",
        "/usr/share/man/man8/ociregistry-serve.8.gz",
        "/usr/share/man/man5/ociregistry.toml.5.gz",
        "/usr/share/bash-completion/completions/ociregistry",
        "/usr/share/zsh/vendor-completions/_ociregistry",
        "/usr/share/fish/vendor_completions.d/ociregistry.fish",
        "/usr/share/doc/ociregistry/README.md",
        "/usr/share/doc/ociregistry/copyright",
        "/usr/share/doc/ociregistry/changelog.Debian.gz",
    ] {
        assert!(machine.path(path).is_file(), "no {path}");
    }
    assert_eq!(machine.run("cat /var/lib/dpkg/info/ociregistry.conffiles"), "/etc/ociregistry.toml\n");
}

#[test]
fn containerd_and_podman_pull_through_what_is_installed() {
    needs_machine!("containerd", "ctr", "runc", "busybox", "podman", "docker-registry");
    let machine = machine();
    let registry = Registry::plain();
    registry.push("team/app", "1.0", &Image::runnable(1));
    machine.write("/etc/ociregistry.toml", &registry.entry("reg.example"));
    machine.run("systemctl restart ociregistry");

    let containerd = Containerd::start();
    containerd.mirror("reg.example", daemon());
    containerd.pull("reg.example/team/app:1.0");
    assert_eq!(containerd.run("reg.example/team/app:1.0"), "ran 1\n");
    Podman::new(daemon(), &["reg.example"]).pull("reg.example/team/app:1.0");
    Podman::new(daemon(), &[]).pull(&format!("{}/reg.example/team/app:1.0", daemon()));
}

#[test]
fn a_port_that_is_taken_leaves_the_package_installed_and_is_told() {
    needs_machine!();
    let machine = Machine::boot();
    let taken = TcpListener::bind(daemon()).unwrap();
    let said = install(&machine, VERSION);
    assert_eq!(status(&machine), format!("{VERSION}-1 install ok installed"));
    assert!(said.contains("ociregistry is installed, but does not run:"), "{said}");
    assert!(said.contains("cannot listen on 127.0.0.1:8080: Address already in use"), "{said}");
    // When the port is free again, it is ours without anybody's doing.
    drop(taken);
    eventually("it serves", || machine.state("ociregistry.service") == "active");
    get("/v2/").send(daemon()).is(200);
}

#[test]
fn an_upgrade_keeps_cache_and_edited_configuration_and_restarts() {
    needs_machine!("docker-registry");
    let machine = Machine::boot();
    install(&machine, OLDER);
    let manifest = used(&machine);
    let cache = cached(&machine);
    let configuration = machine.read("/etc/ociregistry.toml");
    let before = machine.property("ociregistry.service", "MainPID");

    install(&machine, VERSION);
    assert_eq!(status(&machine), format!("{VERSION}-1 install ok installed"));
    assert_eq!(machine.read("/etc/ociregistry.toml"), configuration);
    assert_eq!(cached(&machine), cache);
    assert_eq!(machine.state("ociregistry.service"), "active");
    assert_ne!(machine.property("ociregistry.service", "MainPID"), before);
    // The upstream is gone: this is the cache.
    get(&manifest).send(daemon()).is(200);
}

#[test]
fn what_the_administrator_stopped_or_disabled_stays_so_over_an_upgrade() {
    needs_machine!();
    let machine = Machine::boot();
    install(&machine, OLDER);
    machine.run("systemctl disable --now ociregistry.service");
    install(&machine, VERSION);
    assert_eq!(machine.attempt("systemctl is-enabled ociregistry.service").stdout, b"disabled\n");
    assert_eq!(machine.state("ociregistry.service"), "inactive");
}

#[test]
fn a_removal_keeps_cache_and_configuration_and_a_purge_takes_them() {
    needs_machine!("docker-registry");
    let machine = machine();
    used(&machine);
    let cache = cached(&machine);
    let configuration = machine.read("/etc/ociregistry.toml");
    machine.run("mkdir /etc/ociregistry && touch /etc/ociregistry/password");
    machine.run("systemctl stop ociregistry && systemctl enable --now ociregistry-http.socket");
    machine.run("systemctl start ociregistry");

    machine.run("apt-get remove -q -y ociregistry");
    assert_eq!(status(&machine), format!("{VERSION}-1 deinstall ok config-files"));
    for address in [daemon(), SocketAddr::from(([127, 0, 0, 1], 80))] {
        assert!(get("/v2/").try_open(address).is_none(), "it still listens on {address}");
    }
    assert_eq!(cached(&machine), cache);
    assert_eq!(machine.read("/etc/ociregistry.toml"), configuration);

    machine.run("apt-get purge -q -y ociregistry");
    let left = "find / -xdev -name '*ociregistry*' -not -path '/packages*' -not -path '/proc/*' \
                -not -path '/var/log/*' -not -path '/sys/*'";
    assert_eq!(machine.run(left), "");
    assert_eq!(machine.attempt("systemctl list-unit-files --no-legend 'ociregistry*'").stdout, b"");
}

#[test]
fn a_purge_of_a_cache_that_is_a_mount_empties_it() {
    needs_machine!();
    let machine = Machine::boot();
    machine.run("mkdir /var/lib/ociregistry && mount -t tmpfs tmpfs /var/lib/ociregistry");
    install(&machine, VERSION);
    assert_eq!(machine.state("ociregistry.service"), "active");
    machine.run("apt-get purge -q -y ociregistry");
    assert_eq!(machine.run("ls -A /var/lib/ociregistry"), "");
}
