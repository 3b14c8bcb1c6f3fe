//! `ociregistry status --watch`: on a terminal in place, elsewhere one below the other.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;
use support::daemon::{BINARY, Daemon};
use support::process::{eventually, run, tied};

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

/// A terminal with a program on it.
struct Terminal {
    child: Child,
    keys: File,
    /// Our end of the program's side.
    inside: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn of(command: &Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        // Signals of the terminal go to the session that it belongs to.
        let mut leader = tied("setsid");
        leader.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut output = File::from(pair.master.try_clone().unwrap());
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let into = seen.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                into.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { child, keys: File::from(pair.master), inside: pair.slave, seen }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// What was painted at a time, without what steers the terminal.
    fn frames(&self) -> Vec<Vec<String>> {
        let seen = self.seen();
        let frames =
            seen.split("\u{1b}[?2026h\u{1b}[H").skip(1).filter_map(|rest| rest.split_once("\u{1b}[?2026l"));
        let lines = |(frame, _): (&str, &str)| {
            frame
                .replace("\u{1b}[K", "")
                .replace("\u{1b}[J", "")
                .lines()
                .map(|line| line.trim_end_matches('\r').to_owned())
                .collect()
        };
        frames.map(lines).collect()
    }

    fn shows(&self, text: &str) -> bool {
        self.frames().last().is_some_and(|frame| frame.iter().any(|line| line.contains(text)))
    }

    fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    fn local_modes(&self) -> LocalFlags {
        tcgetattr(&self.inside).unwrap().local_flags
    }

    /// What all of it was, once the program has ended well.
    fn ended(mut self) -> String {
        assert!(self.child.wait().unwrap().success(), "{}", self.seen());
        let modes = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        assert!(self.local_modes().contains(modes), "keys are not read as before");
        // Behind all that it wrote.
        let mut inside = File::from(self.inside.try_clone().unwrap());
        inside.write_all(b"<end>").unwrap();
        eventually("all of it is read", || self.seen().ends_with("<end>"));
        self.seen().trim_end_matches("<end>").to_owned()
    }
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
    let size = rustix::termios::Winsize { ws_row: 50, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal.keys, size).unwrap();
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
