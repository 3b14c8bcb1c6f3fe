//! The real binary on a folder and a port of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use tempfile::TempDir;

use super::client::{Request, Response};
use super::client::{get, head};
use super::layout::file_hex;
use super::process::{Process, free_port, run, tied};
use super::upstream::Upstream;

pub const BINARY: &str = env!("CARGO_BIN_EXE_ociregistry");

pub struct Daemon {
    pub addr: SocketAddr,
    pub dir: TempDir,
    process: Option<Process>,
    options: Vec<String>,
}

/// The entry that makes `name` our upstream.
pub fn entry(name: &str, upstream: &Upstream) -> String {
    format!("[[registries]]\nname = \"{name}\"\nurl = \"{}\"\n", upstream.url())
}

impl Daemon {
    /// Every registry that the tests name is this upstream.
    pub fn of(upstream: &Upstream) -> Self {
        Self::with("", upstream)
    }

    /// `keys` stand at the top of the configuration file.
    pub fn with(keys: &str, upstream: &Upstream) -> Self {
        let entries: String =
            ["docker.io", "registry.k8s.io", "reg.example:5000"].map(|name| entry(name, upstream)).concat();
        Self::configured(&format!("{keys}\n{entries}"))
    }

    pub fn configured(config: &str) -> Self {
        let mut daemon = Self::prepared(config);
        daemon.start();
        daemon
    }

    /// Ready to be started: for those who fill its folder first.
    pub fn prepared(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let daemon = Self { addr, dir, process: None, options: vec![] };
        daemon.configure(config);
        daemon
    }

    /// Replaces the configuration; the next start reads it.
    pub fn configure(&self, config: &str) {
        let common = format!(
            "image_path = \"{}\"\nport = {}\nlog_level = \"info\"\nuser = \"root\"\n",
            self.images().display(),
            self.addr.port()
        );
        // How full this machine's disk is changes no test.
        let prune = if config.contains("[prune]") { "" } else { "\n[prune]\nmin_free = \"0%\"\n" };
        std::fs::write(self.dir.path().join("ociregistry.toml"), common + config + prune).unwrap();
    }

    /// Options of `serve` for the next start.
    pub fn options(&mut self, options: &[&str]) {
        self.options = options.iter().map(ToString::to_string).collect();
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ociregistry.toml")
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn blob(&self, hex: &str) -> PathBuf {
        self.images().join("blobs").join(hex)
    }

    pub fn manifest(&self, hex: &str) -> PathBuf {
        self.images().join("img").join(hex)
    }

    pub fn command(&self) -> Command {
        let mut command = tied(BINARY);
        self.add_arguments(&mut command);
        command
    }

    /// Another command of the program, with the daemon's configuration.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tied(BINARY);
        command.arg("--config-file").arg(self.dir.path().join("ociregistry.toml")).args(arguments);
        run(command)
    }

    pub fn add_arguments(&self, command: &mut Command) {
        command
            .arg("--config-file")
            .arg(self.dir.path().join("ociregistry.toml"))
            .arg("serve")
            .args(&self.options);
    }

    pub fn start(&mut self) {
        self.start_by(self.command());
    }

    /// Starts by a command of the caller's, and waits for the first answer.
    pub fn start_by(&mut self, command: Command) {
        let addr = self.addr;
        let mut process = Process::spawn(command, &self.dir.path().join("log"));
        // Whatever it says: who may not pull is answered as well, and who does not speak TLS.
        process.wait_until("an answer", || get("/v2/").try_open(addr).is_some());
        self.process = Some(process);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }

    /// As a power cut would, except that what was written is still in the page cache.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    pub fn terminate(&mut self) -> ExitStatus {
        self.process().terminate()
    }

    pub fn restart(&mut self) {
        self.terminate();
        self.start();
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap()).into_owned()
    }

    pub fn get(&self, target: &str) -> Response {
        get(target).send(self.addr)
    }

    pub fn head(&self, target: &str) -> Response {
        head(target).send(self.addr)
    }

    pub fn send(&self, request: Request) -> Response {
        request.send(self.addr)
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// A line of /proc/PID/status, in KiB.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM")
    }

    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// Everything that was published, each file proven to be what its name says.
    #[track_caller]
    pub fn proven(&self) -> Vec<String> {
        let mut names = vec![];
        for folder in ["blobs", "img"] {
            for name in list(&self.images().join(folder)) {
                assert_eq!(file_hex(&self.images().join(folder).join(&name)), name, "{folder}");
                names.push(name);
            }
        }
        names
    }
}

/// The names in a folder; none where there is no folder.
pub fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![];
    };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
