//! The daemon under systemd: the journal, reloads, the watchdog, restarts while clients pull, sockets of systemd.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::deb::machine;
use crate::machine::{Machine, daemon};
use crate::needs_machine;
use crate::support::client::{End, get};
use crate::support::daemon::entry;
use crate::support::layout::{Blob, Image, Layer, Layout, MIB};
use crate::support::process::eventually;
use crate::support::upstream::Upstream;
use sha2::{Digest, Sha256};

/// An image of the upstream's, and the machine with the upstream as `reg.example`.
fn serving(machine: &Machine, image: &Image) -> Upstream {
    let upstream = Upstream::start(Layout::of("team/app", "1.0", image));
    machine.write(
        "/etc/ociregistry.toml",
        &format!("log_level = \"info\"\n{}", entry("reg.example", &upstream)),
    );
    machine.run("systemctl restart ociregistry");
    upstream
}

fn main_pid(machine: &Machine) -> String {
    machine.property("ociregistry.service", "MainPID")
}

#[test]
fn readiness_status_and_limits_are_as_the_unit_says() {
    needs_machine!();
    let machine = machine();
    // Type=notify: whoever is told that it is started can pull.
    machine.run("systemctl restart ociregistry");
    get("/v2/").send(daemon()).is(200);
    let status = machine.property("ociregistry.service", "StatusText");
    assert!(status.contains("under way"), "{status}");
    let pid = main_pid(&machine);
    assert_eq!(machine.property("ociregistry.service", "LimitNOFILE"), "262144");
    let process = machine.read(&format!("/proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(process.contains(line), "no {line:?} in\n{process}");
    }
    let told = machine.run("ociregistry status");
    assert!(told.contains("127.0.0.1:8080"), "{told}");
    // The group may ask, others may not.
    machine.run("useradd --groups ociregistry member && useradd stranger");
    machine.run("runuser -u member -- ociregistry status");
    assert!(!machine.attempt("runuser -u stranger -- ociregistry status").status.success());
}

#[test]
fn the_unit_leaves_little_to_attack() {
    needs_machine!();
    let machine = machine();
    let said = machine.run("systemd-analyze security --no-pager ociregistry.service");
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level: f32 = overall.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    println!("{overall}");
    assert!(level <= 1.2, "{said}");
}

#[test]
fn the_check_of_the_cache_runs_in_idle_time() {
    needs_machine!();
    let machine = machine();
    let pid = main_pid(&machine);
    let stats = machine.run(&format!("cat /proc/{pid}/task/*/stat"));
    // proc_pid_stat(5) and sched(7): SCHED_IDLE is 5.
    let policy = |name: &str| {
        let (_, fields) = stats.split_once(&format!("({name}) ")).unwrap();
        fields.split(' ').nth(38).unwrap()
    };
    assert_eq!((policy("check"), policy("ociregistry")), ("5", "0"), "{stats}");
}

#[test]
fn the_journal_has_fields() {
    needs_machine!();
    let machine = machine();
    let image = Image::small(1);
    let _upstream = serving(&machine, &image);
    get("/v2/team/app/manifests/1.0?ns=reg.example").send(daemon()).is(200);
    get("/v2/team/app/manifests/2.0?ns=reg.example").send(daemon()).is(404);

    let journal = |filter: &str| {
        machine.run("journalctl --sync");
        let lines = machine.run(&format!("journalctl --unit ociregistry --output json --no-pager {filter}"));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let found = journal("OCI_REPOSITORY=team/app STATUS=200");
    assert_eq!(found.len(), 1, "{found:?}");
    for (field, value) in [
        ("OCI_REGISTRY", "reg.example"),
        ("OCI_REFERENCE", "1.0"),
        ("OCI_DIGEST", &*image.manifest.digest),
        ("CACHE", "miss"),
        ("BYTES", &*image.manifest.bytes.len().to_string()),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "ociregistry"),
    ] {
        assert_eq!(found[0][field], value, "{field} in {}", found[0]);
    }
    assert!(
        found[0]["MESSAGE"].as_str().unwrap().starts_with("GET:/v2/team/app/manifests/1.0?ns=reg.example")
    );
    assert!(found[0]["CLIENT"].as_str().unwrap().starts_with("127.0.0.1"));
    for field in ["DURATION_MS", "REQUEST_ID"] {
        assert!(found[0][field].is_string(), "{field} in {}", found[0]);
    }
    assert_eq!(journal("STATUS=404").len(), 1);
}

#[test]
fn a_reload_puts_a_good_configuration_in_force_and_fails_for_a_bad_one() {
    needs_machine!();
    let machine = machine();
    let upstream = serving(&machine, &Image::small(1));
    let pid = main_pid(&machine);
    get("/v2/team/app/manifests/1.0?ns=other.example").send(daemon()).is(502);

    let good = format!("log_level = \"info\"\n{}", entry("other.example", &upstream));
    machine.write("/etc/ociregistry.toml", &good);
    machine.run("systemctl reload ociregistry");
    // It waited until this was so.
    get("/v2/team/app/manifests/1.0?ns=other.example").send(daemon()).is(200);

    machine.write("/etc/ociregistry.toml", &format!("prot = 5\n{good}"));
    let reload = machine.attempt("systemctl reload ociregistry");
    assert!(!reload.status.success());
    let reason = "/etc/ociregistry.toml:1: prot: unknown key; did you mean `port`?";
    assert!(machine.log().contains(reason), "{}", machine.log());
    let status = machine.property("ociregistry.service", "StatusText");
    assert!(status.contains("; the configuration of") && status.contains(reason), "{status}");
    assert_eq!(machine.state("ociregistry.service"), "active");
    get("/v2/team/app/manifests/1.0?ns=other.example").send(daemon()).is(200);

    machine.write("/etc/ociregistry.toml", &good);
    machine.run("systemctl reload ociregistry");
    let status = machine.property("ociregistry.service", "StatusText");
    assert!(!status.contains("; the configuration of"), "{status}");
    assert_eq!(main_pid(&machine), pid);
}

#[test]
fn a_wrong_configuration_is_not_tried_again_and_again() {
    needs_machine!();
    let machine = machine();
    machine.write("/etc/ociregistry.toml", "prot = 5\n");
    assert!(!machine.attempt("systemctl restart ociregistry").status.success());
    assert_eq!(machine.state("ociregistry.service"), "failed");
    assert_eq!(machine.property("ociregistry.service", "ExecMainStatus"), "78");
    assert_eq!(machine.property("ociregistry.service", "NRestarts"), "0");
}

#[test]
fn the_watchdog_restarts_a_daemon_that_hangs() {
    needs_machine!();
    let machine = machine();
    assert_eq!(machine.property("ociregistry.service", "WatchdogUSec"), "30s");
    // The same in less time.
    machine.drop_in("ociregistry.service", "[Service]\nWatchdogSec=2\n");
    machine.run("systemctl restart ociregistry");
    let pid = main_pid(&machine);
    machine.run(&format!("kill -STOP {pid}"));
    eventually("it is restarted", || machine.property("ociregistry.service", "NRestarts") == "1");
    eventually("it serves", || machine.state("ociregistry.service") == "active");
    assert_ne!(main_pid(&machine), pid);
    get("/v2/").send(daemon()).is(200);
    assert!(machine.run("journalctl --no-pager --unit ociregistry").contains("Watchdog timeout"));
}

/// What came of the requests of a storm.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicUsize,
    /// Nobody listened, or answered.
    unanswered: AtomicUsize,
    /// An answer that began and did not end.
    cut: AtomicUsize,
}

