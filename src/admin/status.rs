//! How the daemon is: for programs, and in one line for systemd. docs/status.md says what each field means; a test
//! holds the two together.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Reloaded;
use super::words::{Bytes, clock, count};

/// All that `ociregistry status` tells. Counts are those since the start, sizes are in bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: Timestamp,
    pub uptime_seconds: u64,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    pub image_path: String,
    /// Those under way included.
    pub requests: u64,
    pub requests_under_way: u64,
    /// Manifests, blobs and lists that were in the cache, that were not, and that were served though upstream did not
    /// confirm them.
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
    /// Of bodies, to clients.
    pub bytes_served: u64,
    /// Of bodies, from registries.
    pub bytes_fetched: u64,
    /// Of manifests, blobs and lists that were served, less those that were fetched; never less than zero.
    pub bytes_saved: u64,
    /// What the cache holds; none while that is being counted.
    pub cache: Option<CacheSize>,
    /// Pinned images, in the cache or not. None when they cannot be read.
    pub pins: Option<u64>,
    /// Of the file system. None when that does not answer.
    pub disk: Option<DiskSpace>,
    /// Why nothing is kept just now. Pulls go on.
    pub disk_trouble: Option<DiskTrouble>,
    /// Answers that are passed on past a disk that does not take them.
    pub passing: u64,
    /// The oldest first.
    pub downloads: Vec<Underway>,
    /// By name: those of the configuration, and others that were asked of late.
    pub upstreams: Vec<UpstreamStatus>,
    /// The last round that kept space.
    pub last_prune: Option<PruneRound>,
    /// The last check of the whole cache, also one before the start.
    pub last_check: Option<LastCheck>,
    pub last_error: Option<Mention>,
    /// What came of reading the configuration anew, if that was ever done.
    pub last_reload: Option<Reloaded>,
    /// Lines of the log that were not written because what reads it was too slow.
    pub log_lines_dropped: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct CacheSize {
    /// Tags, and manifests that were asked for by digest.
    pub images: u64,
    pub manifests: u64,
    pub blobs: u64,
    /// Of manifests and blobs.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct DiskSpace {
    pub total: u64,
    /// For those without privileges.
    pub free: u64,
    /// What `[prune] min_free` asks for; none when nothing is pruned for it.
    pub min_free: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DiskTrouble {
    /// `full`, `read-only` or `failing`.
    pub state: String,
    pub since: Timestamp,
    /// What was tried first, and what the system said.
    pub error: String,
}

/// Something said, and when.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mention {
    pub at: Timestamp,
    pub what: String,
}

