//! Whose the folder is. A command that root runs must not leave in it what the daemon's user may not open.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::libc::{O_DIRECTORY, O_NOFOLLOW};
use nix::unistd::geteuid;

/// Gives what was just made to the owner of the store's folder. It has to be new: root gives nothing away that a link
/// leads to.
pub fn give(made: &File, root: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(root)?;
    fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// The same for a folder.
pub fn give_folder(made: &Path, root: &Path) -> io::Result<()> {
    let folder = File::options().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(made)?;
    give(&folder, root)
}
