//! A machine with systemd: systemd-nspawn boots a copy of target/e2e/base in memory, and nothing of it stays.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::support::process::{Process, limited, run, succeed, tied};
use crate::support::skip;

/// Where the daemon listens unless told otherwise.
pub fn daemon() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What `make e2e` builds besides, to be upgraded from.
pub const OLDER: &str = "1.99.0";

/// Where the machine sees the packages of a version.
pub fn folder(version: &str) -> &'static str {
    if version == OLDER { "/packages/older" } else { "/packages" }
}

pub struct Machine {
    process: Process,
    leader: String,
    _log: TempDir,
}

/// Why no machine can be booted here, if so.
pub fn missing() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON
        .get_or_init(|| {
            skip::missing(&["ip", "nsenter", "systemd-nspawn"]).or_else(|| {
                let mut nothing = nspawn(limited("systemd-nspawn"));
                nothing.args(["--console=pipe", "--", "true"]);
                let output = run(nothing);
                let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
                (!output.status.success()).then(|| format!("systemd-nspawn cannot run here: {said}"))
            })
        })
        .clone()
}

/// Ends the test here where no machine can be booted, or one of these programs is not there.
#[macro_export]
macro_rules! needs_machine {
    ($($program:expr),*) => {
        let missing = $crate::support::skip::missing(&[$($program),*]);
        if let Some(reason) = missing.or_else($crate::machine::missing) {
            fn here() {}
            return $crate::support::skip::report(std::any::type_name_of_val(&here), &reason);
        }
    };
}

fn nspawn(mut command: Command) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    command.args(["--quiet", "--register=no", "--keep-unit", "--volatile=overlay"]);
    command.args([
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--machine=e2e",
        "--rlimit=RLIMIT_NOFILE=524288",
    ]);
    command.arg(format!("--bind-ro={}:/packages", root.join("dist").display()));
    command.arg("-D").arg(root.join("target/e2e/base"));
    command
}

impl Machine {
    /// The calling thread, and what it starts from here on, share the machine's network, which has a loopback and
    /// nothing else.
    pub fn boot() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut up = Command::new("ip");
        up.args(["link", "set", "lo", "up"]);
        succeed(up);

        let log = tempfile::tempdir().unwrap();
        let mut command = nspawn(tied("systemd-nspawn"));
        command.args(["--console=pipe", "-b"]);
        let mut process = Process::spawn(command, &log.path().join("log"));
        let children = format!("/proc/{0}/task/{0}/children", process.pid());
        let mut leader = String::new();
        process.wait_until("systemd", || {
            leader = std::fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            let name = std::fs::read_to_string(format!("/proc/{leader}/comm")).unwrap_or_default();
            name == "systemd\n"
        });
        let machine = Self { process, leader, _log: log };
        // It waits, and fails when some unit of Debian's has failed, which is no matter.
        machine.attempt(
            "until systemctl is-system-running --wait >/dev/null 2>&1 || [ $? = 1 ]; do sleep 0.1; done",
        );
        machine
    }

    /// A file of the machine's, from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn command(&self, script: &str) -> Command {
        let mut command = limited("nsenter");
        command.args(["--all", "--target", &self.leader, "--", "/bin/sh", "-ec", script]);
        command.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        command
    }

    /// Runs a script in the machine, as root, which has to succeed, and gives what it printed.
    pub fn run(&self, script: &str) -> String {
        succeed(self.command(script))
    }

    /// The same, whatever comes of it.
    pub fn attempt(&self, script: &str) -> Output {
        run(self.command(script))
    }

    /// As `systemctl edit` would.
    pub fn drop_in(&self, unit: &str, text: &str) {
        self.run(&format!("mkdir -p /etc/systemd/system/{unit}.d"));
        self.write(&format!("/etc/systemd/system/{unit}.d/override.conf"), text);
        self.run("systemctl daemon-reload");
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// `active`, `inactive`, `failed`…
    pub fn state(&self, unit: &str) -> String {
        self.property(unit, "ActiveState")
    }

    /// What the daemon logged, newest last.
    pub fn log(&self) -> String {
        self.run("journalctl --unit ociregistry --output cat --no-pager")
    }
}

impl Drop for Machine {
    /// At once, but by nspawn's own doing, so that it tidies up.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self
                .attempt("systemctl status --no-pager ociregistry || true; journalctl --no-pager --lines 40");
            eprintln!("{}", String::from_utf8_lossy(&said.stdout));
        }
        self.attempt("systemctl poweroff --force --force");
        self.process.wait();
    }
}
