//! What a reload says is in force: it really is, and what must not come in force does not.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::os::unix::net::UnixStream;
use std::process::Command;

use support::cache::err;
use support::daemon::{BINARY, Daemon};
use support::process::{Process, free_port, tied};

const SECRET_ENTRY: &str = "[[registries]]\nname = \"a.b\"\nauth = { user = \"me\", password = \"word\" }\n";

/// A command in a network of its own: it may listen on all addresses there.
fn apart(program: &[&str]) -> Command {
    let mut command = tied("unshare");
    command.arg("--net").args(program);
    command
}

fn spawn(daemon: &Daemon, command: Command) -> Process {
    Process::spawn(command, &daemon.dir.path().join("log"))
}

#[track_caller]
fn refused_as_open_to_others(daemon: &Daemon) {
    let output = daemon.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let error = err(&output);
    assert!(error.contains("can be reached by others") && error.contains("`a.b`"), "{error}");
}

#[test]
fn credentials_are_not_put_in_force_at_an_address_that_is_open_since_the_start() {
    needs!("unshare");
    let daemon = Daemon::prepared("host = \"0.0.0.0\"");
    let mut command = apart(&[BINARY]);
    daemon.add_arguments(&mut command);
    let mut process = spawn(&daemon, command);
    process.wait_until("the start", || daemon.log().contains("server is running"));
    // By itself the file is right: it would listen on loopback.
    daemon.configure(SECRET_ENTRY);
    assert!(daemon.run(&["config", "check"]).status.success());
    refused_as_open_to_others(&daemon);
    daemon.configure(&format!("clients = [\"192.0.2.1\"]\n{SECRET_ENTRY}"));
    assert!(daemon.run(&["reload"]).status.success());
    // Nor is what made that safe taken away.
    daemon.configure(SECRET_ENTRY);
    refused_as_open_to_others(&daemon);
}

#[test]
fn nor_at_a_socket_of_systemd() {
    needs!("unshare", "systemd-socket-activate");
    let daemon = Daemon::prepared("");
    let unix = daemon.dir.path().join("pull.sock");
    let tcp = format!("0.0.0.0:{}", free_port());
    let mut command = apart(&["systemd-socket-activate", "-l", &tcp, "-l", unix.to_str().unwrap(), BINARY]);
    daemon.add_arguments(&mut command);
    let mut process = spawn(&daemon, command);
    let mut first = None;
    process.wait_until("the start", || {
        first = first.take().or_else(|| UnixStream::connect(&unix).ok());
        daemon.log().contains("server is running")
    });
    daemon.configure(SECRET_ENTRY);
    refused_as_open_to_others(&daemon);
    daemon.configure(&format!("open = true\n{SECRET_ENTRY}"));
    assert!(daemon.run(&["reload"]).status.success());
}
