//! The papers as they are used: read by shells, and installed from source.
#![allow(clippy::unwrap_used)] // A test may panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn papers() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    super::write(folder.path(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    folder
}

/// None where there is no such program.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// zsh and fish where they are; make and everything else here has a bash.
#[test]
fn completions_are_read_by_their_shells() {
    let papers = papers();
    for (shell, file) in [("bash", "ociregistry.bash"), ("zsh", "_ociregistry"), ("fish", "ociregistry.fish")]
    {
        let output = run(Command::new(shell).arg("-n").arg(papers.path().join(file)));
        match output {
            Some(output) => assert!(succeeds(&output).is_empty() && output.stderr.is_empty(), "{output:?}"),
            None => assert_ne!(shell, "bash"),
        }
    }
    // bash offers what there is.
    let script = format!(
        "source {}/ociregistry.bash; COMP_WORDS=(ociregistry mir); COMP_CWORD=1; _ociregistry ociregistry mir \
         ociregistry; echo \"${{COMPREPLY[@]}}\"",
        papers.path().display()
    );
    assert_eq!(succeeds(&run(Command::new("bash").args(["-c", &script])).unwrap()), "mirror\n");
}

/// `make install` into a folder, below /usr/local.
fn install(folder: &Path, papers: &Path) -> Output {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "--silent",
        "install",
        "PROGRAM=/bin/sh",
        "PREFIX=/usr/local",
    ]);
    make.arg(format!("PAPERS={}", papers.display())).arg(format!("DESTDIR={}", folder.display()));
    // Those of the make that runs this.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
    run(&mut make).unwrap()
}

#[test]
fn an_installation_from_source_is_of_one_piece_and_keeps_an_edited_configuration() {
    let (papers, root) = (papers(), tempfile::tempdir().unwrap());
    let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!(succeeds(&install(root.path(), papers.path())), "");
    assert_eq!(read("etc/ociregistry.toml"), super::SAMPLE);
    let unit = read("usr/local/lib/systemd/system/ociregistry.service");
    let programs = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split(['=', ' ']).nth(1));
    let ours: Vec<_> = programs.filter(|program| program.ends_with("/ociregistry")).collect();
    assert_eq!(ours, ["/usr/local/bin/ociregistry"; 2]);
    assert!(root.path().join("usr/local/bin/ociregistry").is_file());

    // Nothing was edited: nothing is to be said.
    assert_eq!(succeeds(&install(root.path(), papers.path())), "");
    let configuration: PathBuf = root.path().join("etc/ociregistry.toml");
    fs::write(&configuration, "port = 5000\n").unwrap();
    let said = succeeds(&install(root.path(), papers.path()));
    let path = configuration.display();
    assert_eq!(said, format!("{path} stays as it is; this version has {path}.new\n"));
    assert_eq!(read("etc/ociregistry.toml"), "port = 5000\n");
    assert_eq!(read("etc/ociregistry.toml.new"), super::SAMPLE);
}
