//! What a process asks of the kernel, as strace tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::process::{Process, eventually, tied};

/// One system call, with the lines on which it began and ended.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub arguments: String,
    pub begun: usize,
    pub ended: usize,
}

impl Call {
    /// The path of the descriptor that it begins with (strace -y).
    pub fn descriptor(&self) -> Option<&str> {
        let (_, rest) = self.arguments.split_once('<')?;
        rest.split_once('>').map(|(path, _)| path)
    }

    /// The paths that are given as strings.
    pub fn paths(&self) -> Vec<&str> {
        self.arguments.split('"').skip(1).step_by(2).collect()
    }
}

/// strace on a process that runs.
pub struct Trace {
    process: Process,
    file: PathBuf,
}

impl Trace {
    pub fn attach(pid: u32, dir: &Path, calls: &str) -> Self {
        Self::with(&[&format!("trace={calls}")], pid, dir)
    }

    /// While it lasts, every such call is an input/output error.
    pub fn failing(pid: u32, dir: &Path, call: &str) -> Self {
        Self::with(&[&format!("trace={call}"), &format!("inject={call}:error=EIO")], pid, dir)
    }

    fn with(expressions: &[&str], pid: u32, dir: &Path) -> Self {
        let (file, log) = (dir.join("trace"), dir.join("strace.log"));
        let mut command = tied("strace");
        command.args(["-f", "-y", "-s", "400"]);
        for expression in expressions {
            command.args(["-e", expression]);
        }
        command.args(["-p", &pid.to_string(), "-o"]).arg(&file);
        let mut process = Process::spawn(command, &log);
        let attached = || std::fs::read_to_string(&log).unwrap_or_default().contains("attached");
        process.wait_until("strace attached", attached);
        Self { process, file }
    }

    pub fn so_far(&self) -> Vec<Call> {
        read(&self.file)
    }

    pub fn finish(mut self) -> Vec<Call> {
        self.process.signal(Signal::SIGINT);
        self.process.wait();
        read(&self.file)
    }
}

/// A command that runs `program` under strace from its first call on. The traced process is the one that is started.
pub fn traced(program: &str, file: &Path, calls: &str) -> Command {
    let mut command = tied("strace");
    command
        .args(["-D", "-f", "-y", "-s", "400", "-e", &format!("trace={calls}"), "-o"])
        .arg(file)
        .arg(program);
    command
}

/// Every call that has ended.
pub fn read(file: &Path) -> Vec<Call> {
    eventually("a trace", || file.exists());
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    let (mut calls, mut unfinished) = (vec![], std::collections::HashMap::new());
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, begun, arguments)) = unfinished.remove(thread) else {
                continue;
            };
            let more = resumed.split_once("resumed>").map_or("", |(_, more)| more);
            calls.push(Call { name, arguments: format!("{arguments}{more}"), begun, ended: number });
        } else if let Some((name, arguments)) = rest.split_once('(') {
            match arguments.split_once("<unfinished ...>") {
                Some((arguments, _)) => {
                    unfinished.insert(thread, (name.to_string(), number, arguments.to_string()));
                }
                None => {
                    let (name, arguments) = (name.to_string(), arguments.to_string());
                    calls.push(Call { name, arguments, begun: number, ended: number });
                }
            }
        }
    }
    calls
}
