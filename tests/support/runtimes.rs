//! The clients that pull from us in earnest, each with folders and sockets of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::layout::Image;
use super::process::{Process, eventually, limited, run, succeed, tied};

pub struct Containerd {
    dir: TempDir,
    process: Process,
}

impl Containerd {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let config = format!(
            r#"version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{0}/sock"
"#,
            path.display()
        );
        std::fs::write(path.join("config.toml"), config).unwrap();
        let mut command = tied("containerd");
        command.arg("-c").arg(path.join("config.toml"));
        let mut process = Process::spawn(command, &path.join("log"));
        process
            .wait_until("the socket", || std::os::unix::net::UnixStream::connect(path.join("sock")).is_ok());
        Self { dir, process }
    }

    /// A hosts.toml as our documentation shows it: `registry` goes through the mirror at `addr`.
    pub fn mirror(&self, registry: &str, addr: SocketAddr) {
        self.hosts(
            registry,
            &format!("[host.\"http://{addr}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        );
    }

    /// Nothing but `text` in a registry's hosts.toml, and no way past it to the registry itself.
    pub fn hosts(&self, registry: &str, text: &str) {
        let folder = self.dir.path().join("certs.d").join(registry);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts.toml"), format!("server = \"http://127.0.0.1:9\"\n{text}"))
            .unwrap();
    }

    fn ctr(&self) -> Command {
        let mut command = limited("ctr");
        command.arg("--address").arg(self.dir.path().join("sock"));
        command
    }

    pub fn pull(&self, reference: &str) -> String {
        succeed(self.pulling(reference, &self.dir.path().join("certs.d")))
    }

    /// The command that pulls with the hosts.toml below a folder of the caller's.
    pub fn pulling(&self, reference: &str, certs_d: &Path) -> Command {
        let mut command = self.ctr();
        command
            .args(["images", "pull", "--snapshotter", "native", "--hosts-dir"])
            .arg(certs_d)
            .arg(reference);
        command
    }

    /// What the image's command says.
    pub fn run(&self, reference: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let container = format!("c{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let mut command = self.ctr();
        command.args(["run", "--rm", "--snapshotter", "native", reference, &container]);
        succeed(command)
    }

    /// Forgets image and content, so that the next pull fetches all of it.
    pub fn remove(&self, reference: &str) {
        let mut command = self.ctr();
        command.args(["images", "rm", "--sync", reference]);
        succeed(command);
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.terminate();
    }
}

pub struct Podman {
    dir: TempDir,
    /// What it sees as /etc/containers.
    configuration: Option<PathBuf>,
}

impl Podman {
    /// Plain http to `addr`, and every one of `mirrored` through it.
    pub fn new(addr: SocketAddr, mirrored: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = format!("[[registry]]\nlocation = \"{addr}\"\ninsecure = true\n");
        for registry in mirrored {
            config += &format!(
                "[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \
                 \"{addr}/{registry}\"\ninsecure = true\n"
            );
        }
        std::fs::write(dir.path().join("registries.conf"), config).unwrap();
        policy(dir.path());
        Self { dir, configuration: None }
    }

    /// With the files of this folder as /etc/containers, in a mount namespace of its own.
    pub fn with_etc(configuration: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        policy(dir.path());
        Self { dir, configuration: Some(configuration.to_owned()) }
    }

