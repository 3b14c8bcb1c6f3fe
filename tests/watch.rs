//! `ociregistry status --watch`: on a terminal in place, elsewhere one below the other.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::termios::LocalFlags;
use serde_json::Value;
use support::daemon::{BINARY, Daemon};
use support::process::{eventually, run, tied};
use support::terminal::Terminal;

fn watching(daemon: &Daemon, more: &[&str]) -> Command {
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(["status", "--watch"]).args(more);
    command
}

#[test]
fn where_there_is_no_terminal_one_follows_another_until_the_daemon_or_the_reader_goes() {
    let mut daemon = Daemon::configured("");
    let spawn = |more: &[&str]| {
        let mut child =
            watching(&daemon, more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        (child, lines)
    };
    let (mut blocks, mut lines) = spawn(&[]);
    let first = lines.next().unwrap();
    assert!(first.starts_with("ociregistry "), "{first}");
    let rest: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(rest.last().unwrap().starts_with("last error"), "{rest:?}");
    assert!(lines.next().unwrap().starts_with("ociregistry "));
    assert!(!rest.concat().contains('\u{1b}'));

    let (mut objects, mut values) = spawn(&["1", "--json"]);
    for _ in 0..2 {
        let value: Value = serde_json::from_str(&values.next().unwrap()).unwrap();
        assert_eq!(value["pid"], daemon.pid());
    }
    // Who reads has seen enough.
    drop(values);
    assert!(objects.wait().unwrap().success());

    daemon.terminate();
    lines.for_each(drop);
    assert_eq!(blocks.wait().unwrap().code(), Some(69));

    let output = daemon.run(&["status", "--watch", "0"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_terminal_shows_it_in_place_until_q() {
    let mut daemon = Daemon::configured("");
    let mut terminal = Terminal::of(&watching(&daemon, &[]), 30, 100);
    eventually("it is painted again and again", || terminal.frames().len() >= 3);
    assert!(!terminal.local_modes().intersects(LocalFlags::ICANON | LocalFlags::ECHO));
    assert!(terminal.shows("every 1 s; q ends"));
    let pid = format!("process {},", daemon.pid());
    assert!(terminal.shows(&pid), "{:?}", terminal.frames().last());
    // A daemon that has gone is waited for.
    daemon.terminate();
    eventually("it says so", || terminal.shows("as it was; "));
    daemon.start();
    let pid = format!("process {},", daemon.pid());
    eventually("it is back", || terminal.shows(&pid) && terminal.shows("every 1 s; q ends"));
    terminal.types(b"xq");
    let seen = terminal.ended();
    assert!(seen.starts_with("\u{1b}[?1049h\u{1b}[?25l"), "{seen:?}");
    assert!(seen.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{seen:?}");
    // Cleared as a whole it would flicker.
    assert!(!seen.contains("\u{1b}[2J"), "{seen:?}");
}

#[test]
fn a_narrow_and_low_terminal_is_not_broken_and_ctrl_c_ends_it() {
    let daemon = Daemon::configured("");
    let mut terminal = Terminal::of(&watching(&daemon, &["60"]), 10, 30);
    eventually("it is painted", || !terminal.frames().is_empty());
    let fits = |frame: &Vec<String>, rows: usize, columns: usize| {
        frame.len() <= rows && frame.iter().all(|line| line.chars().count() <= columns)
    };
    let frame = terminal.frames().pop().unwrap();
    assert!(fits(&frame, 10, 30) && frame.len() == 10, "{frame:#?}");
    assert!(
        frame.contains(&"…".to_owned()) && frame.contains(&"every 60 s; q ends".to_owned()),
        "{frame:#?}"
    );
    // It is painted anew as soon as it has another size.
    terminal.resize(50, 60);
    eventually("all fits", || terminal.shows("last error  none"));
    let frame = terminal.frames().pop().unwrap();
    assert!(fits(&frame, 50, 60) && frame.len() > 10, "{frame:#?}");
    terminal.types(&[3]);
    terminal.ended();
}

#[test]
fn once_on_a_terminal_it_fits() {
    let daemon = Daemon::configured("");
    let mut command = Command::new(BINARY);
    command.arg("--config-file").arg(daemon.file()).arg("status");
    let terminal = Terminal::of(&command, 10, 40);
    let seen = terminal.ended();
    assert!(seen.contains("last error  none") && !seen.contains('\u{1b}'), "{seen:?}");
    assert!(seen.lines().all(|line| line.chars().count() <= 40), "{seen}");
    let output = run({
        let mut command = Command::new(BINARY);
        command.arg("--config-file").arg(daemon.file()).args(["status", "--help"]);
        command
    });
    assert!(String::from_utf8_lossy(&output.stdout).contains("--watch [<SECONDS>]"));
}
