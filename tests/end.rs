//! The daemon's end in the middle of its work.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use support::cache::blob;
use support::client::{End, get};
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::eventually;
use support::systemd::Manager;
use support::upstream::Upstream;

#[test]
fn an_answer_that_outlives_the_drain_is_closed_in_good_order_and_goes_on_after_a_restart() {
    let image = Image::of_size(1, 12 * MIB);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::prepared(&entry("docker.io", &upstream));
    let manager = Manager::listen(daemon.dir.path());
    let mut command = daemon.command();
    manager.manage(&mut command);
    command.env("WATCHDOG_USEC", "1500000");
    daemon.start_by(command);
    let held = 8 * MIB;
    upstream.hold(&layer.digest, held);
    let target = blob("library/app", &layer.digest);
    let mut stream = get(&target).open(daemon.addr);
    let begun = stream.read_to(7 * MIB);

    daemon.process().signal(Signal::SIGTERM);
    let (_, got, end) = stream.digest(Sha256::new());
    assert_eq!((got, end), (held, End::Short));
    assert!(daemon.process().wait().success());
    let heard = manager.drain();
    let stopping = heard.iter().position(|line| line == "STOPPING=1").unwrap();
    let more_time = |line: &&String| line.starts_with("EXTEND_TIMEOUT_USEC=");
    assert!(heard[stopping..].iter().filter(more_time).count() >= 2, "{heard:?}");
    let log = daemon.log();
    assert!(log.contains(&format!("status=200 bytes={held} ")), "{log}");
    assert!(log.contains(" cut=\"the daemon ended\""), "{log}");
    assert!(!log.contains("ERROR"), "{log}");

    upstream.forget();
    upstream.release(&layer.digest);
    daemon.start();
    let rest = daemon.send(get(&target).range(&format!("bytes={}-", begun.len()))).is(206);
    assert!([begun, rest.body].concat() == layer.bytes());
    let asked = upstream.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].header("range"), Some(&*format!("bytes={held}-{}", layer.size() - 1)));
    eventually("it is whole", || daemon.blob(layer.hex()).exists());
}