    /// Fetches only the files that it has not got of a layer in the format zstd:chunked.
    pub fn partial(addr: SocketAddr) -> Self {
        let podman = Self::new(addr, &[]);
        let path = podman.dir.path();
        let config = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n\
             [storage.options]\npull_options = {{enable_partial_images = \"true\"}}\n",
            path.display()
        );
        std::fs::write(path.join("storage.conf"), config).unwrap();
        podman
    }

    /// Where the files of an image of one layer are.
    pub fn files(&self) -> PathBuf {
        let mut layers = std::fs::read_dir(self.dir.path().join("root/overlay")).unwrap();
        layers
            .find_map(|layer| Some(layer.unwrap().path().join("diff")).filter(|diff| diff.is_dir()))
            .unwrap()
    }

    fn podman(&self) -> Command {
        let path = self.dir.path();
        let mut command = match &self.configuration {
            Some(folder) => seeing("podman", folder),
            None => {
                let mut command = limited("podman");
                command.env("CONTAINERS_REGISTRIES_CONF", path.join("registries.conf"));
                command
            }
        };
        let storage = path.join("storage.conf");
        if storage.exists() {
            command.env("CONTAINERS_STORAGE_CONF", storage);
        } else {
            command.arg("--root").arg(path.join("root")).arg("--runroot").arg(path.join("run"));
            command.args(["--storage-driver", "vfs"]);
        }
        command.arg("--tmpdir").arg(path.join("tmp"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
    }

    pub fn pull(&self, reference: &str) -> String {
        succeed(self.pulling(reference))
    }

    pub fn pulling(&self, reference: &str) -> Command {
        let mut command = self.podman();
        command.arg("pull").arg("--signature-policy").arg(self.dir.path().join("policy.json")).arg(reference);
        command
    }

    pub fn remove(&self, reference: &str) {
        let mut command = self.podman();
        command.args(["rmi", "--force", reference]);
        succeed(command);
    }
}

/// A program that sees the files of this folder as /etc/containers, in a mount namespace of its own.
pub fn seeing(program: &str, folder: &Path) -> Command {
    let mut command = limited("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/containers && exec \"$@\""]);
    command.arg(folder).arg(program);
    command
}

/// Debian keeps its policy elsewhere than others do; ours accepts everything.
fn policy(dir: &Path) {
    std::fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
}

pub struct Skopeo {
    dir: TempDir,
}

impl Skopeo {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        policy(dir.path());
        Self { dir }
    }

    fn skopeo(&self) -> Command {
        let mut command = limited("skopeo");
        command.arg("--policy").arg(self.dir.path().join("policy.json"));
        command
    }

    pub fn inspect(&self, reference: &str) -> serde_json::Value {
        let mut command = self.skopeo();
        command.args(["inspect", "--tls-verify=false", "--no-tags", &format!("docker://{reference}")]);
        serde_json::from_str(&succeed(command)).unwrap()
    }

    /// Pushes to a registry without TLS, the layers compressed in this format.
    pub fn push(&self, image: &Image, to: &str, format: &str) {
        let from = self.dir.path().join("image");
        std::fs::create_dir_all(&from).unwrap();
        std::fs::write(from.join("version"), "Directory Transport Version: 1.1\n").unwrap();
        std::fs::write(from.join("manifest.json"), &*image.manifest.bytes).unwrap();
        for blob in image.blobs() {
            std::fs::write(from.join(blob.hex()), blob.bytes()).unwrap();
        }
        let mut command = self.skopeo();
        command.args(["copy", "--dest-tls-verify=false", "--dest-compress-format", format]);
        command.args([format!("dir:{}", from.display()), format!("docker://{to}")]);
        succeed(command);
    }

    pub fn list_tags(&self, repository: &str) -> serde_json::Value {
        let mut command = self.skopeo();
        command.args(["list-tags", "--tls-verify=false", &format!("docker://{repository}")]);
        serde_json::from_str(&succeed(command)).unwrap()
    }

    /// Copies to a folder, which holds each blob under its hex and the manifest as `manifest.json`.
    pub fn copy(&self, reference: &str, options: &[&str]) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let to = self.dir.path().join(format!("copy-{}", COUNT.fetch_add(1, Ordering::SeqCst)));
        let mut command = self.skopeo();
        command
            .arg("copy")
            .args(options)
            .arg(format!("docker://{reference}"))
            .arg(format!("dir:{}", to.display()));
        succeed(command);
        to
    }
}

pub struct Dockerd {
    dir: TempDir,
    process: Process,
}

impl Dockerd {
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.json");
        std::fs::write(&file, "{}").unwrap();
        Self::start_in(dir, &file, options)
    }

    pub fn configured(file: &Path) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), file, &[])
    }

    fn start_in(dir: TempDir, file: &Path, options: &[&str]) -> Self {
        let path = dir.path();
        let mut command = tied("dockerd");
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(path.join(name));
        }
        command.arg("--config-file").arg(file);
        command.arg("--host").arg(format!("unix://{}", path.join("sock").display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
        command.args(options);
        let mut process = Process::spawn(command, &path.join("log"));
        process.wait_until("docker info", || run(docker(path, &["info"])).status.success());
        Self { dir, process }
    }

    pub fn pull(&self, reference: &str) -> String {
        succeed(docker(self.dir.path(), &["pull", reference]))
    }

    /// As `systemctl reload docker` does; waits until it says that it knows `mirror`.
    pub fn reload(&self, mirror: &str) {
        self.process.signal(Signal::SIGHUP);
        let info = || succeed(docker(self.dir.path(), &["info", "--format", "{{.RegistryConfig.Mirrors}}"]));
        eventually("docker's mirrors", || info().contains(mirror));
    }

    pub fn remove(&self, reference: &str) {
        succeed(docker(self.dir.path(), &["rmi", "--force", reference]));
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn docker(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = limited("docker");
    command.arg("--config").arg(dir).arg("--host").arg(format!("unix://{}", dir.join("sock").display()));
    command.args(arguments);
    command
}

/// In good order: it has a containerd of its own to end.
impl Drop for Dockerd {
    fn drop(&mut self) {
        self.process.terminate();
    }
}
