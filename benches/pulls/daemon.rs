//! The real daemon, as it is built for release.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Daemon {
    pub address: SocketAddr,
    child: Child,
    cache: std::path::PathBuf,
}

impl Daemon {
    /// Starts it over a cache folder, with its default registry at `upstream`, and waits for its first answer.
    pub fn start(folder: &Path, upstream: SocketAddr, more: &str) -> Self {
        std::fs::create_dir_all(folder).expect("make a folder");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let file = folder.join("config.toml");
        let cache = folder.join("cache");
        let configuration = format!(
            "image_path = \"{}\"\nport = {}\nuser = \"root\"\ndefault_ns = \"bench.example\"\n{more}\n\
             [[registries]]\nname = \"bench.example\"\nurl = \"http://{upstream}\"\n",
            cache.display(),
            address.port()
        );
        std::fs::write(&file, configuration).expect("write a file");
        let child = Command::new(env!("CARGO_BIN_EXE_ociregistry"))
            .arg("--config-file")
            .arg(&file)
            .arg("serve")
            .args(std::env::var("BENCH_LOG_LEVEL").map(|level| format!("--log-level={level}")))
            .stdout(Stdio::null())
            .spawn()
            .expect("start the daemon");
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
        let daemon = Self { address, child, cache };
        crate::load::Client::connect(address)
            .get(&crate::load::Target { path: "/v2/".to_owned(), length: 2 });
        daemon
    }

    /// Waits until all that was pulled is in its place.
    pub fn settle(&self) {
        loop {
            let mut left = std::fs::read_dir(self.cache.join("partial")).expect("list partial/");
            if left.next().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts so many empty files under `blobs/` and `img/`, named as theirs are.
    pub fn fill(&self, blobs: usize, manifests: usize) {
        crate::full::fill(&self.cache.join("blobs"), blobs);
        crate::full::fill(&self.cache.join("img"), manifests);
    }

    /// A figure of /proc/<pid>/status, in bytes.
    pub fn memory(&self, field: &str) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("read the status");
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("the field");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    }
}

/// Its cache stays until all is done: ext4 is slow to make files where many have just been deleted.
impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
