//! Reading configuration files, and replacing them in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::MirrorError;

/// What stands before every path: `/`, or the root of an image that is being built.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Where `path`, an absolute one, really is.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The text of a file; None where there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, MirrorError> {
        read(&self.place(path))
    }

    /// The names in a folder, sorted; none where there is no folder.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, MirrorError> {
        let place = self.place(path);
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
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

fn read(place: &Path) -> Result<Option<String>, MirrorError> {
    match fs::read(place) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| MirrorError::Malformed { path: place.to_owned(), what: "is not UTF-8".to_owned() }),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(MirrorError::on("read", place)(error)),
    }
}

/// What becomes of one file.
#[derive(Debug)]
pub struct Change {
    path: PathBuf,
    before: Option<String>,
    after: Option<String>,
    own_folder: bool,
}

impl Change {
    /// None is a file that is not there.
    pub(super) fn new(path: PathBuf, before: Option<String>, after: Option<String>) -> Self {
        Self { path, before, after, own_folder: false }
    }

    /// The file's folder is there for it alone, and goes with it.
    pub(super) fn with_folder(mut self) -> Self {
        self.own_folder = true;
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
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
        if read(&self.path)? != self.before {
            return Err(MirrorError::Raced { path: self.path.clone() });
        }
        match &self.after {
            Some(text) => replace(&self.path, text),
            None => {
                fs::remove_file(&self.path).map_err(MirrorError::on("remove", &self.path))?;
                if let Some(folder) = self.path.parent().filter(|_| self.own_folder) {
                    // Others' files keep it.
                    let _ = fs::remove_dir(folder);
                }
                Ok(())
            }
        }
    }
}

/// A reader finds the old text or the new one. Mode and owner stay, a symbolic link goes on pointing there.
fn replace(path: &Path, text: &str) -> Result<(), MirrorError> {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(MirrorError::on("make the folder", folder))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // No `.conf` or `.toml` at its end: runtimes read all of these that are in a folder.
    let temporary = folder.join(format!(".{name}.ociregistry-{}", std::process::id()));
    let written = write(&temporary, text, fs::metadata(&place).ok().as_ref())
        .and_then(|()| fs::rename(&temporary, &place))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(MirrorError::on("write", &place))
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
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Change::new(link.clone(), Some("old".into()), Some("new".into())).apply().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn everybody_may_read_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/file");
        Change::new(file.clone(), None, Some("new".into())).apply().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_file_that_changed_since_the_plan_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "somebody's").unwrap();
        let error = Change::new(file.clone(), Some("old".into()), Some("new".into())).apply().unwrap_err();
        assert!(matches!(error, MirrorError::Raced { .. }));
        assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    }
}
