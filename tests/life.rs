//! The daemon's life: what systemd hears of it, from its start to its end.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::Permissions;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Group, Pid, User};
use support::client::{connect, get};
use support::daemon::{BINARY, Daemon};
use support::process::{Process, eventually, free_port, tied};
use support::systemd::Manager;
use support::tls::Ca;

#[test]
fn systemd_hears_of_readiness_once_requests_are_answered_and_of_the_end() {
    let daemon = Daemon::prepared("");
    let manager = Manager::listen(daemon.dir.path());
    let mut command = daemon.command();
    manager.manage(&mut command);
    let mut process = Process::spawn(command, &daemon.dir.path().join("log"));
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1");
    assert_eq!(ready[1], "STATUS=0 images, 0 B; nothing under way");
    get("/v2/").send(daemon.addr).is(200);
    assert!(process.terminate().success());
    let stopping = manager.next();
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(stopping.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{stopping:?}");
}

#[test]
fn a_request_on_its_way_when_the_end_comes_is_answered_and_is_the_last() {
    let mut daemon = Daemon::configured("");
    let connection = connect(daemon.addr);
    // The one behind it in line was answered: it was let in.
    get("/v2/").send(daemon.addr).is(200);
    daemon.process().signal(Signal::SIGTERM);
    eventually("it is told", || daemon.log().contains("server is ending"));
    let (answer, mut connection) = get("/v2/").open_on(connection, "host").whole_and_connection();
    answer.is(200);
    assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    assert!(daemon.process().wait().success());
}

/// The thread of that name.
fn thread(pid: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named =
        |path: &std::path::PathBuf| std::fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let path = tasks.map(|task| task.unwrap().path()).find(named).expect(name);
    Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

#[test]
fn the_watchdog_hears_of_life_only_while_every_thread_answers() {
    needs!();
    let mut daemon = Daemon::prepared("");
    let manager = Manager::listen(daemon.dir.path());
    let mut command = daemon.command();
    manager.manage(&mut command);
    command.env("WATCHDOG_USEC", "300000");
    daemon.start_by(command);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    assert!(!daemon.log().contains("ip=probe"), "{}", daemon.log());

    let stuck = thread(daemon.pid(), "serve-0");
    ptrace::seize(stuck, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(stuck).unwrap();
    waitpid(stuck, Some(WaitPidFlag::__WALL)).unwrap();
    let complaints = || daemon.log().matches("has not answered for").count();
    eventually("it is noticed", || complaints() > 0);
    let noticed = complaints();
    manager.drain();
    eventually("it is noticed again", || complaints() > noticed + 1);
    let heard = manager.drain();
    assert!(!heard.contains(&"WATCHDOG=1".to_owned()), "{heard:?}");

    ptrace::detach(stuck, None).unwrap();
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn a_second_daemon_on_the_same_cache_is_told_who_has_it() {
    let mut first = Daemon::configured("");
    let second = Daemon::prepared("");
    let port = second.addr.port().to_string();
    let output = first.run(&["serve", "--port", &port]);
    assert_eq!(output.status.code(), Some(75));
    let (pid, socket) = (first.pid(), first.images().join("admin.sock"));
    let holder = format!("is in use by process {pid}, which takes commands at {}", socket.display());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&holder), "{error}");
    first.get("/v2/").is(200);
    assert!(first.terminate().success());
    assert!(!socket.exists());
}

/// A second daemon on a cache, with a port of its own; when this returns it waits for the first to go.
fn waiting(first: &Daemon) -> (Process, SocketAddr) {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(first.file()).args(["serve", "--port", &addr.port().to_string()]);
    let mut process = Process::spawn(command, &first.dir.path().join("second.log"));
    // Sockets come before the lock.
    process.wait_until("it listens", || std::net::TcpStream::connect(addr).is_ok());
    (process, addr)
}

#[test]
fn a_second_daemon_takes_over_when_the_first_goes() {
    let mut first = Daemon::configured("");
    let (mut second, addr) = waiting(&first);
    assert!(first.terminate().success());
    second.wait_until("an answer", || get("/v2/").try_open(addr).is_some());
    assert!(second.terminate().success());
}

#[test]
fn a_hangup_before_the_start_is_over_is_a_reload_after_it() {
    let mut first = Daemon::configured("");
    let (mut second, _) = waiting(&first);
    second.signal(Signal::SIGHUP);
    assert!(first.terminate().success());
    second.wait_until("the reload", || second_log(&first).contains("the configuration was read anew"));
    assert!(second.terminate().success());
}

fn second_log(first: &Daemon) -> String {
    std::fs::read_to_string(first.dir.path().join("second.log")).unwrap_or_default()
}

#[test]
fn it_serves_though_nobody_takes_its_banner() {
    let mut daemon = Daemon::prepared("");
    for output in [">/dev/full", ">&-"] {
        let mut command = tied("sh");
        command.args(["-c", &format!("exec \"$0\" \"$@\" {output}"), BINARY]);
        daemon.add_arguments(&mut command);
        daemon.start_by(command);
        assert!(daemon.terminate().success());
    }
}

#[test]
fn what_a_command_of_root_makes_in_a_cache_belongs_to_the_owner_of_that() {
    needs!();
    let mut daemon = Daemon::prepared("");
    std::fs::set_permissions(daemon.dir.path(), Permissions::from_mode(0o755)).unwrap();
    daemon.options(&["--user", "nobody", "--group", "nogroup"]);
    daemon.start();
    assert!(daemon.terminate().success());
    let (lock, references) = (daemon.images().join("lock"), daemon.images().join("refs"));
    std::fs::remove_file(&lock).unwrap();
    std::fs::remove_dir(&references).unwrap();
    assert!(daemon.run(&["pin", "nginx"]).status.success());
    let owner = std::fs::metadata(daemon.images()).unwrap();
    assert_ne!(owner.uid(), 0);
    for path in [&lock, &references, &daemon.images().join("pins.json")] {
        let made = std::fs::metadata(path).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()), "{}", path.display());
    }
    daemon.start();
    assert!(daemon.terminate().success());
    // Nor is root led to a file of its own by what that owner has put there.
    let own = daemon.dir.path().join("own");
    std::fs::write(&own, "root's").unwrap();
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&own, &lock).unwrap();
    for command in [&["pin", "nginx"][..], &["prune", "--blobs"], &["check", "--repair"]] {
        assert!(!daemon.run(command).status.success());
        assert_eq!(std::fs::read(&own).unwrap(), b"root's");
    }
}

