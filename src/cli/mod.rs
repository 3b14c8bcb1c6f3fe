//! The command line: one file a subcommand.

mod admin;
mod banner;
mod cache;
mod check;
mod config;
mod list;
mod mirror;
mod pin;
mod progress;
mod prune;
mod pull;
mod refresh;
mod reload;
mod serve;
mod status;
mod version;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use clap::{Args, Parser, Subcommand};
use tracing::Level;

use crate::admin::{AdminError, Cause};
use crate::config::{ConfigError, Configuration, Override, Reader, Source};
use crate::daemon::{ServeError, say};
use crate::mirror::MirrorError;
use crate::store::OpenError;
use crate::store::care::{CareError, check_pattern};

const EXAMPLES: &str = "\
Examples:
  Try it out of a temporary folder, then pull through it:
    ociregistry --image-path /tmp/images serve --port 8080
    docker pull localhost:8080/registry.k8s.io/pause:3.9

  See what is in force, and which line or option says so:
    ociregistry config show

  Have containerd pull everything through it:
    ociregistry mirror containerd --enable

  Have images in the cache before anybody asks for them:
    ociregistry pull nginx registry.k8s.io/pause:3.10

  See how the daemon is:
    ociregistry status

Every setting is a key of /etc/ociregistry.toml; the command line counts more than the file, the file more \
than the defaults.

Exit codes: 0 all went well, 1 the daemon refused, an image could not be had, a mirror is not as asked or a check \
found something wrong, 2 wrong usage, 69 no daemon, 71 the system gives no thread, 74 the disk failed, 75 the cache \
is in use by another process or the daemon ended, 76 the daemon is of another version, 77 not allowed, 78 wrong \
configuration, 130 interrupted.";

/// A pull-only, pull-through, caching OCI registry
///
/// Clients (containerd, docker, podman and friends) pull from it as from a registry. What it does not have it
/// pulls from the registry that the request names, passes on at once and keeps.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Status(status::Status),
    Reload(reload::Reload),
    Config(config::Config),
    Pull(pull::Pull),
    Refresh(refresh::Refresh),
    List(list::List),
    Prune(prune::Prune),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Check(check::Check),
    Mirror(mirror::Mirror),
    Version(version::Version),
}

/// Before or after the subcommand.
#[derive(Args, Debug)]
struct GlobalOptions {
    /// The least severe messages to log: debug, info, warn or error [default: error]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options")]
    log_level: Option<String>,
    /// The configuration file [default: /etc/ociregistry.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config_file: Option<PathBuf>,
    /// The folder of the image cache [default: /var/lib/ociregistry]
    #[arg(long, global = true, value_name = "FOLDER", help_heading = "Global options")]
    image_path: Option<String>,
    /// A file to log to [default: the standard error]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    log_file: Option<String>,
}

impl GlobalOptions {
    /// What [`source`](Self::source) says, with its warnings told: among them that a secret is only the service's.
    fn load(&self, overrides: Vec<Override>) -> Result<Configuration, ConfigError> {
        load(&self.source(overrides))
    }

    /// The file under these options and those of the subcommand.
    fn source(&self, mut overrides: Vec<Override>) -> Source {
        let path = |text: &Option<String>| text.as_deref().map(absolute);
        add(&mut overrides, "log_level", "--log-level", self.log_level.clone());
        add(&mut overrides, "image_path", "--image-path", path(&self.image_path));
        add(&mut overrides, "log_file", "--log-file", path(&self.log_file));
        Source { file: self.config_file.clone(), overrides, reader: Reader::Command }
    }

    /// The cache's folder. The file is not read when the command line says it: whoever may look at the cache may not
    /// be allowed to read that.
    fn image_path(&self) -> Result<PathBuf, ConfigError> {
        match &self.image_path {
            Some(path) if !path.is_empty() => Ok(absolute(path).into()),
            _ => self.source(Vec::new()).image_path(),
        }
    }
}

fn load(source: &Source) -> Result<Configuration, ConfigError> {
    let configuration = source.load()?;
    for warning in &configuration.warnings {
        say(Level::WARN, &format!("warning: {warning}"));
    }
    Ok(configuration)
}

fn add(overrides: &mut Vec<Override>, key: &'static str, option: &'static str, text: Option<String>) {
    overrides.extend(text.map(|text| Override { key, option, text }));
}

/// What is typed is relative to where it is typed; what is no path is left for its error.
fn absolute(text: &str) -> String {
    std::path::absolute(Path::new(text))
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .unwrap_or_else(|| text.to_owned())
}

