//! `make bench`: how fast, side by side with nginx serving the same bytes or caching them in our place, and with a
//! pull straight from the same upstream. Every figure is the median of five runs, ours and the peer's in turn; only the ratios mean anything
//! on another machine.

mod care;
mod content;
mod daemon;
mod full;
mod load;
mod nginx;
mod relay;
mod table;
mod upstream;

use std::net::SocketAddr;
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
    if wanted("uncached") {
        uncached(folder.path(), &content, upstream, &mut table);
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
fn cached(
    folder: &std::path::Path,
    content: &Content,
    upstream: SocketAddr,
    nginx: SocketAddr,
    table: &mut Table,
) {
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

/// What comes through us for the first time, beside the upstream itself.
fn uncached(folder: &std::path::Path, content: &Content, upstream: SocketAddr, table: &mut Table) {
    let mut number = 0;
    let mut fresh = |upstream| {
        number += 1;
        // What the run before has left to be written is not this one's.
        nix::unistd::sync();
        Daemon::start(&folder.join(format!("uncached-{number}")), upstream, "")
    };
    let all: Vec<_> = content.images.iter().map(Image::requests).collect();
    let images = |address| {
        let begun = Instant::now();
        load::run_all(address, &all, 10);
        all.len() as f64 / begun.elapsed().as_secs_f64()
    };
    let (ours, theirs) = alternate(|| images(fresh(upstream).address), || images(upstream));
    table.row("uncached image pulls/s, 10 clients", "straight", ours, theirs, 0.25);
    let mut proxies = 0;
    let mut proxy = || {
        proxies += 1;
        Nginx::caching_proxy(&folder.join(format!("proxy-{proxies}")), upstream)
    };
    let (ours, theirs) = alternate(|| images(fresh(upstream).address), || images(proxy().address));
    table.beside("uncached image pulls/s, 10 clients", "nginx as a caching proxy", ours, theirs);

    let bytes_per_second = |address| {
        let begun = Instant::now();
        run_once(address, std::slice::from_ref(&content.huge), 1);
        content.huge.length as f64 / begun.elapsed().as_secs_f64() / MIB as f64
    };
    let (ours, theirs) =
        alternate(|| bytes_per_second(fresh(upstream).address), || bytes_per_second(upstream));
    table.row("uncached blob of 128 MiB, MiB/s", "straight", ours, theirs, 0.25);

    // 20 ms of round trip and 400 Mbit/s between us and upstream.
    let far = relay::start(upstream, Duration::from_millis(10), 400_000_000 / 8);
    let (ours, theirs) = alternate(|| bytes_per_second(fresh(far).address), || bytes_per_second(far));
    table.time(
        "uncached blob of 128 MiB over 20 ms and 400 Mbit/s, s",
        "straight",
        128.0 / ours,
        128.0 / theirs,
        1.03,
    );

    let some = &all[..100.min(all.len())];
    let images = |address| {
        let begun = Instant::now();
        load::run_all(address, some, 10);
        some.len() as f64 / begun.elapsed().as_secs_f64()
    };
    let (ours, theirs) = alternate(|| images(fresh(far).address), || images(far));
    table.row("uncached image pulls/s over 20 ms, 10 clients", "straight", ours, theirs, 1.0);
}

fn memory(folder: &std::path::Path, content: &Content, upstream: SocketAddr, table: &mut Table) {
    let daemon = Daemon::start(&folder.join("memory"), upstream, "");
    run_once(daemon.address, &content.images[0].requests(), 1);
    table.bound("memory when idle, MB", daemon.memory("VmRSS") / 1e6, 15.0);
    run_once(daemon.address, std::slice::from_ref(&content.large), 1);
    let work = Work::Repeat(content.large.clone());
    run_for(daemon.address, &work, 100, Duration::from_secs(5));
    table.bound("peak memory with 100 clients on a blob of 64 MiB, MB", daemon.memory("VmHWM") / 1e6, 64.0);
}

fn start(folder: &std::path::Path, upstream: SocketAddr, table: &mut Table) {
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
