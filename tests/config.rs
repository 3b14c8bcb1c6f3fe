//! The command line and the configuration, on the real binary.

#![allow(clippy::unwrap_used)] // A test may panic.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A configuration file in a folder of its own.
struct File {
    _folder: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Self { _folder: folder, path }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = ociregistry();
        command.arg("--config-file").arg(&self.path).args(args);
        command.output().unwrap()
    }

    fn shown(&self, args: &[&str]) -> String {
        let output = self.run(&[&["config", "show"], args].concat());
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    }

    /// What a line that begins with the file's name goes on with.
    fn place(&self, rest: &str) -> String {
        format!("{}:{rest}", self.path.display())
    }
}

fn ociregistry() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ociregistry"))
}

fn run(args: &[&str]) -> Output {
    ociregistry().args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_one() {
    let file = File::new("# comment\nprot = 5000\n");
    for command in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        let output = file.run(command);
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(err(&output).trim_end(), file.place("2: prot: unknown key; did you mean `port`?"));
        assert_eq!(out(&output), "");
    }
}

#[test]
fn wrong_types_and_values_say_what_is_wanted() {
    for (text, message) in [
        ("port = \"5000\"", "1: port: found \"5000\", want a port, 1 to 65535"),
        ("port = 0", "1: port: found 0, want a port, 1 to 65535"),
        (
            "host = \"example.com\"",
            "1: host: found \"example.com\", want an IP address of this host, or localhost",
        ),
        (
            "\nlog_level = \"loud\"",
            "2: log_level: found \"loud\", want \"debug\", \"info\", \"warn\" or \"error\"",
        ),
        ("port = ", "1: not TOML: "),
    ] {
        let file = File::new(text);
        let output = file.run(&["config", "check"]);
        assert_eq!(output.status.code(), Some(78));
        assert!(err(&output).starts_with(&file.place(message)), "{}", err(&output));
    }
}

