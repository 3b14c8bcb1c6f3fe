//! What is in force: every value checked, units resolved, secrets read. The rest of the program sees only this.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::oci::{Platform, Registry};

/// All settings of a running daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    pub image_path: PathBuf,
    /// Never empty.
    pub listen: Vec<SocketAddr>,
    /// The registry of a request that names none.
    pub default_registry: Option<Registry>,
    pub log: Log,
    pub platform: Platform,
    /// Silence from an upstream after which a connection to it is given up.
    pub pull_timeout: Duration,
    pub air_gapped: bool,
    pub not_found_ttl: Duration,
    pub abandoned: Abandoned,
    pub proxy: Proxy,
    /// What holds for registries without an entry, and for what an entry leaves out.
    pub defaults: RegistryDefaults,
    pub registries: Vec<RegistrySettings>,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: tracing::level_filters::LevelFilter,
    pub file: Option<PathBuf>,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// How long something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    For(Duration),
    Forever,
}

impl Age {
    pub fn covers(self, age: Duration) -> bool {
        match self {
            Self::For(limit) => age < limit,
            Self::Forever => true,
        }
    }
}

/// What becomes of a download that nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    Finish,
    PauseAfter(Duration),
}

/// What the miss of a manifest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    None,
    /// An image's config and layers.
    Image,
    /// For an index also the image for our platform.
    Platform,
}

/// How upstreams are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as they are when the daemon starts.
    Environment,
    /// One for all, but for the hosts, domains and networks in `except`.
    Explicit { url: Secret, except: Vec<String> },
}

/// What a registry's entry can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryDefaults {
    pub tag_ttl: Age,
    pub stale_if_error: Age,
    pub always_pull_latest: bool,
    pub prefetch: Prefetch,
    /// Downloads at once; at least 1.
    pub max_downloads: usize,
}

/// One configured registry.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    pub name: Registry,
    pub description: String,
    /// Where its API is: http or https, a host, perhaps a path; never a query. `/v2/…` goes behind it.
    pub url: Url,
    pub credentials: Credentials,
    pub tls: ClientTls,
    pub policy: RegistryDefaults,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Anonymous,
    Basic {
        user: String,
        password: Secret,
    },
    /// A ready bearer token.
    Token(Secret),
}

/// How a registry's certificate is checked, and ours shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// A PEM file of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub insecure_skip_verify: bool,
}

/// A value that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
