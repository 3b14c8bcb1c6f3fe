//! `make bench`: how fast, side by side with nginx serving the same bytes or caching them in our place, and with a
//! pull straight from the same upstream. Every figure is the median of five runs, ours and the peer's in turn; only the ratios mean anything
//! on another machine.

mod care;
mod content;
mod copier;
mod daemon;
mod full;
mod load;
mod nginx;
mod relay;
mod table;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use content::{Content, Image};
use daemon::Daemon;
use load::{Target, Work, run_for, run_once};
use nginx::Nginx;
use table::{Table, alternate};

const MIB: usize = 1 << 20;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| part == name);
    let folder = tempfile::Builder::new().prefix("ociregistry-bench-").tempdir().expect("a temporary folder");

    let mut table = Table::default();
    if wanted("care") {
        care::care(&mut table);
    }
    if only == ["care"] {
        return table.print();
    }
    let content = Content::make();
    let upstream = upstream::start(&content);
    let nginx = Nginx::of_files(&folder.path().join("nginx"), &content);

    if wanted("cached") {
        cached(folder.path(), &content, upstream, nginx.address, &mut table);
    }
    let uncached = Uncached::new(folder.path(), &content, upstream);
    if wanted("large") {
        uncached.large_blob(&mut table);
    }
    if wanted("small") {
        uncached.small_images(&mut table);
    }
    if wanted("far") {
        uncached.far_away(&mut table);
    }
    if wanted("memory") {
        memory(folder.path(), &content, upstream, &mut table);
    }
    if wanted("start") {
        start(folder.path(), upstream, &mut table);
    }
    table.print();
}

/// What is in the cache, beside nginx's files.
fn cached(folder: &Path, content: &Content, upstream: SocketAddr, nginx: SocketAddr, table: &mut Table) {
    let daemon = Daemon::start(&folder.join("cached"), upstream, "");
    for image in &content.images {
        run_once(daemon.address, &image.requests(), 1);
    }
    let image = &content.images[0];
    run_once(daemon.address, &[image.by_tag(), content.small.clone(), content.large.clone()], 1);
    daemon.settle();

    let second = Duration::from_secs(2);
    let mut rate = |name: &str, goal: f64, connections: usize, target: &Target| {
        let work = Work::Repeat(target.clone());
        let (ours, theirs) = alternate(
            || run_for(daemon.address, &work, connections, second),
            || run_for(nginx, &work, connections, second),
        );
        table.row(name, "nginx", ours, theirs, goal);
    };
    rate("cached manifest by digest, requests/s, 16 connections", 0.8, 16, &image.by_digest());
    rate("cached manifest by tag, requests/s, 16 connections", 0.8, 16, &image.by_tag());
    rate("cached blob of 1 MiB, requests/s, 4 connections", 0.8, 4, &content.small);
    rate("cached blob of 64 MiB, requests/s, 4 connections", 0.8, 4, &content.large);

    let work = Work::Images(content.images.iter().map(Image::requests).collect());
    let (ours, theirs) =
        alternate(|| run_for(daemon.address, &work, 10, second), || run_for(nginx, &work, 10, second));
    table.row("cached image pulls/s, 10 clients", "nginx", ours, theirs, 0.75);
}

/// What comes through us for the first time, beside the upstream itself; each time by a daemon with an empty cache.
struct Uncached<'a> {
    folder: PathBuf,
    content: &'a Content,
    upstream: SocketAddr,
    images: Vec<Vec<Target>>,
}

impl<'a> Uncached<'a> {
    fn new(folder: &Path, content: &'a Content, upstream: SocketAddr) -> Self {
        let images = content.images.iter().map(Image::requests).collect();
        Self { folder: folder.join("uncached"), content, upstream, images }
    }

    fn fresh(&self, upstream: SocketAddr) -> Daemon {
        // What the run before has left to be written is not this one's.
        nix::unistd::sync();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Daemon::start(&self.folder.join(number.to_string()), upstream, "")
    }

