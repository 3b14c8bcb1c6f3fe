//! Who the daemon is, and what it may.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::deb::machine;
use crate::machine::{Machine, daemon};
use crate::needs_machine;
use crate::support::client::get;
use crate::support::layout::Image;
use crate::support::process::eventually;
use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::tls::Ca;

#[test]
fn started_by_root_it_binds_port_80_and_is_nobody_to_speak_of() {
    needs_machine!();
    let machine = machine();
    machine.run("systemctl stop ociregistry");
    machine
        .run("mkdir -m 700 /root/keys && echo secret > /root/keys/password && chmod 600 /root/keys/password");
    machine.write(
        "/root/c.toml",
        "[[registries]]\nname = \"reg.example\"\nauth = { user = \"me\", password_file = \"/root/keys/password\" }\n",
    );
    // Not under the unit: as root with all that root may.
    machine.run(
        "systemd-run --unit by-root ociregistry --config-file /root/c.toml --log-level info serve --port 80",
    );
    let port_80 = SocketAddr::from(([127, 0, 0, 1], 80));
    eventually("it serves", || get("/v2/").try_open(port_80).is_some());

    let status = machine.read(&format!("/proc/{}/status", machine.property("by-root.service", "MainPID")));
    let ids = machine.run("id -u ociregistry; id -g ociregistry");
    let (uid, gid) = ids.trim().split_once('\n').unwrap();
    for line in [
        format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
        format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"),
        format!("Groups:\t{gid} "),
        "CapInh:\t0000000000000000".into(),
        "CapPrm:\t0000000000000000".into(),
        "CapEff:\t0000000000000000".into(),
        "CapAmb:\t0000000000000000".into(),
        "NoNewPrivs:\t1".into(),
    ] {
        assert!(status.lines().any(|l| l == line), "no {line:?} in\n{status}");
    }
    let log = machine.run("journalctl --unit by-root --output cat --no-pager");
    assert!(log.contains("started as root, serving as ociregistry:ociregistry, for good"), "{log}");
}

/// Does all that the daemon says, which cannot write to /srv/images. Gives the commands and the drop-in.
fn mend(machine: &Machine) -> (Vec<String>, String) {
    assert!(!machine.attempt("systemctl restart ociregistry").status.success());
    machine.run("systemctl stop ociregistry");
    let log = machine.log();
    let said = log.rsplit("Starting ociregistry.service").next().unwrap();
    let lines = || said.lines().skip_while(|line| !line.ends_with("As root:")).skip(1);
    let commands: Vec<_> = lines()
        .take_while(|line| line.starts_with("install ") || line.starts_with("chown "))
        .map(str::to_owned)
        .collect();
    for command in &commands {
        machine.run(command);
    }
    let drop_in = said.split("`systemctl edit ociregistry`, with\n").nth(1).unwrap_or_default();
    let drop_in: Vec<_> = drop_in.lines().take(2).collect();
    if !drop_in.is_empty() {
        machine.drop_in("ociregistry.service", &drop_in.join("\n"));
    }
    (commands, drop_in.join("\n"))
}

#[test]
fn a_cache_elsewhere_is_refused_with_what_mends_it() {
    needs_machine!();
    let machine = machine();
    let let_write = "[Service]\nReadWritePaths=/srv/images";
    let serves = || {
        machine.run("systemctl restart ociregistry");
        get("/v2/").send(daemon()).is(200);
        assert!(machine.path("/srv/images/store.json").is_file());
    };
    machine.write("/etc/ociregistry.toml", "image_path = \"/srv/images\"\n");
    let (commands, drop_in) = mend(&machine);
    assert_eq!(commands, ["install -d -o ociregistry -g ociregistry -m 750 /srv/images"]);
    assert_eq!(drop_in, let_write);
    serves();

    // A folder of root's, with the drop-in and without.
    machine.run("systemctl stop ociregistry && rm -rf /srv/images && mkdir /srv/images");
    let hand_over = ["chown -R ociregistry:ociregistry /srv/images"];
    assert_eq!(mend(&machine), (hand_over.map(str::to_owned).to_vec(), String::new()));
    serves();
    machine.run("systemctl stop ociregistry && rm -rf /srv/images /etc/systemd/system/ociregistry.service.d");
    machine.run("mkdir /srv/images && systemctl daemon-reload");
    assert_eq!(mend(&machine), (hand_over.map(str::to_owned).to_vec(), let_write.to_owned()));
    serves();

    // A cache that is there already is served without the drop-in, too, and the log says what it is for.
    machine.run("rm -rf /etc/systemd/system/ociregistry.service.d && systemctl daemon-reload");
    serves();
    eventually("it is said", || {
        let log = machine.log();
        let said = log.rsplit("Starting ociregistry.service").next().unwrap();
        said.contains("the disk is read-only") && said.contains("ReadWritePaths=/srv/images")
    });
}

#[test]
fn a_secret_comes_by_systemds_credentials() {
    needs_machine!("docker-registry", "htpasswd");
    let machine = machine();
    let ca = Arc::new(Ca::new());
    let registry = Registry::with_htpasswd(&ca);
    registry.push("team/app", "1.0", &Image::small(1));
    machine.run("mkdir -m 700 /etc/ociregistry");
    machine.write("/etc/ociregistry.pem", &ca.pem());
    let secret = |text: &str| {
        machine.write("/etc/ociregistry/reg", text);
        machine.run("chmod 600 /etc/ociregistry/reg");
    };
    secret("a guess");
    machine.write(
        "/etc/ociregistry.toml",
        &format!(
            "[[registries]]\nname = \"reg.example\"\nurl = \"{}\"\ntls = {{ ca = \"/etc/ociregistry.pem\" }}\n\
             auth = {{ user = \"{USER}\", password_credential = \"reg\" }}\n",
            registry.url()
        ),
    );
    assert!(!machine.attempt("systemctl restart ociregistry").status.success());
    machine.drop_in("ociregistry.service", "[Service]\nLoadCredential=reg:/etc/ociregistry/reg\n");
    let manifest = get("/v2/team/app/manifests/1.0?ns=reg.example");
    machine.run("systemctl restart ociregistry");
    manifest.send(daemon()).refuses(403, "DENIED");
    secret(PASSWORD);
    machine.run("systemctl restart ociregistry");
    manifest.send(daemon()).is(200);
    assert!(!machine.log().contains(PASSWORD));
}
