//! A small file system of a test's own, which fills up, turns read-only or fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::succeed;

/// A file system of 64 MiB in a file, mounted until dropped.
pub struct Disk {
    pub at: PathBuf,
}

impl Disk {
    /// By a command that makes it, and options of `mount`.
    pub fn mounted(make: &[&str], options: &str, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let image = at.with_extension("disk");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let mut mkfs = Command::new(make[0]);
        mkfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(&make[1..]).arg(&image);
        succeed(mkfs);
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(&image).arg(at);
        succeed(mount);
        Self { at: at.to_owned() }
    }

    /// As ext4 does when it finds itself damaged, where it is mounted with `errors=remount-ro`.
    pub fn turn_read_only(&self) {
        std::fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device()), "a test").unwrap();
    }

    /// After it failed: what was on it is mounted in its place, from another device.
    pub fn mount_again(&self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.at);
        succeed(umount);
        let copy = self.at.with_extension("copy");
        std::fs::copy(self.at.with_extension("disk"), &copy).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,nouuid"]).arg(copy).arg(&self.at);
        succeed(mount);
    }

    /// What `/sys/fs/ext4` calls it.
    fn device(&self) -> String {
        let mut findmnt = Command::new("findmnt");
        findmnt.args(["-n", "-o", "SOURCE"]).arg(&self.at);
        succeed(findmnt).trim().trim_start_matches("/dev/").to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

pub const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F"];
/// Space cannot be reserved on it: it fills up in the middle of a layer.
pub const EXT4_WITHOUT_EXTENTS: &[&str] = &["mkfs.ext4", "-q", "-F", "-O", "^extent,^64bit"];
pub const XFS: &[&str] = &["mkfs.xfs", "-q", "-f", "--unsupported"];