    fn images_per_second(&self, address: SocketAddr, count: usize) -> f64 {
        let some = &self.images[..count.min(self.images.len())];
        let begun = Instant::now();
        load::run_all(address, some, 10);
        some.len() as f64 / begun.elapsed().as_secs_f64()
    }

    fn bytes_per_second(&self, address: SocketAddr) -> f64 {
        let begun = Instant::now();
        run_once(address, std::slice::from_ref(&self.content.huge), 1);
        self.content.huge.length as f64 / begun.elapsed().as_secs_f64() / MIB as f64
    }

    fn small_images(&self, table: &mut Table) {
        let rate = |address| self.images_per_second(address, usize::MAX);
        let (ours, theirs) = alternate(|| rate(self.fresh(self.upstream).address), || rate(self.upstream));
        table.row("uncached image pulls/s, 10 clients", "straight", ours, theirs, 0.25);
        let proxy = || {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            Nginx::caching_proxy(&self.folder.join(number.to_string()), self.upstream)
        };
        let (ours, theirs) = alternate(|| rate(self.fresh(self.upstream).address), || rate(proxy().address));
        table.beside("uncached image pulls/s, 10 clients", "nginx as a caching proxy", ours, theirs);
        let copier = || {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            copier::start(&self.folder.join(number.to_string()), self.upstream)
        };
        let (ours, theirs) = alternate(|| rate(self.fresh(self.upstream).address), || rate(copier()));
        table.beside("uncached image pulls/s, 10 clients", "a bare copier", ours, theirs);
    }

    fn large_blob(&self, table: &mut Table) {
        let rate = |address| self.bytes_per_second(address);
        let (ours, theirs) = alternate(|| rate(self.fresh(self.upstream).address), || rate(self.upstream));
        table.row("uncached blob of 128 MiB, MiB/s", "straight", ours, theirs, 0.25);
    }

    /// 20 ms of round trip and 400 Mbit/s between us and upstream.
    fn far_away(&self, table: &mut Table) {
        let far = relay::start(self.upstream, Duration::from_millis(10), 400_000_000 / 8);
        let rate = |address| self.bytes_per_second(address);
        let (ours, theirs) = alternate(|| rate(self.fresh(far).address), || rate(far));
        let name = "uncached blob of 128 MiB over 20 ms and 400 Mbit/s, s";
        table.time(name, "straight", 128.0 / ours, 128.0 / theirs, 1.03);
        let rate = |address| self.images_per_second(address, 100);
        let (ours, theirs) = alternate(|| rate(self.fresh(far).address), || rate(far));
        table.row("uncached image pulls/s over 20 ms, 10 clients", "straight", ours, theirs, 1.0);
    }
}

/// Of the folders, each of a cache of its own.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

fn memory(folder: &Path, content: &Content, upstream: SocketAddr, table: &mut Table) {
    let daemon = Daemon::start(&folder.join("memory"), upstream, "");
    run_once(daemon.address, &content.images[0].requests(), 1);
    table.bound("memory when idle, MB", daemon.memory("VmRSS") / 1e6, 15.0);
    run_once(daemon.address, std::slice::from_ref(&content.large), 1);
    let work = Work::Repeat(content.large.clone());
    run_for(daemon.address, &work, 100, Duration::from_secs(5));
    table.bound("peak memory with 100 clients on a blob of 64 MiB, MB", daemon.memory("VmHWM") / 1e6, 64.0);
}

fn start(folder: &Path, upstream: SocketAddr, table: &mut Table) {
    let (full, empty) = (folder.join("start-full"), folder.join("start-empty"));
    Daemon::start(&full, upstream, "").fill(1_000_000, 100_000);
    let time = |folder| {
        let begun = Instant::now();
        let _daemon = Daemon::start(folder, upstream, "");
        begun.elapsed().as_secs_f64() * 1e3
    };
    let (full, empty) = alternate(|| time(&full), || time(&empty));
    table.bound("start to first answer, ms", empty, 50.0);
    table.time("start to first answer with 1,100,000 files, ms", "empty", full, empty, 1.1);
}
