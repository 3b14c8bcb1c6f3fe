//! One registry spoken to: client, credentials, retries, resume.
//!
//! From the outside in: [`Upstreams`] knows all registries, an [`Upstream`] what a pull asks of one and a
//! [`Download`] how a blob comes in spite of a bad wire. Below them a session adds credentials (challenges and
//! tokens) and a transport makes each request, follows redirects and keeps to the rules on addresses.
//!
//! Rules of the room: nothing is believed but what a digest checks; nothing is waited for without a limit; no
//! lock is held across an await; what goes into an error or the log holds no secret and no signed address.

mod address;
pub(crate) mod challenge;
mod download;
mod error;
mod field;
mod ledger;
pub(crate) mod link;
mod pages;
mod registry;
mod retry;
mod session;
mod tls;
mod token;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use quick_cache::sync::Cache;

pub use download::Download;
pub use error::{UpstreamError, UpstreamsError};
pub use ledger::{Account, Condition};
pub use pages::Pages;
pub use registry::{FetchedManifest, Head, Upstream};

use crate::config::{Credentials, RegistryPattern, RegistrySettings, Scheme, Settings, Unlisted};
use crate::oci::Registry;
use address::Reach;
use ledger::Ledger;
use session::Session;
use tls::Tls;
use transport::{Proxies, Transport};

/// All registries that can be asked.
pub struct Upstreams {
    settings: Settings,
    /// One for each entry of the settings.
    configured: HashMap<RegistryPattern, Arc<Transport>>,
    /// Shared by all registries without an entry.
    unlisted: Arc<Transport>,
    /// Those asked of late, with their tokens. Bounded, since clients name registries as they please.
    known: Cache<Registry, Arc<Upstream>>,
    /// Of the bodies of their answers since the start, in bytes.
    received: Arc<AtomicU64>,
}

const MAX_KNOWN: usize = 1024;

impl Upstreams {
    /// Parses the configured certificates. `via` is the value of the Via header of every request.
    pub fn new(settings: &Settings, via: &str) -> Result<Self, UpstreamsError> {
        let via = HeaderValue::from_str(via).map_err(|_| UpstreamsError::Header(via.to_owned()))?;
        Self::build(settings, &via, None)
    }

    /// The same for other settings. What they do not change keeps its connections and tokens.
    pub fn renewed(&self, settings: &Settings) -> Result<Self, UpstreamsError> {
        Self::build(settings, &self.unlisted.via, Some(self))
    }

    fn build(settings: &Settings, via: &HeaderValue, before: Option<&Self>) -> Result<Self, UpstreamsError> {
        // Transports go on being used where they would be made the same again.
        let old = before.filter(|old| {
            old.settings.proxy == settings.proxy && old.settings.pull_timeout == settings.pull_timeout
        });
        let proxies = match old {
            Some(old) => Arc::clone(&old.unlisted.proxies),
            None => Arc::new(Proxies::new(&settings.proxy)?),
        };
        let transport = |reach, tls| {
            Arc::new(Transport {
                reach,
                tls,
                proxies: Arc::clone(&proxies),
                via: via.clone(),
                silence: settings.pull_timeout,
                direct: OnceLock::new(),
                proxied: OnceLock::new(),
            })
        };
        let same = |entry: &RegistrySettings| {
            let old = old?;
            let was = old.settings.registries.iter().find(|was| was.name == entry.name)?;
            (was.tls == entry.tls).then(|| old.configured.get(&entry.name).cloned())?
        };
        let configured = settings.registries.iter().map(|entry| {
            let transport = match same(entry) {
                Some(transport) => transport,
                None => transport(Reach::Anywhere, Tls::read(&entry.tls)?),
            };
            Ok((entry.name.clone(), transport))
        });
        let reach = match settings.access.unlisted {
            Unlisted::Public | Unlisted::Deny => Reach::Public,
            Unlisted::Allow => Reach::Anywhere,
        };
        let upstreams = Self {
            configured: configured.collect::<Result<_, UpstreamsError>>()?,
            settings: settings.clone(),
            unlisted: match old {
                Some(old) if old.unlisted.reach == reach => Arc::clone(&old.unlisted),
                _ => transport(reach, Tls::default()),
            },
            known: Cache::new(MAX_KNOWN),
            received: before.map_or_else(Arc::default, |before| Arc::clone(&before.received)),
        };
        for (registry, known) in before.iter().flat_map(|old| old.known.iter()) {
            let upstream = upstreams.upstream(&registry, Some(&known));
            upstreams.known.insert(registry, Arc::new(upstream));
        }
        Ok(upstreams)
    }

    /// The one of that name; every name has one.
    pub fn get(&self, registry: &Registry) -> Arc<Upstream> {
        let made = || Ok::<_, Infallible>(Arc::new(self.upstream(registry, None)));
        match self.known.get_or_insert_with(registry, made) {
            Ok(upstream) => upstream,
            Err(never) => match never {},
        }
    }

    /// Of the bodies of all registries' answers since the start, in bytes.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How the registries are that the configuration names, and all others that were asked of late, by name.
    pub fn accounts(&self) -> Vec<(Registry, Account)> {
        let exact = |entry: &RegistrySettings| match &entry.name {
            RegistryPattern::Exact(registry) => Some(registry.clone()),
            RegistryPattern::Wildcard(_) => None,
        };
        let named: HashSet<_> = self.settings.registries.iter().filter_map(exact).collect();
        for registry in &named {
            self.get(registry);
        }
        let account = |(registry, upstream): (Registry, Arc<Upstream>)| {
            let account = upstream.account()?;
            let told = account.condition != Condition::NeverAsked || named.contains(&registry);
            told.then_some((registry, account))
        };
        let mut accounts: Vec<_> = self.known.iter().filter_map(account).collect();
        accounts.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        accounts
    }

    /// `old` is the one of that name so far: its session goes on if it would be made the same again.
    fn upstream(&self, registry: &Registry, old: Option<&Upstream>) -> Upstream {
        let entry = self.settings.registry(registry);
        let transport = entry.and_then(|entry| self.configured.get(&entry.name)).unwrap_or(&self.unlisted);
        let url = entry.map_or_else(|| Scheme::Https.api(registry), |entry| entry.api(registry));
        let credentials = entry.map_or(Credentials::Anonymous, |entry| entry.credentials.clone());
        let old = old.and_then(|old| old.session.as_ref().ok());
        let session = url.map(|url| match old {
            Some(old) if old.is_for(transport, &url, &credentials) => Arc::clone(old),
            _ => {
                let new = || Arc::new(Ledger::new(&self.received));
                let ledger = old.map_or_else(new, |old| Arc::clone(&old.ledger));
                Arc::new(Session::new(Arc::clone(transport), url, credentials, ledger))
            }
        });
        Upstream {
            policy: self.settings.policy(registry).clone(),
            // A registry's name is not always a host's: `1.2.3.4.5` is none.
            session: session
                .ok_or_else(|| UpstreamError::refused(registry.as_str(), "its name is no host's")),
        }
    }
}
