//! What a pull asks of one registry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use tokio::time::timeout;

use super::download::{Download, Wanted};
use super::error::UpstreamError;
use super::ledger::Account;
use super::pages::Pages;
use super::retry::{Again, Attempts, Failure};
use super::session::Session;
use super::transport::{Answer, Ask};
use crate::config::RegistryDefaults;
use crate::oci::{self, Algorithm, Digest, MAX_MANIFEST, Manifest, MediaType, Reference, Repository};

/// One registry.
pub struct Upstream {
    pub(super) policy: RegistryDefaults,
    /// An error for a name that no host can have.
    pub(super) session: Result<Arc<Session>, UpstreamError>,
}

/// The answer to a HEAD of a manifest, as far as it tells.
#[derive(Clone, Debug)]
pub struct Head {
    pub digest: Option<Digest>,
    pub media_type: Option<MediaType>,
    pub size: Option<u64>,
}

/// A manifest whose bytes are what its digest says.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    pub digest: Digest,
    pub manifest: Manifest,
    pub bytes: Bytes,
}

const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

impl Upstream {
    /// Of its configuration entry, or what holds for registries without one.
    pub fn policy(&self) -> &RegistryDefaults {
        &self.policy
    }

    /// Where it is, with its port where that is another than the scheme's.
    pub fn host(&self) -> &str {
        match &self.session {
            Ok(session) => &session.host,
            Err(error) => error.host(),
        }
    }

    /// Asks what a tag stands for now: once, and `limit` bounds it with all its redirects and tokens.
    pub async fn head(
        &self,
        repository: &Repository,
        reference: &Reference,
        limit: Duration,
    ) -> Result<Head, UpstreamError> {
        let session = self.session()?;
        let ask = ask_manifest(session, Method::HEAD, repository, reference);
        let answer = match timeout(limit, session.ask(repository, &ask)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return Err(failure.error),
            Err(_) => {
                let error = UpstreamError::unavailable(&session.host, format!("no answer within {limit:?}"));
                session.ledger.failed(&error);
                return Err(error);
            }
        };
        no_page(&answer, "a manifest")?;
        Ok(Head {
            digest: told_digest(&answer),
            media_type: answer.header(CONTENT_TYPE).and_then(MediaType::new),
            size: answer.length(),
        })
    }

    /// Fetches a manifest and checks it: against the digest that was asked for, or the one upstream tells.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let session = self.session()?;
        let ask = ask_manifest(session, Method::GET, repository, reference);
        let mut attempts = Attempts::new();
        loop {
            let attempt = async {
                let answer = session.ask(repository, &ask).await?;
                read_manifest(answer, reference).await
            };
            match attempts.make(&session.host, attempt).await {
                Ok(manifest) => return Ok(manifest),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    /// Opens a blob at byte `from`. `size` is what a descriptor said, if one is known. A registry that ignores
    /// ranges gives the whole blob: see [`Download::start`].
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        size: Option<u64>,
    ) -> Result<Download, UpstreamError> {
        let wanted = Wanted { start: from, end: None, size, whole_will_do: true };
        self.open(repository, digest, wanted).await
    }

    /// The bytes `first..=last` and no others. Of a registry that ignores ranges only what is near a blob's
    /// beginning can be had this way.
    pub async fn range(
        &self,
        repository: &Repository,
        digest: &Digest,
        first: u64,
        last: u64,
    ) -> Result<Download, UpstreamError> {
        let wanted =
            Wanted { start: first, end: Some(last.saturating_add(1)), size: None, whole_will_do: false };
        self.open(repository, digest, wanted).await
    }

    /// How long a blob is, if the registry tells.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        let session = self.session()?;
        let mut ask = Ask::new(Method::HEAD, session.url(repository, "blobs", &digest.to_string()));
        ask.by_digest = true;
        let answer = session.ask_patiently(repository, &ask).await?;
        Ok(answer.length())
    }

    /// The tags of a repository (distribution-spec, "Listing Tags"), in pages.
    pub fn tags(&self, repository: &Repository) -> Result<Pages, UpstreamError> {
        let session = self.session()?;
        let mut url = session.url(repository, "tags", "list");
        // Some send no more than 50 of thousands at once unless they are asked for more.
        url.set_query(Some("n=1000"));
        let accept = HeaderValue::from_static("application/json");
        Ok(Pages::new(Arc::clone(session), repository.clone(), url, accept))
    }

    /// What refers to a manifest (distribution-spec, "Listing Referrers"), in pages.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Pages, UpstreamError> {
        let session = self.session()?;
        let url = session.url(repository, "referrers", &subject.to_string());
        let accept = HeaderValue::from_static(MediaType::OCI_INDEX);
        Ok(Pages::new(Arc::clone(session), repository.clone(), url, accept))
    }

    async fn open(
        &self,
        repository: &Repository,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<Download, UpstreamError> {
        let session = self.session()?;
        let url = session.url(repository, "blobs", &digest.to_string());
        Download::open(Arc::clone(session), repository.clone(), url, wanted).await
    }

    /// None for a name that no host can have.
    pub(super) fn account(&self) -> Option<Account> {
        self.session.as_ref().ok().map(|session| session.ledger.account())
    }

    fn session(&self) -> Result<&Arc<Session>, UpstreamError> {
        self.session.as_ref().map_err(Clone::clone)
    }
}

fn ask_manifest(session: &Session, method: Method, repository: &Repository, reference: &Reference) -> Ask {
    let url = session.url(repository, "manifests", &reference.to_string());
    let mut ask = Ask::new(method, url).header(ACCEPT, Some(HeaderValue::from_static(oci::ACCEPT)));
    ask.by_digest = matches!(reference, Reference::Digest(_));
    ask
}

async fn read_manifest(mut answer: Answer, reference: &Reference) -> Result<FetchedManifest, Failure> {
    if answer.status() != 200 {
        return Err(answer.invalid("sent a part of a manifest").into());
    }
    answer.is_identity()?;
    no_page(&answer, "a manifest")?;
    let bytes = answer.bytes(MAX_MANIFEST).await?;
    let told = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => told_digest(&answer),
    };
    let digest = Digest::of(told.map_or(Algorithm::Sha256, |told| told.algorithm()), &bytes);
    if told.is_some_and(|told| told != digest) {
        return Err(Failure {
            error: answer.invalid("sent a manifest that does not match its digest"),
            again: Again::Once,
            limited: None,
        });
    }
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let manifest = Manifest::parse(answer.header(CONTENT_TYPE), &bytes).filter(|_| is_object);
    Ok(FetchedManifest {
        digest,
        manifest: manifest.ok_or_else(|| answer.invalid("sent something that is no manifest"))?,
        bytes,
    })
}

fn told_digest(answer: &Answer) -> Option<Digest> {
    answer.header(DOCKER_CONTENT_DIGEST)?.trim().parse().ok()
}

/// A page for people is not `wanted`: a login form, a portal, an error with the status of success.
pub(super) fn no_page(answer: &Answer, wanted: &str) -> Result<(), UpstreamError> {
    let media_type = answer.header(CONTENT_TYPE).and_then(MediaType::new);
    match media_type {
        Some(media_type) if media_type.as_str().eq_ignore_ascii_case("text/html") => {
            Err(answer.invalid(format!("sent a web page in place of {wanted}")))
        }
        _ => Ok(()),
    }
}