#[test]
fn who_may_pull_does_not_concern_the_watchdog() {
    let daemon = Daemon::prepared("");
    let users = daemon.dir.path().join("users");
    std::fs::write(&users, "me:$2y$05$abcdefghijklmnopqrstuuwqK6CQQqV9kkgeZjHZqKsbLVZ1l4kUK\n").unwrap();
    daemon.configure(&format!("clients = [\"192.0.2.1\"]\nhtpasswd = {users:?}"));
    let manager = Manager::listen(daemon.dir.path());
    let mut command = daemon.command();
    manager.manage(&mut command);
    command.env("WATCHDOG_USEC", "300000");
    let _process = Process::spawn(command, &daemon.dir.path().join("log"));
    manager.wait_for("WATCHDOG=1");
    get("/v2/").send(daemon.addr).refuses(403, "DENIED");
}

/// systemd's own starter, for the daemon's command behind it.
fn activated(daemon: &Daemon, sockets: &[&str], names: &str) -> Command {
    let mut command = tied("systemd-socket-activate");
    for socket in sockets {
        command.args(["-l", socket]);
    }
    command.arg(format!("--fdname={names}")).arg(BINARY);
    daemon.add_arguments(&mut command);
    command
}

#[test]
fn sockets_of_systemd_count_in_place_of_host_and_port() {
    needs!("systemd-socket-activate");
    let mut daemon = Daemon::prepared("");
    let given = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (unix, admin) = (daemon.dir.path().join("pull.sock"), daemon.dir.path().join("admin.sock"));
    let sockets = [&given.to_string(), unix.to_str().unwrap(), admin.to_str().unwrap()];
    let configured = std::mem::replace(&mut daemon.addr, given);
    // The starter is still before the daemon when the first connection comes.
    daemon.start_by(activated(&daemon, &sockets, "http:local:admin"));

    assert!(std::net::TcpStream::connect(configured).is_err());
    let connection = Box::new(std::os::unix::net::UnixStream::connect(&unix).unwrap());
    get("/v2/").open_on(connection, "host").whole().is(200);
    let addresses = format!("{given}, unix:{}", unix.display());
    let log = daemon.log();
    assert!(log.contains(&format!("serving on {addresses}, as systemd says")), "{log}");
    assert!(log.contains(&format!("Listening on: {addresses}")), "{log}");
    let status = daemon.run(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains(&addresses));
    for fd in 3..6 {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", daemon.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & OFlag::O_CLOEXEC.bits(), 0, "{fd}: {info}");
        assert_ne!(flags & OFlag::O_NONBLOCK.bits(), 0, "{fd}: {info}");
    }
}

