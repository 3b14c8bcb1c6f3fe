//! A terminal, and what a program shows on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::process::{eventually, tied};

/// A terminal with a program on it.
pub struct Terminal {
    child: Child,
    keys: File,
    /// Our end of the program's side.
    inside: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn of(command: &Command, rows: u16, columns: u16) -> Self {
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

    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// What was painted at a time, without what steers the terminal.
    pub fn frames(&self) -> Vec<Vec<String>> {
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

    pub fn shows(&self, text: &str) -> bool {
        self.frames().last().is_some_and(|frame| frame.iter().any(|line| line.contains(text)))
    }

    pub fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keys, size).unwrap();
    }

    pub fn local_modes(&self) -> LocalFlags {
        tcgetattr(&self.inside).unwrap().local_flags
    }

    /// What all of it was, once the program has ended well.
    pub fn ended(mut self) -> String {
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
