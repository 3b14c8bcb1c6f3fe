//! What the daemon says of itself when it starts.

use std::ffi::OsString;

use jiff::ZonedDateTime;
use nix::unistd::{getgid, getuid};

use super::version;
use crate::config::{ServerTls, Settings};
use crate::daemon::Reached;

const RULE: &str = "----------------------------------------------------------------------";

/// No secret is in it: no option of the command line takes one.
pub fn banner(settings: &Settings, reached: &Reached) -> String {
    let lines = [
        RULE.to_owned(),
        "OCI Registry: pull-only, pull-through, caching OCI Distribution Server".to_owned(),
        version::line(),
        format!(
            "Started: {} (port {})",
            ZonedDateTime::now().strftime("%Y-%m-%d %H:%M:%S%.9f %z %Z"),
            reached.port.unwrap_or(0)
        ),
        format!("Listening on: {}", reached.addresses.join(", ")),
        format!("Running as (uid:gid) {}:{}", getuid(), getgid()),
        format!("Process id: {}", std::process::id()),
        format!("Tls: {}", tls(settings.server_tls.as_ref())),
        format!("Command line: {}", command_line(std::env::args_os())),
        RULE.to_owned(),
    ];
    lines.join("\n") + "\n"
}

fn tls(settings: Option<&ServerTls>) -> &'static str {
    match settings {
        None => "none",
        Some(ServerTls { clients: None, .. }) => "TLS 1.2 and 1.3",
        Some(ServerTls { clients: Some(_), .. }) => "TLS 1.2 and 1.3, client certificates verified",
    }
}

fn command_line(args: impl Iterator<Item = OsString>) -> String {
    let args: Vec<_> = args.map(|arg| quote(&arg.to_string_lossy())).collect();
    args.join(" ")
}

/// As a shell would read it, on one line.
fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else if arg.contains(char::is_control) {
        format!("$'{}'", arg.escape_debug())
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let args =
            ["bin/ociregistry", "--image-path", "/tmp/my images", "--os", "", "it's"].map(OsString::from);
        assert_eq!(
            command_line(args.into_iter()),
            r"bin/ociregistry --image-path '/tmp/my images' --os '' 'it'\''s'"
        );
        assert!(!quote("a\nb").contains('\n'));
    }
}
