//! Who the daemon is. Root only makes ready what needs root: sockets, files and keys that others may not open.
//! Then it becomes an account of its own, for good.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, chown, geteuid, initgroups, setresgid, setresuid, setuid};

use super::ServeError;
use crate::config;

/// What becomes of the user that started us.
pub enum Account {
    /// It is not root: it stays.
    Started,
    /// Root, as the configuration says in so many words.
    Root,
    Other(Other),
}

/// An account to become.
pub struct Other {
    user: String,
    group: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// Looks the configured account up, where it is needed.
    pub fn find(wanted: &config::Account) -> Result<Self, ServeError> {
        let config::Account { user, group } = wanted;
        if !geteuid().is_root() {
            return Ok(Self::Started);
        }
        if user == "root" {
            return Ok(Self::Root);
        }
        let missing = |what: &str, name: &str, make: String| {
            let advice = "started as root, the daemon becomes the user and group of the configuration";
            ServeError::Account(format!(
                "there is no {what} `{name}`; {advice}. Make it with\n  {make}\nor, to serve as root, type the same \
                 command again with\n  --user root\nat its end, or write user = \"root\" into the configuration"
            ))
        };
        let failed = |what: &str, name: &str, errno: Errno| {
            ServeError::Account(format!("the {what} `{name}` cannot be looked up: {errno}"))
        };
        let make_user =
            || format!("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {user}");
        let found = User::from_name(user).map_err(|errno| failed("user", user, errno))?;
        let found = found.ok_or_else(|| missing("user", user, make_user()))?;
        if found.uid.is_root() {
            return Err(ServeError::Account(format!(
                "the user `{user}` is root: write user = \"root\" if that is meant"
            )));
        }
        let gid = Group::from_name(group)
            .map_err(|errno| failed("group", group, errno))?
            .ok_or_else(|| missing("group", group, format!("groupadd --system {group}")))?
            .gid;
        Ok(Self::Other(Other { user: user.clone(), group: group.clone(), uid: found.uid, gid }))
    }

    /// The owner of a folder, for what root does there.
    fn owner_of(folder: &Path) -> Self {
        // What is wrong with it is told by who opens it.
        let Ok(data) = fs::metadata(folder) else { return Self::Started };
        let (uid, gid) = (Uid::from_raw(data.uid()), Gid::from_raw(data.gid()));
        if !geteuid().is_root() || uid.is_root() {
            return Self::Started;
        }
        let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let group = Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
        Self::Other(Other { user, group, uid, gid })
    }

    /// Makes a folder if there is none, as the one that the daemon will be.
    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        let Self::Other(other) = self else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::DirBuilder::new().mode(0o750).create(path)?;
        other.give(path)
    }

    /// Hands over what root has just made.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Other(other) => other.give(path),
            Self::Started | Self::Root => Ok(()),
        }
    }

    /// Becomes it, for good. No thread may have been started: one of its properties is a thread's own.
    pub fn assume(&self) -> Result<(), ServeError> {
        let Self::Other(other) = self else { return Ok(()) };
        other.assume().map_err(|what| {
            ServeError::Account(format!("cannot become {}:{}: {what}", other.user, other.group))
        })
    }

    /// In words, for the log; none where there is nothing to say.
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::Started => None,
            Self::Root => Some("serving as root, as the configuration says".to_owned()),
            Self::Other(Other { user, group, .. }) => {
                Some(format!("started as root, serving as {user}:{group}, for good"))
            }
        }
    }

    /// How what is there already is handed over to the account.
    pub fn advice(&self, path: &Path) -> Option<String> {
        let Self::Other(Other { user, group, .. }) = self else { return None };
        let path = path.display();
        Some(format!(
            ". The daemon was started as root and serves as {user}, which needs to write there: \
             chown -R {user}:{group} {path}, or serve as another (user, group)"
        ))
    }
}

/// Who changes a cache as root becomes the owner of its folder, for good: what it makes there has to be the daemon's, and
/// no link that the daemon's account may have put there leads root elsewhere. To be called before there is another
/// thread.
pub fn become_owner(folder: &Path) -> Result<(), ServeError> {
    Account::owner_of(folder).assume()
}

impl Other {
    fn give(&self, path: &Path) -> io::Result<()> {
        Ok(chown(path, Some(self.uid), Some(self.gid))?)
    }

    fn assume(&self) -> Result<(), String> {
        let step = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        let name = CString::new(self.user.as_str()).map_err(|error| error.to_string())?;
        initgroups(&name, self.gid).map_err(step("setgroups"))?;
        setresgid(self.gid, self.gid, self.gid).map_err(step("setgid"))?;
        setresuid(self.uid, self.uid, self.uid).map_err(step("setuid"))?;
        if setuid(Uid::from_raw(0)).is_ok() {
            return Err("root could be had again".to_owned());
        }
        prctl::set_no_new_privs().map_err(step("no_new_privs"))
    }
}
