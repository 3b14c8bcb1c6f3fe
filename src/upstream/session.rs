//! A registry asked with what credentials we have for it.

use base64::prelude::{BASE64_STANDARD, Engine};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

use super::address::Reach;
use super::challenge::{self, Challenge};
use super::error::UpstreamError;
use super::ledger::Ledger;
use super::retry::{Again, Attempts, Failure, retry_after, too_many};
use super::token::{TokenRequest, Tokens, bearer};
use super::transport::{Answer, Ask, Transport, host};
use crate::config::{Credentials, Secret};
use crate::oci::Repository;

pub(super) struct Session {
    transport: Arc<Transport>,
    /// Where the registry's API is; `/v2/…` goes behind it.
    url: Url,
    /// Of that, for messages.
    pub(super) host: String,
    credentials: Credentials,
    /// It has asked for a name and password: they are sent at once from then on.
    wants_basic: AtomicBool,
    tokens: Tokens,
    pub(super) ledger: Arc<Ledger>,
}

impl Session {
    pub(super) fn new(
        transport: Arc<Transport>,
        url: Url,
        credentials: Credentials,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            transport,
            host: host(&url),
            url,
            credentials,
            wants_basic: AtomicBool::new(false),
            tokens: Tokens::default(),
            ledger,
        }
    }

    /// Whether [`new`](Self::new) would make the same.
    pub(super) fn is_for(&self, transport: &Arc<Transport>, url: &Url, credentials: &Credentials) -> bool {
        Arc::ptr_eq(&self.transport, transport) && self.url == *url && self.credentials == *credentials
    }

    /// `<url>/v2/<repository>/<kind>/<reference>`
    pub(super) fn url(&self, repository: &Repository, kind: &str, reference: &str) -> Url {
        let mut url = self.url.clone();
        let prefix = self.url.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}/v2/{repository}/{kind}/{reference}"));
        url
    }

    /// Where the registry's API is; `/v2/…` goes behind it.
    pub(super) fn api(&self) -> &Url {
        &self.url
    }

    /// Asks until there is a usable answer, no hope or no time; statuses other than 200 and 206 are errors.
    pub(super) async fn ask_patiently(
        &self,
        repository: &Repository,
        ask: &Ask,
    ) -> Result<Answer, UpstreamError> {
        let mut attempts = Attempts::new();
        loop {
            match attempts.make(&self.host, self.ask(repository, ask)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    /// Asks once, and once more when credentials are wanted. How it went is in the ledger.
    pub(super) async fn ask(&self, repository: &Repository, ask: &Ask) -> Result<Answer, Failure> {
        let result = self.ask_once(repository, ask).await;
        match &result {
            Ok(_) => self.ledger.answered(),
            Err(Failure { error, limited: Some(limit), .. }) => self.ledger.limited(error, limit.retry_after),
            Err(Failure { error, .. }) => match error {
                UpstreamError::NotFound { .. } | UpstreamError::Denied { .. } => self.ledger.answered(),
                UpstreamError::Unavailable { .. } | UpstreamError::Invalid { .. } => {
                    self.ledger.failed(error)
                }
                // It was not asked.
                UpstreamError::Refused { .. } => {}
            },
        }
        result
    }

    async fn ask_once(&self, repository: &Repository, ask: &Ask) -> Result<Answer, Failure> {
        let sent = self.credentials_at_hand(repository);
        let answer = self.send(ask, sent.clone()).await?;
        // Only the registry itself may ask for its credentials, not where it redirects to.
        if answer.status() != 401 || answer.origin != self.url.origin() {
            return judged(answer);
        }
        let wanted = self.wanted(repository, answer.headers(), sent.as_ref()).await?;
        judged(self.send(ask, Some(wanted)).await?)
    }

    async fn send(&self, ask: &Ask, authorization: Option<HeaderValue>) -> Result<Answer, Failure> {
        let ask = ask.clone().header(AUTHORIZATION, authorization);
        self.ledger.asks();
        let mut answer = self.transport.send(&ask).await?;
        answer.ledger = Some(Arc::clone(&self.ledger));
        Ok(answer)
    }

    fn credentials_at_hand(&self, repository: &Repository) -> Option<HeaderValue> {
        match &self.credentials {
            Credentials::Token(token) => bearer(token.reveal()),
            Credentials::Basic { user, password } if self.wants_basic.load(Ordering::Relaxed) => {
                basic(user, password)
            }
            _ => self.tokens.at_hand(repository),
        }
    }

    /// What a 401 wants to see that was not `sent` already.
    async fn wanted(
        &self,
        repository: &Repository,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let challenges: Vec<_> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        if matches!(self.credentials, Credentials::Token(_)) {
            return Err(self.denied("; the configured token was not accepted"));
        }
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("Bearer")) {
            let request = self.token_request(repository, bearer)?;
            return self.tokens.fetch(repository, sent, request).await;
        }
        if !challenges.iter().any(|challenge| challenge.is("Basic")) {
            return Err(self.denied("; it does not say how to sign in"));
        }
        let Credentials::Basic { user, password } = &self.credentials else {
            return Err(self.denied("; it wants a user and password, and none are configured"));
        };
        self.wants_basic.store(true, Ordering::Relaxed);
        match basic(user, password) {
            Some(wanted) if sent != Some(&wanted) => Ok(wanted),
            _ => Err(self.denied("; the configured user and password were not accepted")),
        }
    }

    fn token_request(
        &self,
        repository: &Repository,
        bearer: &Challenge,
    ) -> Result<TokenRequest, UpstreamError> {
        let mut realm = bearer
            .parameter("realm")
            .and_then(|realm| Url::parse(realm).ok())
            .filter(|realm| matches!(realm.scheme(), "http" | "https"))
            .ok_or_else(|| UpstreamError::invalid(&self.host, "names no address for tokens"))?;
        // These parts of an http URL can be unset.
        let _ = realm.set_username("");
        let _ = realm.set_password(None);
        let authorization = match &self.credentials {
            Credentials::Basic { user, password } if self.may_know_credentials(&realm) => {
                basic(user, password)
            }
            Credentials::Basic { .. } => {
                let reason = format!("its credentials must not be shown to {}", host(&realm));
                return Err(UpstreamError::refused(&self.host, reason));
            }
            _ if realm.scheme() == "http"
                && self.url.scheme() == "https"
                && self.transport.reach == Reach::Public =>
            {
                let reason = format!("gives tokens by plain http at {}", host(&realm));
                return Err(UpstreamError::refused(&self.host, reason));
            }
            _ => None,
        };
        let own_scope = format!("repository:{repository}:pull");
        // Behind a path prefix the registry's own name for the repository is another than ours.
        let scopes = bearer.parameter("scope").filter(|scope| !scope.trim().is_empty());
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = bearer.parameter("service") {
                query.append_pair("service", service);
            }
            for scope in scopes.unwrap_or(&own_scope).split_whitespace() {
                query.append_pair("scope", scope);
            }
        }
        Ok(TokenRequest {
            transport: Arc::clone(&self.transport),
            host: self.host.clone(),
            realm,
            authorization,
        })
    }

    /// A token service gets the registry's credentials when nobody else can have named it or can listen.
    fn may_know_credentials(&self, realm: &Url) -> bool {
        let named_safely = self.url.scheme() == "https" && self.transport.tls.verifies();
        let same_host = realm.host() == self.url.host();
        match realm.scheme() {
            "https" => named_safely || same_host,
            _ => same_host && self.url.scheme() == "http",
        }
    }

    fn denied(&self, hint: &str) -> Failure {
        UpstreamError::Denied { host: self.host.clone(), status: 401, hint: hint.to_owned() }.into()
    }
}

fn basic(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a final status means.
fn judged(answer: Answer) -> Result<Answer, Failure> {
    let status = answer.status();
    let host = answer.host.clone();
    Err(match status.as_u16() {
        200 | 206 => return Ok(answer),
        404 | 410 => UpstreamError::NotFound { host }.into(),
        401 | 403 | 451 => {
            UpstreamError::Denied { host, status: status.as_u16(), hint: String::new() }.into()
        }
        429 => {
            let reason = "too many requests, its rate limit is reached";
            too_many(&answer.host, reason, answer.header(RETRY_AFTER))
        }
        408 | 500 | 502.. => overloaded(&answer, format!("answered {status}")),
        _ => UpstreamError::invalid(host, format!("answered {status}")).into(),
    })
}

fn overloaded(answer: &Answer, reason: String) -> Failure {
    let again = Again::After(answer.header(RETRY_AFTER).and_then(retry_after));
    Failure { error: UpstreamError::unavailable(&answer.host, reason), again, limited: None }
}