#[test]
fn what_is_not_built_is_refused() {
    for text in ["metrics = 9090", "parallel = 2"] {
        let output = File::new(text).run(&["serve"]);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(err(&output).contains("not supported yet"), "{text}: {}", err(&output));
    }
    let file = File::new("");
    let output = file.run(&["serve", "--metrics=9091"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(err(&output).starts_with("--metrics: not supported yet"), "{}", err(&output));
    assert!(file.run(&["config", "check", "--metrics=0"]).status.success());
}

#[test]
fn the_command_line_counts_more_than_the_file_and_the_file_than_the_default() {
    let file = File::new("port = 5000\nair_gapped = true\n");
    let shown = file.shown(&[]);
    assert!(shown.contains(&format!("port = 5000  # {}\n", file.place("1"))), "{shown}");
    assert!(shown.contains("host = \"127.0.0.1\"  # default\n"), "{shown}");
    let shown = file.shown(&["--port", "5001", "--air-gapped=false"]);
    assert!(shown.contains("port = 5001  # --port\n"), "{shown}");
    assert!(shown.contains("air_gapped = false  # --air-gapped\n"), "{shown}");
}

#[test]
fn what_is_shown_is_a_configuration() {
    let file =
        File::new("tag_ttl = \"2m\"\n[[registries]]\nname = \"quay.io\"\ntls.insecure_skip_verify = true\n");
    let again = File::new(&file.shown(&[]));
    let shown = again.shown(&[]);
    assert!(shown.contains("[[registries]]\nname = \"quay.io\""), "{shown}");
    assert!(shown.contains("tls.insecure_skip_verify = true  #"), "{shown}");
}

#[test]
fn global_options_stand_before_or_after_the_subcommand() {
    let file = File::new("");
    let path = file.path.to_str().unwrap();
    let options =
        ["--config-file", path, "--log-level", "debug", "--image-path", "/images", "--log-file", "/log"];
    let (config, show) = (["config"], ["show"]);
    let orders = [
        [&options[..], &config, &show].concat(),
        [&config[..], &options, &show].concat(),
        [&config[..], &show, &options].concat(),
        [&options[..4], &config, &show, &options[4..]].concat(),
    ];
    for order in orders {
        let output = run(&order);
        assert!(output.status.success(), "{}", err(&output));
        for line in [
            "log_level = \"debug\"  # --log-level",
            "image_path = \"/images\"  # --image-path",
            "log_file = \"/log\"  # --log-file",
        ] {
            assert!(out(&output).lines().any(|l| l == line), "{order:?}\n{}", out(&output));
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
    let entries = [
        "auth = { user = \"me\", password = \"hunter2\" }".to_owned(),
        "auth.token_from_env = \"TOKEN\"".to_owned(),
        "auth.token_credential = \"token\"".to_owned(),
        format!("auth.token_file = \"{}/token\"", folder.path().display()),
    ];
    for entry in entries {
        let file =
            File::new(&format!("proxy = \"http://me:hunter2@p:1\"\n[[registries]]\nname = \"a.b\"\n{entry}"));
        let output = ociregistry()
            .args(["config", "show", "--config-file"])
            .arg(&file.path)
            .env("TOKEN", "hunter2")
            .env("CREDENTIALS_DIRECTORY", folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", err(&output));
        assert!(!out(&output).contains("hunter2"), "{}", out(&output));
    }
    let wrong = File::new("[[registries]]\nname = \"a.b\"\nauth = { user = \"me\", pasword = \"hunter2\" }");
    let output = wrong.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(err(&output).contains("did you mean `password`?") && !err(&output).contains("hunter2"));
}

#[test]
fn a_secret_that_is_not_there_is_an_error() {
    for entry in [
        "auth.token_file = \"/does/not/exist\"",
        "auth.token_from_env = \"NO_SUCH_VARIABLE\"",
        "auth.token_credential = \"x\"",
    ] {
        let file = File::new(&format!("[[registries]]\nname = \"a.b\"\n{entry}"));
        let output = file.run(&["serve"]);
        assert_eq!(output.status.code(), Some(78), "{entry}");
        assert!(err(&output).starts_with(&file.place("3: registries[0].auth.token_")), "{}", err(&output));
        let found_by_all = entry.contains("_file");
        let output = file.run(&["config", "check"]);
        assert_eq!(output.status.code(), Some(if found_by_all { 78 } else { 0 }), "{entry}");
    }
}

#[test]
fn a_secret_that_only_the_service_has_keeps_no_command_from_its_work() {
    for (name, auth) in [
        ("password_credential", "user = \"me\", password_credential = \"reg\""),
        ("token_from_env", "token_from_env = \"NO_SUCH_VARIABLE\""),
    ] {
        let entry = format!("[[registries]]\nname = \"a.b\"\nauth = {{ {auth} }}\n");
        let admin = "[admin]\nlisten = \"127.0.0.1:9\"\ntoken_credential = \"admin\"\n";
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let file = File::new(&format!("image_path = {:?}\nuser = \"root\"\n{entry}{admin}", path("images")));
        let list = path("list");
        std::fs::write(&list, "").unwrap();
        let root = path("root");
        for command in [
            &["config", "check"][..],
            &["config", "show"],
            &["pull", "--file", &list],
            &["prune", "--blobs"],
            &["mirror", "containerd"],
            &["mirror", "containerd", "--enable", "--root", &root],
            &["mirror", "docker", "--disable", "--root", &root],
        ] {
            let output = file.run(command);
            assert!(output.status.success(), "{command:?}: {}", err(&output));
            let warning = format!("warning: {}", file.place("5: registries[0].auth."));
            let told = err(&output).contains(&format!("{warning}{name}: the secret is missing: "));
            assert!(told, "{command:?}: {}", err(&output));
        }
        // It is a secret all the same.
        let open = File::new(&format!("host = \"0.0.0.0\"\n{entry}"));
        let output = open.run(&["config", "check"]);
        assert_eq!(output.status.code(), Some(78));
        assert!(err(&output).contains("can be reached by others"), "{}", err(&output));
    }
}

#[test]
fn what_mirror_wrote_is_taken_back_whatever_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::new("prot = 1");
    let output = file.run(&[
        "mirror",
        "docker",
        "--disable",
        "--address",
        "http://127.0.0.1:8080",
        "--root",
        folder.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", err(&output));
}

#[test]
fn a_secret_in_a_file_that_everybody_can_read_is_worth_a_warning() {
    let texts = [
        ("1: proxy", "proxy = \"http://me:hunter2@p:1\""),
        (
            "3: registries[0].auth.password",
            "[[registries]]\nname = \"a.b\"\nauth = { user = \"me\", password = \"hunter2\" }",
        ),
        ("3: registries[0].auth.token", "[[registries]]\nname = \"a.b\"\nauth.token = \"hunter2\""),
    ];
    for (key, text) in texts {
        let file = File::new(text);
        for (mode, told) in [(0o644, true), (0o640, false)] {
            std::fs::set_permissions(&file.path, Permissions::from_mode(mode)).unwrap();
            let output = file.run(&["config", "check"]);
            assert!(output.status.success(), "{}", err(&output));
            let warning =
                format!("warning: {}: a secret, and every user of this host can read", file.place(key));
            assert_eq!(err(&output).starts_with(&warning), told, "{mode:o}: {}", err(&output));
            assert!(!err(&output).contains("hunter2"));
        }
    }
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let output = run(&["config", "check", "--config-file", "/does/not/exist.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        err(&output).starts_with("/does/not/exist.toml: cannot be read: No such file"),
        "{}",
        err(&output)
    );
}

#[test]
fn the_sample_has_no_errors() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/ociregistry.toml");
    let output = run(&["config", "check", "--config-file", sample]);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output), format!("{sample}: no errors\n"));
}

#[test]
fn usage_errors_exit_with_2_and_wrong_values_with_78() {
    assert_eq!(run(&["serve", "--prot", "1"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    let output = File::new("").run(&["serve", "--pull-timeout", "soon"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        err(&output).starts_with("--pull-timeout: found \"soon\", want milliseconds"),
        "{}",
        err(&output)
    );
}

#[test]
fn version_says_version_and_build_date() {
    let output = run(&["version"]);
    let line = out(&output);
    let date =
        line.trim_end().strip_prefix(concat!("Version: ", env!("CARGO_PKG_VERSION"), ", build date: "));
    assert!(date.unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
}
