//! A file system in user space with one file, whose reads fail from some byte on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request,
};

use super::layout::Blob;

const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(60);

struct Failing {
    blob: Blob,
    from: u64,
}

impl Failing {
    fn attributes(&self, node: INodeNo) -> FileAttr {
        let (kind, perm, size) = match node {
            FILE => (FileType::RegularFile, 0o644, self.blob.size()),
            _ => (FileType::Directory, 0o755, 0),
        };
        let at = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: node,
            size,
            blocks: size.div_ceil(512),
            atime: at,
            mtime: at,
            ctime: at,
            crtime: at,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Failing {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("blob") => reply.entry(&TTL, &self.attributes(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(node));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if offset + u64::from(size) > self.from {
            return reply.error(Errno::EIO);
        }
        reply.data(&self.blob.slice(offset, u64::from(size).min(self.blob.size().saturating_sub(offset))));
    }
}

/// The file of a blob that cannot be read from byte `from` on; mounted until dropped.
pub struct FailingFile {
    _session: BackgroundSession,
    folder: tempfile::TempDir,
}

impl FailingFile {
    pub fn of(blob: &Blob, from: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("failing".into())];
        let failing = Failing { blob: blob.clone(), from };
        let _session = fuser::spawn_mount(failing, folder.path(), &config).unwrap();
        Self { _session, folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("blob")
    }

    /// Stands in `path`'s place.
    pub fn replace(&self, path: &Path) {
        std::fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(self.path(), path).unwrap();
    }
}
