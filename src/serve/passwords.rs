//! Passwords of clients (RFC 7617, Basic) against bcrypt hashes, each of which takes a core for some 50 ms or more.
//!
//! What came out of a check is remembered under a salted hash of user and password, so that a pull of many requests
//! is one check; those who ask with the same at the same time wait for one. Few are checked at once, and of clients
//! at one address (of IPv6: in one /64) one after the other, so that who guesses passwords holds up neither pulls nor others' first login.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use super::listener::Peer;
use crate::config::{Secret, Users};
use crate::oci::{Algorithm, Digest, Hasher as ContentHasher};

/// Outcomes remembered, of some 150 bytes each.
const REMEMBERED: usize = 4096;

/// Queues for clients; those of one address, or of one /64 of IPv6, are in the same.
const LANES: usize = 64;

/// A client waits so long for its password to be checked (containerd gives up on headers after 30 s).
const WITHIN: Duration = Duration::from_secs(20);

/// What a client says of itself.
pub struct Login {
    user: String,
    password: Secret,
}

impl Login {
    /// Reads an `Authorization`. None for another scheme and for nonsense.
    pub fn parse(header: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self { user: user.to_owned(), password: Secret::new(password.to_owned()) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// It could not be checked in time.
    Unknown,
}

/// The users, and what is known of who they are.
pub struct Passwords {
    users: Users,
    known: Cache<Digest, bool>,
    room: Arc<Semaphore>,
    lanes: [Semaphore; LANES],
    /// Hashes computed.
    hashed: Arc<AtomicU64>,
}

impl Passwords {
    pub fn new(users: Users) -> Self {
        // The other half of the cores is for those who pull.
        let at_once = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self {
            users,
            known: Cache::new(REMEMBERED),
            room: Arc::new(Semaphore::new(at_once)),
            lanes: std::array::from_fn(|_| Semaphore::new(1)),
            hashed: Arc::default(),
        }
    }

    /// Whether this is a user's password. Must be called on a runtime.
    pub async fn check(&self, client: Peer, login: &Login) -> Verdict {
        let known = tokio::time::timeout(WITHIN, self.is_right(client, login)).await;
        match known.ok().flatten() {
            Some(true) => Verdict::Right,
            Some(false) => Verdict::Wrong,
            None => Verdict::Unknown,
        }
    }

    async fn is_right(&self, client: Peer, login: &Login) -> Option<bool> {
        let (hash, is_user) = self.users.hash_for(&login.user);
        match self.known.get_value_or_guard_async(&key(hash, login)).await {
            Ok(right) => Some(right),
            Err(place) => {
                // A name that is nobody's may be a password that was typed in the wrong place.
                let user = is_user.then(|| login.user.clone());
                let right =
                    self.verify(client, user, login.password.clone(), hash.to_owned()).await? && is_user;
                // Fails when it was taken out meanwhile; then the next who asks checks again.
                let _ = place.insert(right);
                Some(right)
            }
        }
    }

    /// None when the thread that worked on it died. The log, at level debug, has `user`.
    async fn verify(
        &self,
        client: Peer,
        user: Option<String>,
        password: Secret,
        hash: String,
    ) -> Option<bool> {
        let _turn = self.lanes[lane(client)].acquire().await.ok()?;
        // Kept by the work itself, which goes on when its client hangs up.
        let room = self.room.clone().acquire_owned().await.ok()?;
        let hashed = self.hashed.clone();
        let work = move || {
            let begun = Instant::now();
            let right = bcrypt::verify(password.reveal(), &hash).unwrap_or(false);
            hashed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(user, took = ?begun.elapsed(), "hashed a password");
            drop(room);
            right
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

/// The salt is that of the user's bcrypt hash.
fn key(hash: &str, login: &Login) -> Digest {
    let mut hasher = ContentHasher::new(Algorithm::Sha256);
    for part in [hash, &login.user, login.password.reveal()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

fn lane(client: Peer) -> usize {
    let mut hasher = DefaultHasher::new();
    match client {
        Peer::Tcp(address) => match address.ip().to_canonical() {
            IpAddr::V4(address) => address.hash(&mut hasher),
            // Whoever has one address has all of its /64.
            IpAddr::V6(address) => address.segments()[..4].hash(&mut hasher),
        },
        Peer::Unix | Peer::Probe => {}
    }
    (hasher.finish() % LANES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Peer = Peer::Unix;

    fn passwords(users: &[(&str, &str)]) -> Passwords {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = users.iter().map(|(user, password)| {
            let hash = bcrypt::hash_with_result(password, 4).unwrap();
            format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
        });
        std::fs::write(file.path(), lines.collect::<String>()).unwrap();
        Passwords::new(Users::read(file.path()).unwrap())
    }

    fn login(user: &str, password: &str) -> Login {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Login::parse(&HeaderValue::from_str(&header).unwrap()).unwrap()
    }

    fn hashed(passwords: &Passwords) -> u64 {
        passwords.hashed.load(Ordering::Relaxed)
    }

    #[test]
    fn a_login_is_basic() {
        let parse = |text: &str| Login::parse(&HeaderValue::from_str(text).unwrap());
        let login = parse("bAsIc bWU6YTpiw6Q=").unwrap();
        assert_eq!((&*login.user, login.password.reveal()), ("me", "a:bä"));
        for text in [
            "",
            "Basic",
            "Basic ",
            "Basic bWU",
            "Basic %%%%",
            "Bearer bWU6eA==",
            "Basic bWU=",
            "Basic /////w==",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_network_of_ipv6_has_one_lane() {
        let lane = |address: &str| super::lane(Peer::Tcp(format!("{address}:1").parse().unwrap()));
        for n in 0..100 {
            assert_eq!(lane(&format!("[2001:db8::{n:x}:1]")), lane("[2001:db8::1]"));
            assert_eq!(lane(&format!("[::ffff:192.0.2.{n}]")), lane(&format!("192.0.2.{n}")));
        }
        assert!((0..100).any(|n| lane(&format!("[2001:db8:0:{n:x}::1]")) != lane("[2001:db8::1]")));
        assert!((0..100).any(|n| lane(&format!("192.0.2.{n}")) != lane("192.0.2.1")));
    }

    #[tokio::test]
    async fn a_password_is_hashed_once_right_or_wrong() {
        let passwords = passwords(&[("me", "right"), ("you", "other")]);
        for _ in 0..5 {
            assert_eq!(passwords.check(HERE, &login("me", "right")).await, Verdict::Right);
        }
        assert_eq!(hashed(&passwords), 1);
        for _ in 0..5 {
            assert_eq!(passwords.check(HERE, &login("me", "wrong")).await, Verdict::Wrong);
        }
        assert_eq!(hashed(&passwords), 2);
        assert_eq!(passwords.check(HERE, &login("you", "right")).await, Verdict::Wrong);
        assert_eq!(passwords.check(HERE, &login("me", "")).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn guesses_push_out_no_password_that_is_in_use() {
        let passwords = passwords(&[("me", "right")]);
        // As if they had been checked, which would take a while.
        let guess = |n: usize| {
            let (hash, _) = passwords.users.hash_for("me");
            passwords.known.insert(key(hash, &login("me", &n.to_string())), false);
        };
        (0..2 * REMEMBERED).for_each(guess);
        for _ in 0..10 {
            assert_eq!(passwords.check(HERE, &login("me", "right")).await, Verdict::Right);
        }
        (2 * REMEMBERED..12 * REMEMBERED).for_each(guess);
        assert!(passwords.known.len() < 2 * REMEMBERED);
        assert_eq!(passwords.check(HERE, &login("me", "right")).await, Verdict::Right);
        assert_eq!(hashed(&passwords), 1);
    }

    #[tokio::test]
    async fn who_is_nobody_is_refused_after_the_same_work_with_anybodys_password() {
        let passwords = passwords(&[("me", "right")]);
        assert_eq!(passwords.check(HERE, &login("nobody", "right")).await, Verdict::Wrong);
        assert_eq!(hashed(&passwords), 1);
        assert_eq!(passwords.check(HERE, &login("me", "right")).await, Verdict::Right);
        assert_eq!(passwords.check(HERE, &login("nobody", "right")).await, Verdict::Wrong);
        assert_eq!(hashed(&passwords), 2);
    }

    #[tokio::test]
    async fn who_ask_with_the_same_at_the_same_time_wait_for_one() {
        let passwords = Arc::new(passwords(&[("me", "right")]));
        let ask = |n: u16| {
            let passwords = passwords.clone();
            let client = Peer::Tcp(([127, 0, 0, 1], n).into());
            tokio::spawn(async move { passwords.check(client, &login("me", "right")).await })
        };
        let asked: Vec<_> = (1..50).map(ask).collect();
        for verdict in asked {
            assert_eq!(verdict.await.unwrap(), Verdict::Right);
        }
        assert_eq!(hashed(&passwords), 1);
    }

    #[tokio::test]
    async fn who_guesses_takes_one_turn_and_leaves_none_behind() {
        let passwords = Arc::new(passwords(&[("me", "right")]));
        let stranger = Peer::Tcp(([192, 0, 2, 1], 1).into());
        // Nothing is hashed while this is held.
        let room = passwords.room.clone();
        let all = room.available_permits();
        let held = room.clone().acquire_many_owned(all as u32).await.unwrap();
        let guess = |n: u32| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.check(stranger, &login("me", &n.to_string())).await })
        };
        let guesses: Vec<_> = (0..100).map(guess).collect();
        let other = passwords.clone();
        let me = tokio::spawn(async move { other.check(HERE, &login("me", "right")).await });
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        drop(held);
        assert_eq!(me.await.unwrap(), Verdict::Right);
        // In one queue it would have come after all of them; how few exactly is the scheduler's.
        assert!(hashed(&passwords) < 50, "{}", hashed(&passwords));
        guesses.iter().for_each(|guess| guess.abort());
        let _free = room.acquire_many(all as u32).await.unwrap();
    }
}
