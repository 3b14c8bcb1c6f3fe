//! What is in force: every value checked, units resolved, secrets read. The rest of the program sees only this.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::{Listen, NamePattern, PemFile, RegistryPattern, Secret, ServerTls, Users};
use crate::oci::{Image, Name, Platform, Registry};

/// All settings of a running daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    pub image_path: PathBuf,
    /// Never empty.
    pub listen: Vec<Listen>,
    /// Spoken on all TCP addresses.
    pub server_tls: Option<ServerTls>,
    /// The registry of a request that names none.
    pub default_registry: Option<Registry>,
    /// Where to ask whether pulls would work.
    pub health: Option<SocketAddr>,
    pub access: AccessSettings,
    /// Whether `docker.io/library/hello-world:latest` comes out of the program itself.
    pub hello_world: bool,
    pub log: Log,
    pub account: Account,
    pub platform: Platform,
    /// Silence from an upstream after which a connection to it is given up.
    pub pull_timeout: Duration,
    pub air_gapped: bool,
    pub not_found_ttl: Duration,
    pub abandoned: Abandoned,
    pub proxy: Proxy,
    pub preload: PreloadSettings,
    pub prune: PruneSettings,
    pub check: CheckSettings,
    /// Whether commands are taken over the network, too.
    pub admin: Option<AdminSettings>,
    /// What holds for registries without an entry, and for what an entry leaves out.
    pub defaults: RegistryDefaults,
    /// No two of the same name.
    pub registries: Vec<RegistrySettings>,
}

impl Settings {
    /// The entry for a registry: an exact one beats a wildcard, a longer wildcard a shorter one, and of two
    /// equally long ones the first in the file counts.
    pub fn registry(&self, registry: &Registry) -> Option<&RegistrySettings> {
        self.registries
            .iter()
            .filter(|entry| entry.name.matches(registry))
            .min_by_key(|entry| Reverse(entry.name.rank()))
    }

    /// What holds for a registry, listed or not.
    pub fn policy(&self, registry: &Registry) -> &RegistryDefaults {
        self.registry(registry).map_or(&self.defaults, |entry| &entry.policy)
    }
}

/// Who may pull, and what. By default all who reach us may pull what is public.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// Networks of the clients that may pull, IPv4 in its own form; empty means all who reach us.
    pub clients: Vec<IpNet>,
    /// Who may pull with a password. None asks nobody for one.
    pub users: Option<Users>,
    /// `open = true`: others may pull what our credentials can read.
    pub open: bool,
    /// When there are any, nothing else may be pulled.
    pub allow: Vec<NamePattern>,
    /// What may not be pulled, whatever `allow` says.
    pub deny: Vec<NamePattern>,
    pub unlisted: Unlisted,
}

/// What of registries without an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// They have to be at public addresses.
    #[default]
    Public,
    Allow,
    Deny,
}

/// Who the daemon becomes when root starts it. Whether there are such accounts is found out then.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: String,
    pub group: String,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: tracing::level_filters::LevelFilter,
    pub file: Option<PathBuf>,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal's own where the standard error is the journal, text elsewhere.
    Auto,
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

/// What is fetched at the start.
#[derive(Clone, Debug)]
pub struct PreloadSettings {
    /// Each once, in the order of the lists.
    pub images: Vec<Image>,
    pub mode: Preload,
}

/// Whether the start waits for what is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    Wait,
    Background,
}

/// A part of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    None,
    Bytes(u64),
    /// At most 100.
    Percent(u64),
}

impl Share {
    /// In bytes, of a file system of so many; none where there is none.
    pub fn of(self, total: u64) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => Some(total / 100 * percent),
        }
    }
}

/// Which time of an image `duration` counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneBy {
    Accessed,
    Created,
}

/// What is removed without being asked for.
#[derive(Clone, Debug)]
pub struct PruneSettings {
    pub enabled: bool,
    /// Of the file system.
    pub min_free: Share,
    /// Of the cache.
    pub max_size: Share,
    pub duration: Option<Duration>,
    pub by: PruneBy,
    /// More than zero.
    pub frequency: Duration,
    /// Images in a round; 0 is all.
    pub count: u64,
    pub dry_run: bool,
    pub keep: Vec<NamePattern>,
}

impl PruneSettings {
    /// Whether images of this name are never pruned.
    pub fn keeps(&self, name: &Name) -> bool {
        self.keep.iter().any(|pattern| pattern.matches(name))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// None is never.
    pub every: Option<Duration>,
}

/// Where commands are taken over the network, from whoever has the token.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    /// At least 16 characters, all of them visible ASCII.
    pub token: Secret,
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

/// How a registry is spoken to where no URL says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Https,
    Http,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// Where a registry's API is when nothing else is known of it: docker.io's at registry-1.docker.io, any
    /// other's at its name. None for a name that no URL can hold, such as `1.2.3.4.5`.
    pub fn api(self, registry: &Registry) -> Option<Url> {
        let host = if registry.is_docker() { "registry-1.docker.io" } else { registry.as_str() };
        Url::parse(&format!("{}://{host}/", self.as_str())).ok()
    }
}

/// A configured registry, or all that match a wildcard.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    pub name: RegistryPattern,
    pub description: String,
    /// That of `url` where one is given.
    pub scheme: Scheme,
    /// Where its API is when not at its name; never with a wildcard. Http or https, a host, perhaps a path
    /// without a slash at its end, never a user or a query.
    pub url: Option<Url>,
    pub credentials: Credentials,
    pub tls: ClientTls,
    pub policy: RegistryDefaults,
}

impl RegistrySettings {
    /// Where the API of `registry` is, which this entry is for; `/v2/…` goes behind it. None for a name that
    /// no URL can hold, which only a wildcard lets through.
    pub fn api(&self, registry: &Registry) -> Option<Url> {
        self.url.clone().or_else(|| self.scheme.api(registry))
    }
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
    /// Given to the service only, and not to the command that is run beside it, which asks like anybody. A daemon's
    /// settings never have it.
    Withheld,
}

/// How a registry's certificate is checked, and ours shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities that are trusted besides the system's.
    pub ca: Option<PemFile>,
    /// Our own certificate chain and its key.
    pub identity: Option<(PemFile, PemFile)>,
    pub insecure_skip_verify: bool,
}