/// Pulls of `image` by eight clients, one after the other each, with `during` in their midst.
fn storm(address: SocketAddr, image: &Image, during: impl FnOnce(&Tally)) -> Tally {
    let tally = Tally::default();
    let over = AtomicBool::new(false);
    let blobs: Vec<&Blob> = image.blobs().collect();
    thread::scope(|scope| {
        for client in 0..8 {
            let (tally, over, blobs) = (&tally, &over, &blobs);
            scope.spawn(move || {
                for blob in blobs.iter().cycle().skip(client * blobs.len() / 8) {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let target = format!("/v2/team/app/blobs/{}?ns=reg.example", blob.digest);
                    let outcome = match get(&target).try_open(address) {
                        None => {
                            thread::sleep(Duration::from_millis(10));
                            &tally.unanswered
                        }
                        Some(stream) => {
                            assert_eq!(stream.head.status, 200);
                            match stream.digest(Sha256::new()) {
                                (digest, _, End::Whole) => {
                                    assert_eq!(digest, blob.digest);
                                    &tally.whole
                                }
                                _ => &tally.cut,
                            }
                        }
                    };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        during(&tally);
        over.store(true, Ordering::Relaxed);
    });
    tally
}

fn restart_thrice(machine: &Machine, tally: &Tally) {
    for _ in 0..3 {
        let before = tally.whole.load(Ordering::Relaxed);
        eventually("clients pull", || tally.whole.load(Ordering::Relaxed) > before + 50);
        machine.run("systemctl restart ociregistry");
    }
    let before = tally.whole.load(Ordering::Relaxed);
    eventually("clients pull again", || tally.whole.load(Ordering::Relaxed) > before + 50);
}

/// Small layers and large ones.
fn storms_image() -> Image {
    let small = (0..40).map(|seed| Layer::of_noise(seed, MIB / 4));
    let large = (40..44).map(|seed| Layer::of_noise(seed, 8 * MIB));
    Image::new(small.chain(large).collect())
}

#[test]
fn restarts_with_sockets_of_systemd_fail_no_pull() {
    needs_machine!();
    let machine = machine();
    let image = storms_image();
    let _upstream = serving(&machine, &image);
    machine.run("systemctl stop ociregistry; systemctl start ociregistry-http.socket ociregistry.service");
    let tally =
        storm(SocketAddr::from(([127, 0, 0, 1], 80)), &image, |tally| restart_thrice(&machine, tally));
    println!("{tally:?}");
    assert_eq!((tally.unanswered.into_inner(), tally.cut.into_inner()), (0, 0));
}

#[test]
fn restarts_without_them_end_what_was_begun() {
    needs_machine!();
    let machine = machine();
    let image = storms_image();
    let _upstream = serving(&machine, &image);
    let tally = storm(daemon(), &image, |tally| restart_thrice(&machine, tally));
    println!("{tally:?}");
    assert_eq!(tally.cut.into_inner(), 0);
}

#[test]
fn port_80_is_served_by_the_socket_that_has_to_be_asked_for() {
    needs_machine!();
    let machine = machine();
    let port_80 = SocketAddr::from(([127, 0, 0, 1], 80));
    assert!(get("/v2/").try_open(port_80).is_none());
    // As the socket's own words say.
    machine.run("systemctl stop ociregistry");
    machine.run("systemctl enable --now ociregistry-http.socket");
    machine.run("systemctl start ociregistry");
    for address in [port_80, daemon()] {
        get("/v2/").send(address).is(200);
    }
    let status: serde_json::Value = serde_json::from_str(&machine.run("ociregistry status --json")).unwrap();
    let addresses = status["addresses"].as_array().unwrap();
    assert!(addresses.contains(&"127.0.0.1:80".into()), "{status}");
    // A client's first connection is enough to have it started.
    machine.run("systemctl stop ociregistry");
    get("/v2/").send(port_80).is(200);
    assert_eq!(machine.state("ociregistry.service"), "active");
}

#[test]
fn a_wrong_configuration_costs_no_socket_and_who_waits_there_is_served_once_it_is_mended() {
    needs_machine!();
    let machine = machine();
    machine.write("/etc/ociregistry.toml", "prot = 5\n");
    machine.run("systemctl stop ociregistry && systemctl start ociregistry-http.socket");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| get("/v2/").send(daemon()).is(200));
        eventually("it was tried again", || machine.log().matches("prot: unknown key").count() > 1);
        // systemd would try again at once, and give the socket up in the end.
        eventually("it waits", || machine.property("ociregistry.service", "SubState") == "stop-post");
        machine.write("/etc/ociregistry.toml", "");
        waiting.join().unwrap();
    });
    assert_eq!(machine.state("ociregistry-http.socket"), "active");
}

#[test]
fn an_upgrade_leaves_the_sockets_as_they_are() {
    needs_machine!();
    let machine = Machine::boot();
    crate::deb::install(&machine, crate::machine::OLDER);
    let image = storms_image();
    let _upstream = serving(&machine, &image);
    machine.run("systemctl stop ociregistry; systemctl start ociregistry-http.socket ociregistry.service");
    let tally = storm(SocketAddr::from(([127, 0, 0, 1], 80)), &image, |_| {
        crate::deb::install(&machine, crate::machine::VERSION);
    });
    assert_eq!((tally.unanswered.into_inner(), tally.cut.into_inner()), (0, 0));
    assert_eq!(machine.state("ociregistry-http.socket"), "active");
}