/// A download that is not over.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Underway {
    pub digest: String,
    /// The upstream.
    pub registry: String,
    pub repository: String,
    pub since: Timestamp,
    /// Upstream answers; otherwise it waits for that, or for its turn.
    pub running: bool,
    /// Once somebody said so.
    pub size: Option<u64>,
    /// Bytes that are there.
    pub written: u64,
    /// Bytes in a second, over the last few.
    pub rate: u64,
    /// Clients that wait for it.
    pub readers: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub state: UpstreamState,
    /// Of `failing` and `limited`.
    pub since: Option<Timestamp>,
    /// Of `limited`, when it said so.
    pub until: Option<Timestamp>,
    /// Whatever has come of it since.
    pub last_error: Option<Mention>,
    /// Each try counts; those to its token service and to where it redirects do not.
    pub requests: u64,
    /// Of bodies that came.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    NeverAsked,
    Reachable,
    Failing,
    /// 429.
    Limited,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct PruneRound {
    pub finished: Timestamp,
    pub seconds: u64,
    pub dry_run: bool,
    /// What went.
    pub images: u64,
    pub manifests: u64,
    pub blobs: u64,
    pub bytes: u64,
    /// Whether there was as much room then as there should be.
    pub enough: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct LastCheck {
    pub finished: Timestamp,
    pub seconds: u64,
    /// Files that were not as they should be.
    pub wrong: u64,
    /// Of those, what was put aside or removed.
    pub repaired: u64,
}

impl Status {
    /// On one line: `1,204 images, 48.1 GB; 3 requests and 2 downloads under way`, and what is wrong.
    pub fn line(&self) -> String {
        let mut line = match &self.cache {
            Some(cache) => format!("{}, {}", count(cache.images, "image"), Bytes(cache.bytes)),
            None => "the cache is being counted".to_owned(),
        };
        let requests = count(self.requests_under_way, "request");
        let downloads = count(self.downloads.len() as u64, "download");
        line += &match (self.requests_under_way, self.downloads.len()) {
            (0, 0) => "; nothing under way".to_owned(),
            (_, 0) => format!("; {requests} under way"),
            (0, _) => format!("; {downloads} under way"),
            _ => format!("; {requests} and {downloads} under way"),
        };
        if let Some(DiskTrouble { state, since, error }) = &self.disk_trouble {
            line += &format!("; nothing new is kept, the disk is {state} since {}: {error}", clock(*since));
        }
        if let Some((at, reason)) = self.refused() {
            let first = reason.lines().next().unwrap_or_default();
            line += &format!("; the configuration of {} is refused: {first}", clock(at));
        }
        if let Some(Mention { at, what }) = &self.last_error {
            line += &format!("; last error {}: {}", clock(*at), what.replace('\n', " "));
        }
        line
    }

    /// When the last reload was refused, and why.
    pub fn refused(&self) -> Option<(Timestamp, &str)> {
        let reload = self.last_reload.as_ref()?;
        Some((reload.at, reload.refused.as_deref()?))
    }
}

#[cfg(test)]
impl Status {
    /// One that has something to say of everything.
    pub fn full() -> Self {
        let at = Timestamp::UNIX_EPOCH;
        let mention = Mention { at, what: "quay.io: cannot connect".to_owned() };
        let upstream = UpstreamStatus {
            name: "docker.io".to_owned(),
            state: UpstreamState::Reachable,
            since: None,
            until: None,
            last_error: None,
            requests: 1234,
            bytes: 5_000_000,
        };
        let failing = UpstreamStatus {
            name: "quay.io".to_owned(),
            state: UpstreamState::Failing,
            since: Some(at),
            last_error: Some(mention.clone()),
            requests: 2,
            bytes: 0,
            ..upstream.clone()
        };
        let limited = UpstreamStatus {
            name: "ghcr.io".to_owned(),
            state: UpstreamState::Limited,
            until: Some(at),
            ..failing.clone()
        };
        let never = UpstreamStatus {
            name: "registry.example:5000".to_owned(),
            state: UpstreamState::NeverAsked,
            requests: 0,
            bytes: 0,
            ..upstream.clone()
        };
        Self {
            version: "2.0.0".to_owned(),
            pid: 7,
            started: at,
            uptime_seconds: 5,
            addresses: vec!["127.0.0.1:8080".to_owned()],
            image_path: "/var/lib/ociregistry".to_owned(),
            requests: 9,
            requests_under_way: 1,
            hits: 2,
            misses: 1,
            stale: 0,
            bytes_served: 3_500,
            bytes_fetched: 1_000,
            bytes_saved: 2_500,
            cache: Some(CacheSize { images: 1204, manifests: 3210, blobs: 9876, bytes: 48_100_000_000 }),
            pins: Some(3),
            disk: Some(DiskSpace {
                total: 500_000_000_000,
                free: 120_000_000_000,
                min_free: Some(75_000_000_000),
            }),
            disk_trouble: Some(DiskTrouble {
                state: "full".to_owned(),
                since: at,
                error: "write /x: No space left on device".to_owned(),
            }),
            passing: 2,
            downloads: vec![Underway {
                digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
                registry: "docker.io".to_owned(),
                repository: "library/app".to_owned(),
                since: at,
                running: true,
                size: Some(34_500_000),
                written: 12_000_000,
                rate: 5_100_000,
                readers: 2,
            }],
            upstreams: vec![upstream, limited, failing, never],
            last_prune: Some(PruneRound {
                finished: at,
                seconds: 1,
                dry_run: false,
                images: 3,
                manifests: 4,
                blobs: 10,
                bytes: 1_000_000,
                enough: false,
            }),
            last_check: Some(LastCheck { finished: at, seconds: 60, wrong: 0, repaired: 0 }),
            last_error: Some(mention),
            last_reload: Some(Reloaded {
                at,
                refused: Some("/etc/ociregistry.toml:5: prot: unknown key".to_owned()),
                changed: Vec::new(),
                needs_restart: Vec::new(),
                notes: Vec::new(),
            }),
            log_lines_dropped: 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn one_line_says_how_it_is() {
        let full = Status::full();
        let well = Status { disk_trouble: None, last_error: None, last_reload: None, ..full.clone() };
        assert_eq!(well.line(), "1,204 images, 48.1 GB; 1 request and 1 download under way");
        let idle = Status { cache: None, requests_under_way: 0, downloads: Vec::new(), ..well };
        assert_eq!(idle.line(), "the cache is being counted; nothing under way");
        let line = full.line();
        let parts: Vec<_> = line.split("; ").collect();
        assert!(parts[2].starts_with("nothing new is kept, the disk is full since 19"), "{line}");
        assert!(parts[3].ends_with("is refused: /etc/ociregistry.toml:5: prot: unknown key"), "{line}");
        assert!(
            parts[4].starts_with("last error 19") && parts[4].ends_with("quay.io: cannot connect"),
            "{line}"
        );
    }

    fn paths(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    found.insert(path.clone());
                    paths(&path, value, found);
                }
            }
            Value::Array(values) => {
                values.iter().for_each(|value| paths(&format!("{prefix}[]"), value, found))
            }
            _ => {}
        }
    }

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_there() {
        let mut told = BTreeSet::new();
        paths("", &serde_json::to_value(Status::full()).unwrap(), &mut told);
        let text = include_str!("../../docs/status.md");
        let names =
            text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
        let documented: Vec<_> = names.collect();
        assert_eq!(documented.iter().cloned().collect::<BTreeSet<_>>(), told);
        assert_eq!(documented.len(), told.len(), "one is there twice");
    }
}
