//! What refers to a manifest: upstream's whole list, by the referrers API or from the tag that stands in for it, kept
//! with the freshness of a tag.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::freshness::CHECK_WITHIN;
use super::manifest::in_time;
use super::shared::{Telling, run_while_wanted};
use super::turns::Turn;
use super::{Cause, Origin, Pull, PullError};
use crate::oci::{GrowingReferrers, Image, InvalidList, Reference, Referrers, Subject};
use crate::store::Kept;
use crate::upstream::UpstreamError;

/// A client that nothing can be told waits so long: it asks in the middle of a pull.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// For all pages of a list.
const LIST_WITHIN: Duration = Duration::from_secs(60);

/// Referrers to be served, of all types.
pub struct Referred {
    pub list: Referrers,
    pub origin: Origin,
    /// How long ago upstream gave the list, when it is served stale.
    pub age: Option<Duration>,
}

/// A list that is being fetched.
#[derive(Default)]
pub struct Referral {
    /// Its turn has come.
    asked: bool,
    ended: Option<Result<Arc<Kept<Referrers>>, PullError>>,
}

impl Pull {
    /// Finds what refers to a manifest. Where that cannot be known, nothing does. Answers or fails within 25 s.
    pub async fn referrers(self: &Arc<Self>, subject: &Subject) -> Result<Referred, PullError> {
        let (pull, subject) = (self.clone(), subject.clone());
        let find = async move { pull.find_referrers(&subject).await };
        let found = in_time(run_while_wanted(&self.runtime, find)).await?;
        self.count(found.origin);
        Ok(found)
    }

    async fn find_referrers(self: &Arc<Self>, subject: &Subject) -> Result<Referred, PullError> {
        let registry = &subject.name.registry;
        let kept = self.store.referrers(subject).await;
        if self.settings.load().air_gapped {
            let list = kept.map_or_else(|| self.referrers_at_hand(subject), |kept| kept.list.clone());
            return Ok(Referred { list, origin: Origin::Hit, age: None });
        }
        let fresh = kept.as_ref().filter(|kept| self.is_list_fresh(registry, kept.age()));
        if let Some(kept) = fresh {
            return Ok(Referred { list: kept.list.clone(), origin: Origin::Hit, age: None });
        }
        let stale = kept.filter(|kept| self.may_be_stale(registry, kept.age()));
        match self.ask_for_referrers(subject, stale.is_some()).await {
            Ok(kept) => Ok(Referred { list: kept.list.clone(), origin: Origin::Miss, age: None }),
            Err(error) => self.stale_referrers(subject, stale, error),
        }
    }

    async fn ask_for_referrers(
        self: &Arc<Self>,
        subject: &Subject,
        have_stale: bool,
    ) -> Result<Arc<Kept<Referrers>>, PullError> {
        let registry = &subject.name.registry;
        if let Some(error) = self.was_slow(registry) {
            return Err(error);
        }
        let work = |telling| self.clone().refer(subject.clone(), telling);
        let mut referral = self.referrals.join(&self.runtime, subject, work);
        let patience = if have_stale { CHECK_WITHIN } else { ASK_WITHIN };
        let asked = referral.wait_for(|referral| referral.asked || referral.ended.is_some());
        if timeout(patience, asked).await.is_err() {
            return Err(PullError::Crowded);
        }
        match timeout(patience, referral.wait_for(|referral| referral.ended.is_some())).await {
            Ok(referral) => referral.ok().and_then(|done| done.ended.clone()).unwrap_or(Err(PullError::Lost)),
            Err(_) => Err(self.is_slow(registry)),
        }
    }