#[test]
fn a_socket_of_systemd_is_not_trusted_more_than_one_of_ours() {
    needs!("systemd-socket-activate");
    let daemon =
        Daemon::prepared("[[registries]]\nname = \"a.b\"\nauth = { user = \"me\", password = \"word\" }");
    let port = free_port();
    let mut process = Process::spawn(
        activated(&daemon, &[&format!("0.0.0.0:{port}")], "http"),
        &daemon.dir.path().join("log"),
    );
    process.wait_until("the start", || {
        let _ = std::net::TcpStream::connect(("127.0.0.1", port));
        process_log(&daemon).contains("can be reached by others")
    });
    assert_eq!(process.wait().code(), Some(78));
}

fn process_log(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.dir.path().join("log")).unwrap_or_default()
}

/// A line of /proc/PID/status.
fn status_of(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn root_becomes_another_once_it_has_what_only_root_can_have() {
    needs!();
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid, Group::from_name("nogroup").unwrap().unwrap().gid);
    // In a folder that only root may write to.
    let mut daemon = Daemon::prepared("");
    std::fs::set_permissions(daemon.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let secret = daemon.dir.path().join("password");
    std::fs::write(&secret, "hunter2").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let (socket, log) = (daemon.dir.path().join("pull.sock"), daemon.dir.path().join("own.log"));
    daemon.configure(&format!(
        "listen = [\"unix:{}\"]\n[[registries]]\nname = \"a.b\"\nauth = {{ user = \"me\", password_file = {secret:?} }}",
        socket.display()
    ));
    let log_option = log.display().to_string();
    daemon.options(&["--user", "nobody", "--group", "nogroup", "--log-file", &log_option]);
    daemon.start();

    let pid = daemon.pid();
    for (name, id) in [("Uid", uid.as_raw()), ("Gid", gid.as_raw())] {
        assert_eq!(status_of(pid, name), format!("{id} {id} {id} {id}"));
    }
    assert_eq!(status_of(pid, "CapEff"), "0000000000000000");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    }
    assert!(!status_of(pid, "Groups").split(' ').any(|group| group == "0"));
    for path in [&daemon.images(), &daemon.images().join("store.json"), &socket, &log] {
        let owner = std::fs::metadata(path).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (uid.as_raw(), gid.as_raw()), "{}", path.display());
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("started as root, serving as nobody:nogroup, for good"), "{text}");
    assert!(process_log(&daemon).contains(&format!("Running as (uid:gid) {uid}:{gid}")));

    let reload = daemon.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(1));
    let error = String::from_utf8_lossy(&reload.stderr);
    let wanted = format!("in {} cannot be read: Permission denied", secret.display());
    assert!(error.contains(&wanted) && !error.contains("hunter2"), "{error}");
    daemon.get("/v2/").is(200);

    let (cert, key) = Ca::new().leaf().write(daemon.dir.path(), "a");
    let users = daemon.dir.path().join("htpasswd");
    std::fs::write(&users, "").unwrap();
    for file in [&cert, &key, &users] {
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }
    let tls = |cert: &Path, key: &Path| format!("[server_tls]\ncert = {cert:?}\nkey = {key:?}\n");
    for (text, unreadable) in
        [(tls(&cert, &key), &cert), (tls(&cert, &key), &key), (format!("htpasswd = {users:?}\n"), &users)]
    {
        if unreadable == &key {
            std::fs::set_permissions(&cert, Permissions::from_mode(0o644)).unwrap();
        }
        daemon.configure(&text);
        let reload = daemon.run(&["reload"]);
        assert_eq!(reload.status.code(), Some(1));
        let error = String::from_utf8_lossy(&reload.stderr);
        let path = unreadable.display().to_string();
        let said = error.contains(&path) && error.contains("cannot be read: Permission denied");
        assert!(said, "{error}\nwanted: {path}");
    }
}

