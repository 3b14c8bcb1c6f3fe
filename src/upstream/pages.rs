//! A list that comes in pages, each of which says where the next one is.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, LINK};
use http::{HeaderValue, Method};
use url::Url;

use super::error::UpstreamError;
use super::link;
use super::registry::no_page;
use super::retry::{Attempts, Failure};
use super::session::Session;
use super::transport::{Answer, Ask};
use crate::oci::Repository;

/// The most that all pages of a list may come to, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The most pages that are asked for.
const MAX_PAGES: usize = 10_000;

/// A list under way.
pub struct Pages {
    session: Arc<Session>,
    repository: Repository,
    accept: HeaderValue,
    next: Option<Url>,
    asked: HashSet<Url>,
    /// Pages that are asked for at most.
    pub(super) most: usize,
    /// Bytes that may still come.
    left: usize,
}

impl Pages {
    pub(super) fn new(session: Arc<Session>, repository: Repository, url: Url, accept: HeaderValue) -> Self {
        Self {
            session,
            repository,
            accept,
            next: Some(url),
            asked: HashSet::new(),
            most: MAX_PAGES,
            left: MAX_BYTES,
        }
    }

    /// The next page's body; None behind the last one. Each page has three attempts and 20 s.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(mut url) = self.next.take() else { return Ok(None) };
        if self.asked.len() == self.most {
            return Err(self.invalid(format!("has a list of more than {} pages", self.most)));
        }
        if !self.asked.insert(url.clone()) {
            return Err(self.invalid("has a list whose pages go round in a circle"));
        }
        let mut page = self.fetch(&url).await;
        if let Err(UpstreamError::Invalid { .. }) = page
            && self.asked.len() == 1
            && url.query().is_some()
        {
            // Some refuse a page of the length that we would like.
            url.set_query(None);
            page = self.fetch(&url).await;
        }
        let (bytes, next) = match page {
            Err(UpstreamError::NotFound { .. }) if self.asked.len() > 1 => {
                return Err(self.invalid("does not have the next page of a list that it links to"));
            }
            page => page?,
        };
        self.left = self.left.saturating_sub(bytes.len());
        let follow = |target: String| follow(self.session.api(), &url, &target);
        self.next = next.map(follow).transpose().map_err(|reason| self.invalid(reason))?;
        Ok(Some(bytes))
    }

    /// A page that cannot be used.
    pub fn invalid(&self, reason: impl Into<String>) -> UpstreamError {
        UpstreamError::invalid(&self.session.host, reason)
    }

    async fn fetch(&self, url: &Url) -> Result<(Bytes, Option<String>), UpstreamError> {
        let ask = Ask::new(Method::GET, url.clone()).header(ACCEPT, Some(self.accept.clone()));
        let mut attempts = Attempts::new();
        loop {
            let attempt = async { read(self.session.ask(&self.repository, &ask).await?, self.left).await };
            match attempts.make(&self.session.host, attempt).await {
                Ok(page) => return Ok(page),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }
}

async fn read(mut answer: Answer, limit: usize) -> Result<(Bytes, Option<String>), Failure> {
    if answer.status() != 200 {
        return Err(answer.invalid("sent a part of a list").into());
    }
    answer.is_identity()?;
    no_page(&answer, "a list")?;
    let bytes = answer.bytes(limit).await?;
    let lines = answer.headers().get_all(LINK).iter().filter_map(|line| line.to_str().ok());
    let next = lines.filter_map(link::next).next().map(str::to_owned);
    Ok((bytes, next))
}

/// The address of the page that a link behind `from` leads to. It is asked of whom `from` was asked, in the same
/// way: a link to the same host by another scheme or port, as a registry behind a proxy may write it, is meant so,
/// and one to another host is refused.
fn follow(api: &Url, from: &Url, target: &str) -> Result<Url, String> {
    let link = from.join(target).map_err(|_| "links to a next page at no address".to_owned())?;
    if !matches!(link.scheme(), "http" | "https") || link.host() != from.host() {
        let whom = link.host_str().unwrap_or("no host");
        return Err(format!("links to a next page at {whom}, where it is not asked for"));
    }
    let mut next = from.clone();
    let prefix = api.path().trim_end_matches('/');
    // A registry behind a path prefix does not always know of it.
    let knows_prefix = !link.path().starts_with("/v2/") || link.path().starts_with(&format!("{prefix}/"));
    if knows_prefix {
        next.set_path(link.path());
    } else {
        next.set_path(&format!("{prefix}{}", link.path()));
    }
    next.set_query(link.query());
    next.set_fragment(None);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn followed(api: &str, target: &str) -> Result<String, String> {
        let from = Url::parse(&format!("{api}/v2/a/b/tags/list?n=1000")).unwrap();
        follow(&Url::parse(api).unwrap(), &from, target).map(String::from)
    }

    #[test]
    fn links_are_followed_at_the_same_registry() {
        for (target, next) in [
            ("/v2/a/b/tags/list?n=9&last=x", "https://r.example/v2/a/b/tags/list?n=9&last=x"),
            ("?next=b%2F%3D,1", "https://r.example/v2/a/b/tags/list?next=b%2F%3D,1"),
            ("list?token=t#f", "https://r.example/v2/a/b/tags/list?token=t"),
            ("/elsewhere/page/2", "https://r.example/elsewhere/page/2"),
            ("https://r.example/v2/a/b/tags/list?last=x", "https://r.example/v2/a/b/tags/list?last=x"),
            ("http://me:secret@R.example:8080/v2/x?last=x", "https://r.example/v2/x?last=x"),
            ("//r.example/v2/x", "https://r.example/v2/x"),
        ] {
            assert_eq!(followed("https://r.example", target).as_deref(), Ok(next), "{target}");
        }
    }

    #[test]
    fn links_elsewhere_are_refused() {
        for target in [
            "https://evil.example/v2/a/b/tags/list",
            "//evil.example/",
            "file:///etc/passwd",
            "http://",
            "data:x",
        ] {
            assert!(followed("https://r.example", target).is_err(), "{target}");
        }
    }

    #[test]
    fn a_path_prefix_is_kept_and_is_added_where_it_is_missing() {
        let api = "http://r.example:5000/hub";
        let next = "http://r.example:5000/hub/v2/a/b/tags/list?last=x";
        for target in ["?last=x", "/v2/a/b/tags/list?last=x", "/hub/v2/a/b/tags/list?last=x"] {
            assert_eq!(followed(api, target).as_deref(), Ok(next), "{target}");
        }
        assert_eq!(followed(api, "/pages/2").as_deref(), Ok("http://r.example:5000/pages/2"));
    }

    proptest! {
        #[test]
        fn any_link_stays_with_whom_was_asked(target in "(https?:)?/{0,3}[!-~]{0,30}|.*") {
            for api in ["https://r.example", "http://127.0.0.1:5000/hub"] {
                let asked = Url::parse(api).unwrap();
                if let Ok(next) = followed(api, &target) {
                    let next = Url::parse(&next).unwrap();
                    prop_assert_eq!(next.origin(), asked.origin());
                    prop_assert!(next.username().is_empty() && next.password().is_none());
                }
            }
        }
    }
}
