//! The tags of a repository: listed whole, kept with the freshness of a tag, and served in pages of our own.
//!
//! However a client pages, upstream is asked for the whole list, page by page, once. While it comes in, a page is
//! served as soon as it is there. So every page has an answer in time, however long the list is and whatever
//! upstream calls its next page, and offline a client can page as it likes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::failures::{log_failure, log_name};
use super::freshness::SLOW_FOR;
use super::manifest::in_time;
use super::shared::{Telling, run_while_wanted};
use super::turns::Turn;
use super::{Cause, Origin, Pull, PullError, What};
use crate::config::Age;
use crate::oci::{GrowingTags, Name, Page, Registry, TagList, TagPage, tags_of};
use crate::store::Kept;
use crate::upstream::UpstreamError;

/// A client that could have the last list waits so long for a new one.
const RENEW_WITHIN: Duration = Duration::from_secs(5);

/// A client waits so long for all of its page, before it gets what is there of it, with a link to the rest.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

/// For all pages of a list.
const LIST_WITHIN: Duration = Duration::from_secs(600);

/// Who pages goes on in the list that the first page was of, when that is no older: else each of a thousand pages
/// would ask for the whole list again where tags are always asked about.
const PAGING: Duration = Duration::from_secs(60);

/// A page of tags to be served.
pub struct Tags {
    pub page: TagPage,
    pub origin: Origin,
    /// How long ago upstream gave the list, when it is served stale.
    pub age: Option<Duration>,
}

/// A list that is being fetched.
#[derive(Default)]
pub struct Listing {
    /// Its turn has come.
    asked: bool,
    tags: GrowingTags,
    ended: Option<Result<Arc<Kept<TagList>>, PullError>>,
}

impl Listing {
    fn has_begun(&self) -> bool {
        self.tags.so_far(&Page { n: Some(1), last: None }).is_some()
    }

    /// The page, once it is all there.
    fn page(&self, page: &Page) -> Option<Result<TagPage, PullError>> {
        match &self.ended {
            Some(Ok(kept)) => Some(Ok(kept.list.page(page))),
            Some(Err(error)) => Some(Err(error.clone())),
            None => self.tags.page(page).map(Ok),
        }
    }

    /// The page, or what is there of it, with the rest behind it.
    fn so_far(&self, page: &Page) -> Option<Result<TagPage, PullError>> {
        self.page(page).or_else(|| {
            let mut part = self.tags.so_far(page)?;
            part.next = part.tags().last().map(str::to_owned);
            Some(Ok(part))
        })
    }
}

impl Pull {
    /// Lists the tags of a repository. Answers or fails within 25 s.
    pub async fn tags(self: &Arc<Self>, name: &Name, page: &Page) -> Result<Tags, PullError> {
        let (pull, name, page) = (self.clone(), name.clone(), page.clone());
        let find = async move { pull.find_tags(&name, &page).await };
        let tags = in_time(run_while_wanted(&self.runtime, find)).await?;
        self.count(tags.origin);
        Ok(tags)
    }

    async fn find_tags(self: &Arc<Self>, name: &Name, page: &Page) -> Result<Tags, PullError> {
        let kept = self.store.tag_list(name).await;
        if self.settings.load().air_gapped {
            return self.tags_at_hand(name, page, kept).await;
        }
        let goes_on = |age| page.last.is_some() && age < PAGING;
        if let Some(kept) = &kept
            && (self.is_list_fresh(&name.registry, kept.age()) || goes_on(kept.age()))
        {
            return Ok(Tags { page: kept.list.page(page), origin: Origin::Hit, age: None });
        }
        let stale = kept.filter(|kept| self.may_be_stale(&name.registry, kept.age()));
        match self.ask_for_tags(name, page, stale.is_some()).await {
            Ok(page) => Ok(Tags { page, origin: Origin::Miss, age: None }),
            Err(error) => self.stale_tags(name, page, stale, error).await,
        }
    }

    /// Whether a list of that age is as good as upstream's.
    pub(super) fn is_list_fresh(&self, registry: &Registry, age: Duration) -> bool {
        match self.upstream(registry).policy().tag_ttl {
            Age::Forever => true,
            Age::For(limit) => age < limit,
        }
    }

    /// Whether a list of that age may be served when upstream fails.
    pub(super) fn may_be_stale(&self, registry: &Registry, age: Duration) -> bool {
        self.upstream(registry).policy().stale_if_error.covers(age)
    }

    async fn ask_for_tags(
        self: &Arc<Self>,
        name: &Name,
        page: &Page,
        have_stale: bool,
    ) -> Result<TagPage, PullError> {
        if self.is_known_missing(&What::Tags(name.clone())) {
            return Err(PullError::KnownMissing);
        }
        if have_stale && let Some(error) = self.was_slow(&name.registry) {
            return Err(error);
        }
        // Of a thousand pages, not each one finds out anew that upstream is not there.
        if page.last.is_some()
            && let Some((error, since)) = self.unlisted.get(name)
            && since.elapsed() < SLOW_FOR
        {
            return Err(error);
        }
        let list = |telling| self.clone().list(name.clone(), telling);
        let mut listing = self.listings.join(&self.runtime, name, list);
        let patience = if have_stale { RENEW_WITHIN } else { PAGE_WITHIN };
        let asked = listing.wait_for(|listing| listing.asked || listing.ended.is_some());
        if timeout(patience, asked).await.is_err() {
            return Err(PullError::Crowded);
        }
        let whole = timeout(patience, listing.wait_for(|listing| listing.page(page).is_some())).await.is_ok();
        if !whole && have_stale {
            let begun = listing.borrow().has_begun();
            return Err(if begun { unfinished(name, patience) } else { self.is_slow(&name.registry) });
        }
        // At once when it is whole, and for as long as the client waits when there is nothing of it.
        let so_far = listing.wait_for(|listing| listing.so_far(page).is_some()).await;
        so_far.ok().and_then(|listing| listing.so_far(page)).unwrap_or(Err(PullError::Lost))
    }

