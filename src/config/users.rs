//! Users and their passwords' hashes, from a file as htpasswd(1) writes it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use bcrypt::HashParts;

use super::{Access, Secret, drop_in};

/// The greatest cost that htpasswd(1) takes; one more doubles the work, and this is seconds of it.
const MAX_COST: u32 = 17;

/// Who may pull: names, each with a bcrypt hash. Never empty.
#[derive(Clone, Debug)]
pub struct Users(BTreeMap<String, Secret>);

impl Users {
    /// Reads a file. The error names it, and the line, and shows no hash.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("{} cannot be read: {error}{}", path.display(), drop_in(path, Access::Read, &error))
        })?;
        Self::parse(&text).map_err(|(line, what)| match line {
            Some(line) => format!("{}:{line}: {what}", path.display()),
            None => format!("{}: {what}", path.display()),
        })
    }

    fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().map(str::trim_end).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: String| (Some(number + 1), what);
            let (user, hash) = line
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or_else(|| wrong("want a user, a colon and a bcrypt hash".to_owned()))?;
            check(hash).map_err(|found| {
                wrong(format!("user `{user}` has {found}, want a bcrypt hash such as `htpasswd -B` writes"))
            })?;
            if users.insert(user.to_owned(), Secret::new(hash.to_owned())).is_some() {
                return Err(wrong(format!("user `{user}` is there already")));
            }
        }
        if users.is_empty() {
            return Err((None, "names no user, so that nobody could pull".to_owned()));
        }
        Ok(Self(users))
    }

    /// As they stand in a file, in order of their names.
    pub(super) fn lines(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(user, hash)| format!("{user}:{}\n", hash.reveal()).into_bytes()).collect()
    }

    /// The hash that a password of `user` is checked against, and whether there is such a user. A name that is
    /// nobody's gets the hash of somebody, always the same one, so that it is refused after the same work.
    pub fn hash_for(&self, user: &str) -> (&str, bool) {
        if let Some(hash) = self.0.get(user) {
            return (hash.reveal(), true);
        }
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let count = self.0.len() as u64;
        let index = usize::try_from(hasher.finish() % count.max(1)).unwrap_or_default();
        (self.0.values().nth(index).map_or("", Secret::reveal), false)
    }
}

/// What is found in place of a bcrypt hash that we take.
fn check(hash: &str) -> Result<(), &'static str> {
    let kinds = [
        ("$apr1$", "an MD5 hash"),
        ("$1$", "an MD5 hash"),
        ("{SHA}", "a SHA-1 hash"),
        ("$5$", "a SHA-256 hash"),
        ("$6$", "a SHA-512 hash"),
        ("$argon2", "an Argon2 hash"),
    ];
    if let Some((_, kind)) = kinds.iter().find(|(prefix, _)| hash.starts_with(prefix)) {
        return Err(kind);
    }
    if !["$2y$", "$2a$", "$2b$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return Err("a hash of an unknown kind, or a bare password");
    }
    match hash.parse::<HashParts>() {
        Ok(parts) if parts.get_cost() < 4 => Err("a bcrypt hash of a cost below 4"),
        Ok(parts) if parts.get_cost() > MAX_COST => Err("a bcrypt hash of a cost above 17"),
        Ok(_) => Ok(()),
        Err(_) => Err("a damaged bcrypt hash"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuwqK6CQQqV9kkgeZjHZqKsbLVZ1l4kUK";

    fn error(text: &str) -> String {
        let (line, what) = Users::parse(text).unwrap_err();
        format!("{}: {what}", line.unwrap_or_default())
    }

    #[test]
    fn users_have_bcrypt_hashes_of_three_spellings() {
        let others = [HASH.replace("2y", "2a"), HASH.replace("2y", "2b")];
        let text = format!("# comment\n\na:{HASH}\r\nb:{}\nc c:{}\n", others[0], others[1]);
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.hash_for("a"), (HASH, true));
        assert_eq!(users.hash_for("b"), (&*others[0], true));
        assert_eq!(users.hash_for("c c"), (&*others[1], true));
    }

    #[test]
    fn nobody_has_always_the_hash_of_the_same_somebody() {
        let other = HASH.replace("abc", "xyz");
        let users = Users::parse(&format!("a:{HASH}\nb:{other}")).unwrap();
        for n in 0..20 {
            let name = format!("nobody{n}");
            let (hash, known) = users.hash_for(&name);
            assert!(!known && [HASH, &other].contains(&hash));
            assert_eq!(users.hash_for(&name).0, hash);
        }
    }

    #[test]
    fn other_hashes_are_named_with_their_line() {
        for (hash, found) in [
            ("$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "an MD5 hash"),
            ("{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", "a SHA-1 hash"),
            ("$6$salt$hash", "a SHA-512 hash"),
            ("hunter2", "a hash of an unknown kind, or a bare password"),
            ("", "a hash of an unknown kind"),
            (&HASH[..50], "a damaged bcrypt hash"),
            (&HASH.replace("$05$", "$xx$"), "a damaged bcrypt hash"),
            (&HASH.replace("$05$", "$31$"), "a bcrypt hash of a cost above 17"),
            (&HASH.replace("$05$", "$03$"), "a bcrypt hash of a cost below 4"),
        ] {
            let error = error(&format!("a:{HASH}\nb:{hash}"));
            assert!(error.starts_with(&format!("2: user `b` has {found}")), "{hash}: {error}");
            assert!(!error.contains("hunter2"));
        }
        assert!(error("hunter2").starts_with("1: want a user, a colon"));
        assert!(error(&format!(":{HASH}")).starts_with("1: want a user"));
        assert!(error(&format!("a:{HASH}\na:{HASH}")).starts_with("2: user `a` is there already"));
        assert!(error("# nobody\n").contains("names no user"));
    }
}