    /// Fetches a list and keeps it; none that nobody waits for any more when its turn comes.
    async fn refer(self: Arc<Self>, subject: Subject, mut telling: Telling<Subject, Referral>) {
        let registry = &subject.name.registry;
        let turn = tokio::select! {
            turn = self.referring.take(registry) => turn,
            () = telling.unwanted() => return,
        };
        let result = match turn {
            Ok(turn) => {
                telling.tell(|referral| referral.asked = true);
                let listing = timeout(LIST_WITHIN, self.fetch_referrers(&subject, turn));
                listing.await.unwrap_or_else(|_| Err(self.is_slow(registry)))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            let what = format!("cannot list what refers to \"{subject}\"");
            self.failures.warn(&subject.name, subject.digest, error, &what);
        }
        telling.end(|referral| referral.ended = Some(result));
    }

    async fn fetch_referrers(
        self: &Arc<Self>,
        subject: &Subject,
        mut turn: Turn,
    ) -> Result<Arc<Kept<Referrers>>, PullError> {
        let kept = match self.referrers_by_api(subject, &mut turn).await? {
            Some(list) => Kept::now(list),
            None => self.referrers_by_tag(subject).await?,
        };
        let kept = Arc::new(kept);
        // Anybody can ask for any digest, which nothing refers to: that is no reason to fill the disk with files.
        let held = || {
            let reference = Reference::Digest(subject.digest);
            self.store.reference(&Image { name: subject.name.clone(), reference }).is_some()
        };
        let known = self.store.referrers(subject).await;
        if !kept.list.is_empty() || known.is_some_and(|known| !known.list.is_empty()) || held() {
            self.store.publish_referrers(subject, kept.clone()).await;
        } else {
            self.store.remember_referrers(subject, kept.clone());
        }
        Ok(kept)
    }

    /// None from a registry that has no referrers API.
    async fn referrers_by_api(
        &self,
        subject: &Subject,
        turn: &mut Turn,
    ) -> Result<Option<Referrers>, PullError> {
        let upstream = self.upstream(&subject.name.registry);
        let mut pages = upstream.referrers(&subject.name.repository, &subject.digest)?;
        let mut list = GrowingReferrers::default();
        let mut begun = false;
        loop {
            let page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(Some(list.finish())),
                // Those without it answer as they answer to any address they do not know.
                Err(UpstreamError::NotFound { .. } | UpstreamError::Invalid { .. }) if !begun => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            turn.grow(page.len())?;
            match list.append(&page) {
                Ok(()) => {}
                Err(InvalidList::Json(_)) if !begun => return Ok(None),
                Err(error) => {
                    return Err(pages.invalid(format!("sent a list of referrers that {error}")).into());
                }
            }
            begun = true;
        }
    }

    /// The tag under which clients keep the list where there is no API, as any other manifest. No tag is no referrers.
    async fn referrers_by_tag(self: &Arc<Self>, subject: &Subject) -> Result<Kept<Referrers>, PullError> {
        let Some(image) = fallback(subject) else { return Ok(Kept::now(Referrers::none())) };
        match self.find_manifest(&image).await {
            Ok(found) if found.origin == Origin::Stale => {
                let (host, reason) =
                    (subject.name.registry.to_string(), format!("did not confirm \"{image}\""));
                Err(UpstreamError::Unavailable { host, reason }.into())
            }
            Ok(found) => Ok(Kept { list: in_index(&found.bytes), checked: found.record.checked }),
            Err(error) if error.cause() == Cause::Missing => Ok(Kept::now(Referrers::none())),
            Err(error) => Err(error),
        }
    }

    /// What becomes of a list that could not be fetched.
    fn stale_referrers(
        &self,
        subject: &Subject,
        stale: Option<Arc<Kept<Referrers>>>,
        error: PullError,
    ) -> Result<Referred, PullError> {
        if error.cause() == Cause::Denied || !self.may_be_stale(&subject.name.registry, Duration::ZERO) {
            return Err(error);
        }
        let age = stale.as_ref().map(|kept| kept.age());
        let list = stale.map_or_else(|| self.referrers_at_hand(subject), |kept| kept.list.clone());
        let what = format!("telling of \"{subject}\" the referrers known here");
        self.failures.warn(&subject.name, subject.digest, &error, &what);
        Ok(Referred { list, origin: Origin::Stale, age })
    }

    /// What is known of a list that upstream never gave: the tag in its place, if that is in the cache.
    fn referrers_at_hand(&self, subject: &Subject) -> Referrers {
        let held = fallback(subject).and_then(|image| self.held(&image));
        held.map_or_else(Referrers::none, |found| in_index(&found.bytes))
    }
}

fn fallback(subject: &Subject) -> Option<Image> {
    Some(Image { name: subject.name.clone(), reference: Reference::Tag(subject.fallback_tag()?) })
}

/// A tag of that name that is no index lists nothing.
fn in_index(bytes: &[u8]) -> Referrers {
    Referrers::parse(bytes).unwrap_or_else(|_| Referrers::none())
}