    /// Fetches a list and keeps it; none that nobody waits for any more when its turn comes.
    async fn list(self: Arc<Self>, name: Name, mut telling: Telling<Name, Listing>) {
        let turn = tokio::select! {
            turn = self.listing.take(&name.registry) => turn,
            () = telling.unwanted() => return,
        };
        let result = match turn {
            Ok(turn) => {
                telling.tell(|listing| listing.asked = true);
                let listing = timeout(LIST_WITHIN, self.fetch_tags(&name, turn, &telling));
                listing.await.unwrap_or_else(|_| Err(unfinished(&name, LIST_WITHIN)))
            }
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => {
                self.unlisted.remove(&name);
            }
            Err(error) if error.cause() == Cause::Missing => {
                self.not_found.insert(What::Tags(name.clone()), Instant::now());
                log_failure!(info, name, "", error, "no tags of \"{name}\"");
            }
            Err(error) => {
                self.unlisted.insert(name.clone(), (error.clone(), Instant::now()));
                self.failures.warn(&name, "", error, &format!("cannot list the tags of \"{name}\""));
            }
        }
        telling.end(|listing| *listing = Listing { ended: Some(result), ..Listing::default() });
    }

    async fn fetch_tags(
        &self,
        name: &Name,
        mut turn: Turn,
        telling: &Telling<Name, Listing>,
    ) -> Result<Arc<Kept<TagList>>, PullError> {
        let upstream = self.upstream(&name.registry);
        log_name!(info, name, upstream = upstream.host(), "listing tags of upstream: \"{name}\"");
        let mut pages = upstream.tags(&name.repository)?;
        let mut whole = GrowingTags::default();
        while let Some(page) = pages.next().await? {
            turn.grow(page.len())?;
            let tags =
                tags_of(&page).map_err(|error| pages.invalid(format!("sent a list of tags that {error}")))?;
            let mut appended = Ok(());
            telling.tell(|listing| {
                appended = listing.tags.append(tags);
            });
            appended.map_err(|error| pages.invalid(format!("has a list of tags that {error}")))?;
        }
        telling.tell(|listing| whole = std::mem::take(&mut listing.tags));
        let kept = Arc::new(Kept::now(whole.finish()));
        self.store.publish_tag_list(name, kept.clone()).await;
        self.not_found.remove(&What::Tags(name.clone()));
        Ok(kept)
    }

    /// What becomes of a list that could not be fetched.
    async fn stale_tags(
        &self,
        name: &Name,
        page: &Page,
        stale: Option<Arc<Kept<TagList>>>,
        error: PullError,
    ) -> Result<Tags, PullError> {
        match error.cause() {
            Cause::Missing => {
                if stale.is_some() {
                    log_name!(info, name, "upstream no longer has tags of \"{name}\": forgotten");
                    self.store.forget_tag_list(name).await;
                }
                return Err(error);
            }
            Cause::Denied => return Err(error),
            Cause::Invalid | Cause::Unavailable | Cause::Late | Cause::Internal => {}
        }
        if let Some(kept) = stale {
            let age = kept.age();
            let what = format!("listing the tags of \"{name}\" as of {} s ago", age.as_secs());
            self.failures.warn(name, "", &error, &what);
            return Ok(Tags { page: kept.list.page(page), origin: Origin::Stale, age: Some(age) });
        }
        if !self.may_be_stale(&name.registry, Duration::ZERO) {
            return Err(error);
        }
        match TagList::of(self.store.held_tags(name).await) {
            Ok(held) if !held.is_empty() => {
                let what = format!("listing the tags of \"{name}\" that are in the cache");
                self.failures.warn(name, "", &error, &what);
                Ok(Tags { page: held.page(page), origin: Origin::Stale, age: None })
            }
            _ => Err(error),
        }
    }

    /// Without an upstream: its last list, and the tags that are in the cache.
    async fn tags_at_hand(
        &self,
        name: &Name,
        page: &Page,
        kept: Option<Arc<Kept<TagList>>>,
    ) -> Result<Tags, PullError> {
        let held = self.store.held_tags(name).await;
        let list = match kept {
            None if held.is_empty() => return Err(PullError::AirGapped),
            None => TagList::of(held).unwrap_or_default(),
            Some(kept) => kept.list.and(held).unwrap_or_else(|_| kept.list.clone()),
        };
        Ok(Tags { page: list.page(page), origin: Origin::Hit, age: None })
    }
}

fn unfinished(name: &Name, limit: Duration) -> PullError {
    let reason = format!("did not list all its tags within {} s", limit.as_secs());
    UpstreamError::Unavailable { host: name.registry.to_string(), reason }.into()
}