/// A regular expression, for the command line's own errors.
fn pattern(text: &str) -> Result<String, String> {
    match check_pattern(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(CareError::Pattern { reason, .. }) => Err(format!("no regular expression: {reason}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Cli {
    pub fn run(self) -> Result<(), Error> {
        let result = match self.command {
            Command::Serve(serve) => serve.run(&self.global),
            Command::Status(status) => status.run(&self.global),
            Command::Reload(reload) => reload.run(&self.global),
            Command::Config(config) => config.run(&self.global),
            Command::Pull(pull) => pull.run(&self.global),
            Command::Refresh(refresh) => refresh.run(&self.global),
            Command::List(list) => list.run(&self.global),
            Command::Prune(prune) => prune.run(&self.global),
            Command::Pin(pin) => pin.run(&self.global),
            Command::Unpin(unpin) => unpin.run(&self.global),
            Command::Check(check) => check.run(&self.global),
            Command::Mirror(mirror) => mirror.run(&self.global),
            Command::Version(version) => version.run(),
        };
        match result {
            // Who reads has seen enough.
            Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("{0}")]
    NoDaemon(String),
    /// By the daemon, for reasons that it gives.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Care(#[from] CareError),
    #[error("{0} wrong")]
    Wrong(u64),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A list of images, all that is wrong with it.
    #[error("{0}")]
    List(String),
    /// Some of what was asked for, with the reasons.
    #[error("{0}")]
    Failed(String),
    /// The same, as the daemon ended meanwhile.
    #[error("{0}")]
    Ended(String),
    /// By a signal; with what was done before.
    #[error("{0}")]
    Interrupted(String),
    #[error("cannot write to the standard output: {0}")]
    Output(io::Error),
}

impl Error {
    /// Says it on the standard error.
    pub fn report(&self) {
        say(Level::ERROR, &self.to_string());
    }

    /// After sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Serve(error) => error.exit_code(),
            Self::Mirror(MirrorError::Impossible(_)) | Self::List(_) => 2,
            Self::Mirror(_) => 1,
            Self::NoDaemon(_) | Self::Admin(AdminError::NoDaemon { .. }) => 69,
            Self::Admin(AdminError::NotAllowed { .. }) => 77,
            Self::Admin(AdminError::Broken(_)) | Self::Ended(_) => 75,
            Self::Admin(AdminError::Refused(complaint)) => of_cause(complaint.kind),
            Self::Admin(AdminError::Io(_)) => 74,
            Self::Admin(AdminError::Answer(_)) => 76,
            Self::Refused(_) | Self::Wrong(_) | Self::Failed(_) => 1,
            Self::Interrupted(_) => 130,
            Self::Thread(_) => 71,
            Self::Store(OpenError::Locked { .. }) => 75,
            Self::Store(OpenError::Io(error)) => {
                if error.source.kind() == io::ErrorKind::PermissionDenied {
                    77
                } else {
                    74
                }
            }
            Self::Care(error) => of_cause(error.into()),
            Self::Output(_) => 74,
            Self::Store(_) => 78,
        }
    }
}

/// The same whether the daemon did the work or this process.
fn of_cause(cause: Cause) -> u8 {
    match cause {
        Cause::Request => 2,
        Cause::Elsewhere => 69,
        Cause::Disk => 74,
        Cause::Upstream => 1,
        Cause::Ending => 75,
        Cause::Command | Cause::Token | Cause::Other => 76,
        Cause::Denied => 77,
        Cause::Cache => 78,
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

/// The same for who changes something: that goes on when nobody reads any more.
fn tell(text: &str) -> Result<(), Error> {
    unread(print(text))
}

fn unread(printed: Result<(), Error>) -> Result<(), Error> {
    match printed {
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints what `work` says as it goes, on a thread of its own: who reads slowly, or no more, holds up nobody else.
fn printing<T>(work: impl FnOnce(&dyn Fn(String)) -> Result<T, Error>) -> Result<T, Error> {
    let (sender, lines) = mpsc::channel::<String>();
    thread::scope(|scope| {
        let printer = scope.spawn(move || lines.iter().try_for_each(|line| print(&line)));
        let say = move |line| {
            // Nobody may be reading any more; the work is done all the same.
            let _ = sender.send(line);
        };
        let done = work(&say);
        drop(say);
        let printed = printer.join().unwrap_or_else(|died| std::panic::resume_unwind(died));
        let done = done?;
        unread(printed).map(|()| done)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paths_are_relative_to_where_they_are_typed() {
        assert!(absolute("images").ends_with("/images") && absolute("images").starts_with('/'));
        assert_eq!(absolute("/images"), "/images");
        assert_eq!(absolute(""), "");
    }
}
