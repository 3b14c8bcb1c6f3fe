//! Bearer tokens: asked for once however many requests wait, kept while they are good (distribution's token
//! authentication specification).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderValue, Method};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use url::Url;

use super::error::UpstreamError;
use super::retry::{Failure, too_many};
use super::transport::{Ask, Transport, host};
use crate::oci::Repository;

/// One registry's tokens.
#[derive(Default)]
pub(super) struct Tokens {
    // A std Mutex: it is held for a look at the map, never across an await.
    slots: Mutex<HashMap<Repository, Slot>>,
}

/// None while the token is asked for.
type Slot = watch::Receiver<Option<Result<Token, Failure>>>;

/// More repositories than a host pulls from in the life of a token.
const MAX_SLOTS: usize = 2048;

#[derive(Clone)]
struct Token {
    authorization: HeaderValue,
    good_until: Instant,
}

impl Tokens {
    /// A token that can be sent at once.
    pub(super) fn at_hand(&self, repository: &Repository) -> Option<HeaderValue> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        good(slots.get(repository)?, None)
    }

    /// A token other than the `refused` one. Who asks first starts a task that asks for it and that nobody's
    /// hanging up ends; all wait for that.
    pub(super) async fn fetch(
        &self,
        repository: &Repository,
        refused: Option<&HeaderValue>,
        request: TokenRequest,
    ) -> Result<HeaderValue, Failure> {
        let host = request.host.clone();
        let mut slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let known = slots.get(repository);
            if let Some(authorization) = known.and_then(|slot| good(slot, refused)) {
                return Ok(authorization);
            }
            match known.filter(|slot| is_asked_for(slot)) {
                Some(slot) => slot.clone(),
                None => {
                    make_room(&mut slots);
                    let (sender, slot) = watch::channel(None);
                    slots.insert(repository.clone(), slot.clone());
                    tokio::spawn(async move { sender.send(Some(request.send().await)) });
                    slot
                }
            }
        };
        let done = slot.wait_for(Option::is_some).await;
        match done.ok().and_then(|result| result.clone()) {
            Some(result) => result.map(|token| token.authorization),
            None => Err(UpstreamError::unavailable(host, "its token was not fetched").into()),
        }
    }
}

fn is_asked_for(slot: &Slot) -> bool {
    slot.borrow().is_none() && slot.has_changed().is_ok()
}

fn good(slot: &Slot, refused: Option<&HeaderValue>) -> Option<HeaderValue> {
    match &*slot.borrow() {
        Some(Ok(token)) if Instant::now() < token.good_until && Some(&token.authorization) != refused => {
            Some(token.authorization.clone())
        }
        _ => None,
    }
}

fn make_room(slots: &mut HashMap<Repository, Slot>) {
    if slots.len() >= MAX_SLOTS {
        slots.retain(|_, slot| is_asked_for(slot) || good(slot, None).is_some());
    }
    if slots.len() >= MAX_SLOTS {
        slots.clear();
    }
}

/// The question for a token.
pub(super) struct TokenRequest {
    pub(super) transport: Arc<Transport>,
    /// The registry, for messages.
    pub(super) host: String,
    pub(super) realm: Url,
    pub(super) authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// The specification's life of a token that does not tell.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_ANSWER: usize = 1 << 20;

/// For one request with all its redirects. All who want the token wait for it, and it leaves time for another one.
const LIMIT: Duration = Duration::from_secs(8);

impl TokenRequest {
    async fn send(self) -> Result<Token, Failure> {
        let service = host(&self.realm);
        timeout(LIMIT, self.fetch()).await.unwrap_or_else(|_| {
            Err(UpstreamError::unavailable(service, format!("gave no token within {LIMIT:?}")).into())
        })
    }

    async fn fetch(self) -> Result<Token, Failure> {
        let ask = Ask::new(Method::GET, self.realm).header(AUTHORIZATION, self.authorization);
        let asked = Instant::now();
        let mut answer = self.transport.send(&ask).await?;
        let status = answer.status();
        if status != 200 {
            let reason = format!("its token service answered {status}");
            return Err(match status.as_u16() {
                429 => too_many(&answer.host, reason, answer.header(RETRY_AFTER)),
                408 | 500.. => UpstreamError::unavailable(&answer.host, reason).into(),
                status => UpstreamError::Denied {
                    host: self.host,
                    status,
                    hint: format!("; by its token service {}", answer.host),
                }
                .into(),
            });
        }
        answer.is_identity()?;
        let bytes = answer.bytes(MAX_ANSWER).await?;
        let unreadable = || answer.invalid("its token service sent no token");
        let told: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        let text = told.token.filter(|text| !text.is_empty()).or(told.access_token);
        let authorization = text.as_deref().and_then(bearer).ok_or_else(unreadable)?;
        let life = told
            .expires_in
            .filter(|seconds| *seconds > 0.0)
            .map_or(DEFAULT_LIFE, |seconds| Duration::from_secs_f64(seconds.min(LONGEST_LIFE.as_secs_f64())));
        // Never sent so late that it expires on its way.
        let margin = (life / 5).min(Duration::from_secs(30));
        Ok(Token { authorization, good_until: asked + life - margin })
    }
}

/// The header that shows a token; None when the token cannot stand in one.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    if token.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
