//! Replacing configuration files in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{MirrorError, Root};

/// What becomes of one file.
#[derive(Debug)]
pub struct Change {
    root: Root,
    path: String,
    /// Where it is called so from here, and where its links lead.
    place: PathBuf,
    real: PathBuf,
    before: Option<String>,
    after: Option<String>,
    own_folder: bool,
}

impl Change {
    /// None is a file that is not there. One below a link to nowhere cannot be written: whoever made the link knows
    /// what will be there.
    pub(super) fn new(
        root: &Root,
        path: &str,
        before: Option<String>,
        after: Option<String>,
    ) -> Result<Self, MirrorError> {
        let place = root.place(path);
        let real = root.follow(path).map_err(MirrorError::on("find out where it is", &place))?;
        Ok(Self { root: root.clone(), path: path.to_owned(), place, real, before, after, own_folder: false })
    }

    /// The file's folder is there for it alone, and goes with it.
    pub(super) fn with_folder(mut self) -> Self {
        self.own_folder = true;
        self
    }

    pub fn path(&self) -> &Path {
        &self.place
    }

    pub fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }

    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    pub fn is_done(&self) -> bool {
        self.before == self.after
    }

    pub(super) fn apply(&self) -> Result<(), MirrorError> {
        if self.is_done() {
            return Ok(());
        }
        if self.root.read(&self.path)? != self.before {
            return Err(MirrorError::Raced { path: self.place.clone() });
        }
        match &self.after {
            Some(text) => replace(&self.real, text),
            None => {
                fs::remove_file(&self.real).map_err(MirrorError::on("remove", &self.real))?;
                if let Some(folder) = self.real.parent().filter(|_| self.own_folder) {
                    // Others' files keep it.
                    let _ = fs::remove_dir(folder);
                }
                Ok(())
            }
        }
    }
}

/// A reader finds the old text or the new one. Mode and owner stay.
fn replace(place: &Path, text: &str) -> Result<(), MirrorError> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(MirrorError::on("make the folder", folder))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // No `.conf` or `.toml` at its end: runtimes read all of these that are in a folder.
    let temporary = folder.join(format!(".{name}.ociregistry-{}", std::process::id()));
    let written = write(&temporary, text, fs::metadata(place).ok().as_ref())
        .and_then(|()| fs::rename(&temporary, place))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(MirrorError::on("write", place))
}

fn write(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    let own = file.metadata()?;
    if let Some(like) = like.filter(|like| (like.uid(), like.gid()) != (own.uid(), own.gid())) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    let mode = like.map_or(0o644, |like| like.mode() & 0o7777);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As a change of a file below `folder`.
    fn apply(
        folder: &Path,
        path: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<(), MirrorError> {
        let root = Root::new(folder.to_owned());
        Change::new(&root, path, before.map(str::to_owned), after.map(str::to_owned))?.apply()
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/file", &link).unwrap();
        apply(dir.path(), "/link", Some("old"), Some("new")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_link_to_nowhere_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/volume/file", dir.path().join("link")).unwrap();
        let error = apply(dir.path(), "/link", None, Some("new")).unwrap_err().to_string();
        assert!(error.ends_with("link is a symbolic link to /volume/file, which is not there"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn everybody_may_read_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        apply(dir.path(), "/a/b/file", None, Some("new")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a/b/file")).unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_file_that_changed_since_the_plan_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "somebody's").unwrap();
        let error = apply(dir.path(), "/file", Some("old"), Some("new")).unwrap_err();
        assert!(matches!(error, MirrorError::Raced { .. }));
        assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    }
}