#[test]
fn root_is_told_what_is_missing_for_it_to_become_another() {
    needs!();
    let daemon = Daemon::prepared("");
    let output = daemon.run(&["serve", "--user", "no-such-user"]);
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("useradd --system") && error.contains("user = \"root\""), "{error}");
    // And what is to be typed.
    assert!(error.contains("\n  --user root\nat its end"), "{error}");

    // What is there already is not taken from its owner.
    std::fs::set_permissions(daemon.dir.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(daemon.images()).unwrap();
    let output = daemon.run(&["serve", "--user", "nobody", "--group", "nogroup"]);
    assert_eq!(output.status.code(), Some(71));
    let error = String::from_utf8_lossy(&output.stderr);
    let advice = format!("chown -R nobody:nogroup {}", daemon.images().display());
    assert!(error.contains(&advice), "{error}");
    assert_eq!(std::fs::metadata(daemon.images()).unwrap().uid(), 0);
}

/// What a service says that may not write to /mnt/images, which `script` makes ready.
fn said_of_mnt(script: &str, user: &str) -> String {
    let daemon = Daemon::prepared("");
    let manager = Manager::listen(daemon.dir.path());
    let mut command = tied("unshare");
    let port = free_port().to_string();
    let script =
        format!("{script} && exec \"$0\" --image-path /mnt/images serve --user {user} --port \"$1\"");
    command.args(["--mount", "sh", "-c", &script, BINARY, &port]);
    manager.manage(&mut command);
    let output = support::process::run(command);
    assert_eq!(output.status.code(), Some(71));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_folder_that_the_unit_keeps_from_us_comes_with_what_mends_it() {
    needs!("unshare");
    // To a service, what its unit protects is a read-only file system.
    let missing = said_of_mnt("mount -t tmpfs -o ro none /mnt", "root");
    assert!(missing.contains("\ninstall -d -o root -g root -m 750 /mnt/images\n"), "{missing}");
    assert!(missing.contains("systemctl edit ociregistry"), "{missing}");
    assert!(missing.trim_end().ends_with("[Service]\nReadWritePaths=/mnt/images"), "{missing}");

    let others = "mount -t tmpfs none /mnt && mkdir /mnt/images && mount -o remount,bind,ro /mnt";
    let others = said_of_mnt(others, "nobody --group nogroup");
    assert!(others.contains("\nchown -R nobody:nogroup /mnt/images\n"), "{others}");
    assert!(others.trim_end().ends_with("[Service]\nReadWritePaths=/mnt/images"), "{others}");

    let ours = "mount -t tmpfs none /mnt && mkdir /mnt/images && mount -o remount,bind,ro /mnt";
    let ours = said_of_mnt(ours, "root");
    assert!(!ours.contains("install -d") && !ours.contains("chown"), "{ours}");
    assert!(ours.trim_end().ends_with("[Service]\nReadWritePaths=/mnt/images"), "{ours}");
}

#[test]
fn the_name_of_a_socket_says_what_it_is_for() {
    needs!("systemd-socket-activate");
    let mut daemon = Daemon::prepared("");
    let [pull, health] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    daemon.addr = pull;
    daemon.start_by(activated(&daemon, &[&pull.to_string(), &health.to_string()], "http:health"));
    assert!(get("/health").send(health).is(200).text().contains("\"ok\""));
    get("/v2/").send(health).is(404);
    daemon.get("/health").is(404);
    assert!(daemon.log().contains(&format!("serving on {pull}, as systemd says")), "{}", daemon.log());
}

#[test]
fn sockets_of_systemd_that_cannot_be_meant_are_refused() {
    needs!("systemd-socket-activate");
    for (names, error) in [
        ("admin:http", "`admin` cannot be used: want one Unix socket of that name"),
        ("health:health", "`health` cannot be used: want one TCP socket of that name"),
        ("http:metrics", "`metrics` cannot be used: not supported yet, leave it out"),
    ] {
        let daemon = Daemon::prepared("");
        let sockets = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let log = daemon.dir.path().join("log");
        let mut process = Process::spawn(activated(&daemon, &[&sockets[0], &sockets[1]], names), &log);
        eventually("the start", || {
            let _ = std::net::TcpStream::connect(&sockets[0]);
            process_log(&daemon).contains(error)
        });
        assert_eq!(process.wait().code(), Some(78));
    }
}
