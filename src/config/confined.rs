//! Files that a hardened unit of systemd keeps from its service.

use std::io::{self, ErrorKind};
use std::path::Path;

/// What the service wants to do with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What mends an error on a path that comes of being confined: the drop-in, in words that can be typed. Empty where
/// systemd did not start us, or where the error is another.
pub fn drop_in(path: &Path, access: Access, error: &io::Error) -> String {
    let by_systemd = ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some());
    if by_systemd { advice(path, access, error) } else { String::new() }
}

fn advice(path: &Path, access: Access, error: &io::Error) -> String {
    let kept = matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied);
    // ProtectHome= and PrivateTmp= show other folders in their places.
    let home = ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home));
    let temporary = ["/tmp", "/var/tmp"].iter().any(|folder| path.starts_with(folder));
    let hidden = (home || temporary) && error.kind() == ErrorKind::NotFound;
    if !kept && !hidden {
        return String::new();
    }
    let bind = if access == Access::Read { "BindReadOnlyPaths" } else { "BindPaths" };
    let lines = match access {
        _ if home => format!("ProtectHome=tmpfs\n{bind}={}", path.display()),
        _ if temporary => format!("{bind}={}", path.display()),
        Access::Write => format!("ReadWritePaths={}", path.display()),
        // Only permissions keep one from reading there.
        Access::Read => return String::new(),
    };
    format!(
        "\nThe unit keeps the service from other paths than its own. `systemctl edit ociregistry`, with\n[Service]\n{lines}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_fits_the_path() {
        let advice = |path: &str, access, kind: ErrorKind| advice(Path::new(path), access, &kind.into());
        let written = advice("/srv/images", Access::Write, ErrorKind::ReadOnlyFilesystem);
        assert!(written.ends_with("[Service]\nReadWritePaths=/srv/images"), "{written}");
        let home = advice("/root/.docker/config.json", Access::Read, ErrorKind::PermissionDenied);
        let lines = "[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=/root/.docker/config.json";
        assert!(home.ends_with(lines), "{home}");
        let temporary = advice("/tmp/key.pem", Access::Read, ErrorKind::NotFound);
        assert!(temporary.ends_with("[Service]\nBindReadOnlyPaths=/tmp/key.pem"), "{temporary}");
        for (path, access, kind) in [
            ("/etc/key.pem", Access::Read, ErrorKind::PermissionDenied),
            ("/etc/key.pem", Access::Read, ErrorKind::NotFound),
            ("/srv/images", Access::Write, ErrorKind::StorageFull),
        ] {
            assert_eq!(advice(path, access, kind), "");
        }
    }
}
