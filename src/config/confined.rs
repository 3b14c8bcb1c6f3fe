//! Files that a hardened unit of systemd, or their owner, keeps from its service.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, Group, User, access, getegid, geteuid};

/// What the service wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read a file.
    Read,
    /// Write to a file, which need not be there.
    Append,
    /// Write in a folder, which need not be there.
    Write,
}

/// What mends an error on a path, in words that can be typed: commands, and the unit's drop-in. Empty where systemd
/// did not start us, or where the error is another.
pub fn drop_in(path: &Path, access: Access, error: &io::Error) -> String {
    let by_systemd = ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some());
    if by_systemd { advice(path, access, error, &Found::at(path)) } else { String::new() }
}

/// How things are at a path, as far as the service sees.
#[derive(Debug, Default)]
struct Found {
    there: bool,
    /// A folder above it, through which only others may pass.
    barred: Option<PathBuf>,
    /// Its owner and mode keep us from writing.
    denied: bool,
    read_only: bool,
}

impl Found {
    fn at(path: &Path) -> Self {
        let denied = |path: &Path, flags| access(path, flags) == Err(Errno::EACCES);
        let nearest = path.ancestors().find(|path| path.exists());
        Self {
            there: path.exists(),
            barred: path
                .ancestors()
                .skip(1)
                .filter(|above| denied(above, AccessFlags::X_OK))
                .last()
                .map(Path::to_owned),
            denied: denied(path, AccessFlags::R_OK | AccessFlags::W_OK),
            read_only: nearest
                .and_then(|path| statvfs(path).ok())
                .is_some_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY)),
        }
    }
}

fn advice(path: &Path, access: Access, error: &io::Error, found: &Found) -> String {
    // ProtectHome= and PrivateTmp= show other folders in their places.
    let home = ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home));
    let temporary = ["/tmp", "/var/tmp"].iter().any(|folder| path.starts_with(folder));
    let hidden = (home || temporary) && !found.there;
    let read_only = error.kind() == ErrorKind::ReadOnlyFilesystem;
    let denied = error.kind() == ErrorKind::PermissionDenied;
    let missing = hidden && error.kind() == ErrorKind::NotFound;
    if !(read_only || denied || missing) {
        return String::new();
    }

    let mut commands = Vec::new();
    if access != Access::Read {
        if let Some(above) = found.barred.as_ref().filter(|_| !hidden) {
            commands.push(format!("chmod o+x {}", above.display()));
        }
        let ((user, group), path) = (ourselves(), path.display());
        match access {
            // systemd does not start a service whose drop-in names what is not there.
            Access::Write if !found.there => {
                commands.push(format!("install -d -o {user} -g {group} -m 750 {path}"));
            }
            Access::Append if !found.there => {
                commands.push(format!("install -D -o {user} -g {group} -m 640 /dev/null {path}"));
            }
            _ if found.denied || denied => commands.push(format!("chown -R {user}:{group} {path}")),
            _ => {}
        }
    }
    let bind = if access == Access::Read { "BindReadOnlyPaths" } else { "BindPaths" };
    let lines = match access {
        _ if hidden && home => Some(format!("ProtectHome=tmpfs\n{bind}={}", path.display())),
        _ if hidden => Some(format!("{bind}={}", path.display())),
        // Only permissions keep one from reading elsewhere.
        Access::Read => None,
        _ => (read_only || found.read_only).then(|| format!("ReadWritePaths={}", path.display())),
    };

    let mut said = String::new();
    if !commands.is_empty() {
        said = format!("\nThe service has to own what it writes to. As root:\n{}", commands.join("\n"));
    }
    if let Some(lines) = lines {
        said.push_str(
            "\nThe unit keeps the service from other paths than its own. `systemctl edit ociregistry`, with\n[Service]\n",
        );
        said.push_str(&lines);
    }
    said
}

/// The names of our user and group, or their numbers.
fn ourselves() -> (String, String) {
    let (uid, gid) = (geteuid(), getegid());
    let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(gid).ok().flatten().map(|group| group.name);
    (user.unwrap_or_else(|| uid.to_string()), group.unwrap_or_else(|| gid.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(path: &str, access: Access, kind: ErrorKind, found: &Found) -> String {
        super::advice(Path::new(path), access, &kind.into(), found)
    }

    #[test]
    fn the_drop_in_fits_the_path() {
        let nothing = Found::default();
        let home = advice("/root/.docker/config.json", Access::Read, ErrorKind::PermissionDenied, &nothing);
        let lines = "[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=/root/.docker/config.json";
        assert!(home.ends_with(lines) && !home.contains("install"), "{home}");
        let temporary = advice("/tmp/key.pem", Access::Read, ErrorKind::NotFound, &nothing);
        assert!(temporary.ends_with("[Service]\nBindReadOnlyPaths=/tmp/key.pem"), "{temporary}");
        for (path, access, kind) in [
            ("/etc/key.pem", Access::Read, ErrorKind::PermissionDenied),
            ("/etc/key.pem", Access::Read, ErrorKind::NotFound),
            ("/srv/images", Access::Write, ErrorKind::StorageFull),
        ] {
            assert_eq!(advice(path, access, kind, &nothing), "");
        }
    }

    #[test]
    fn what_is_written_to_is_made_or_handed_over_as_it_needs() {
        let (user, group) = ourselves();
        let owned = format!("-o {user} -g {group} -m");
        let make = format!("\ninstall -d {owned} 750 /srv/images");
        let hand_over = format!("\nchown -R {user}:{group} /srv/images");
        let let_write = "[Service]\nReadWritePaths=/srv/images";
        let (read_only, denied) = (ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied);
        let found = |there, denied, read_only| Found { there, denied, read_only, barred: None };
        for (kind, found, wanted) in [
            (read_only, found(false, false, true), [true, false, true]),
            (read_only, found(true, true, true), [false, true, true]),
            (read_only, found(true, false, true), [false, false, true]),
            (denied, found(true, true, true), [false, true, true]),
            // The drop-in is there already.
            (denied, found(true, true, false), [false, true, false]),
            (denied, found(false, false, false), [true, false, false]),
            // A file of another's in a folder of ours.
            (denied, found(true, false, false), [false, true, false]),
        ] {
            let said = advice("/srv/images", Access::Write, kind, &found);
            let has = [said.contains(&make), said.contains(&hand_over), said.contains(let_write)];
            assert_eq!(has, wanted, "{kind} {found:?}: {said}");
        }

        let said = advice("/var/log/own.log", Access::Append, read_only, &found(false, false, true));
        assert!(said.contains(&format!("\ninstall -D {owned} 640 /dev/null /var/log/own.log\n")), "{said}");
        let barred = Found { barred: Some("/srv/keys".into()), ..Found::default() };
        let said = advice("/srv/keys/images", Access::Write, denied, &barred);
        let both = format!("\nchmod o+x /srv/keys\ninstall -d {owned} 750 /srv/keys/images");
        assert!(said.ends_with(&both), "{said}");
        let said = advice("/home/me/images", Access::Write, denied, &Found::default());
        assert!(said.contains(&format!("\ninstall -d {owned} 750 /home/me/images\n")), "{said}");
        assert!(said.ends_with("[Service]\nProtectHome=tmpfs\nBindPaths=/home/me/images"), "{said}");
    }
}
