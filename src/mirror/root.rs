//! The file system that a runtime sees: the host's, or that of an image that is being built.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::MirrorError;

/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;

/// What stands before every path: `/`, or the root of an image. Symbolic links lead where they would for who has it
/// as its root, and never out of it.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// How `path`, an absolute one, is called from here.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Where it really is, or would be. An error of the kind `NotFound` says that a link leads to what is not there.
    pub(super) fn follow(&self, path: &str) -> io::Result<PathBuf> {
        self.follow_from(self.0.clone(), Path::new(path), &mut 0)
    }

    fn follow_from(&self, folder: PathBuf, path: &Path, links: &mut usize) -> io::Result<PathBuf> {
        let mut real = folder;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir if real != self.0 => {
                    real.pop();
                    continue;
                }
                Component::RootDir => {
                    real.clone_from(&self.0);
                    continue;
                }
                _ => continue,
            };
            let next = real.join(name);
            real = match fs::read_link(&next) {
                Ok(target) => {
                    *links += 1;
                    if *links > LINKS {
                        return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
                    }
                    let found = self.follow_from(real, &target, links)?;
                    if !found.exists() {
                        let (next, target) = (next.display(), target.display());
                        let what = format!("{next} is a symbolic link to {target}, which is not there");
                        return Err(io::Error::new(ErrorKind::NotFound, what));
                    }
                    found
                }
                Err(error) if is_absent(&error) || error.kind() == ErrorKind::InvalidInput => next,
                Err(error) => return Err(error),
            };
        }
        Ok(real)
    }

    /// The text of a file; None where there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, MirrorError> {
        let place = self.place(path);
        let malformed = |_| MirrorError::Malformed { path: place.clone(), what: "is not UTF-8".to_owned() };
        match self.follow(path).and_then(fs::read) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(malformed),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(MirrorError::on("read", &place)(error)),
        }
    }

    pub(super) fn is_folder(&self, path: &str) -> bool {
        self.follow(path).is_ok_and(|place| place.is_dir())
    }

    /// The names in a folder, sorted; none where there is no folder.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, MirrorError> {
        let place = self.place(path);
        let entries = match self.follow(path).and_then(fs::read_dir) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(MirrorError::on("read", &place)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(MirrorError::on("read", &place))?;
            names.extend(entry.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_within_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("root"));
        let place = |path: &str| root.place(path);
        fs::create_dir_all(place("/data/etc")).unwrap();
        fs::write(place("/data/etc/file"), "inside").unwrap();
        fs::create_dir_all(dir.path().join("data/etc")).unwrap();
        fs::write(dir.path().join("data/etc/file"), "outside").unwrap();
        symlink("/data/etc", place("/absolute")).unwrap();
        symlink("../../../data/./etc", place("/above")).unwrap();
        symlink("absolute/file", place("/twice")).unwrap();
        for path in ["/absolute/file", "/above/file", "/twice", "/data/etc/../../../data/etc/file"] {
            assert_eq!(root.follow(path).unwrap(), place("/data/etc/file"), "{path}");
            assert_eq!(root.read(path).unwrap().unwrap(), "inside", "{path}");
        }
        assert_eq!(root.list("/absolute").unwrap(), ["file"]);
        assert!(root.is_folder("/above"));

        // What is not there yet is where its folder is.
        assert_eq!(root.follow("/absolute/new/file").unwrap(), place("/data/etc/new/file"));
        symlink(dir.path().join("data/etc"), place("/outside")).unwrap();
        let error = root.follow("/outside/file").unwrap_err();
        assert!(error.to_string().ends_with("data/etc, which is not there"), "{error}");
        assert_eq!(root.read("/outside/file").unwrap(), None);
        symlink("/circle", place("/circle")).unwrap();
        assert!(matches!(root.read("/circle"), Err(MirrorError::File { .. })));
    }
}
