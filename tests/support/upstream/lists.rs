//! Lists of tags and of referrers, paged in the ways that registries page them.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::json;

use super::wire::Answer;
use super::{OCI_INDEX, Seen};
use crate::support::layout::Repository;

/// How the next page is linked to.
#[derive(Clone, Debug)]
pub enum Link {
    /// `</v2/…?last=…>`, as most do
    Path,
    /// `<?last=…>`
    Query,
    /// `<http://host:port/v2/…?last=…>`, among other links
    Absolute,
    /// `</v2/…?next_page=…>` with a token that says nothing to anybody else
    Token,
    /// At this address, wherever that is
    At(String),
}

/// What becomes of an `n` for tags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum N {
    Honoured,
    Ignored,
    /// 400 when it is above `most`
    Refused,
}

#[derive(Clone, Debug)]
pub struct Lists {
    /// Entries of a page, whatever was asked for.
    pub most: usize,
    pub link: Link,
    pub n: N,
    /// Has the referrers API.
    pub referrers: bool,
}

impl Default for Lists {
    fn default() -> Self {
        Self { most: 1000, link: Link::Path, n: N::Honoured, referrers: true }
    }
}

fn parameter<'a>(request: &'a Seen, name: &str) -> Option<&'a str> {
    request.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

impl Lists {
    pub(super) fn tags(
        &self,
        request: &Seen,
        repository: &Repository,
        name: &str,
        addr: SocketAddr,
    ) -> Answer {
        let n = parameter(request, "n").filter(|_| self.n != N::Ignored).map(|n| n.parse::<usize>().unwrap());
        if self.n == N::Refused && n.is_some_and(|n| n > self.most) {
            return Answer::error(400, "PAGINATION_NUMBER_INVALID");
        }
        let token = parameter(request, "next_page").map(|token| {
            let hex = token.strip_prefix("b%2F%3D").unwrap();
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            String::from_utf8((0..hex.len()).step_by(2).map(byte).collect()).unwrap()
        });
        let last = token.or_else(|| parameter(request, "last").map(str::to_owned));
        let behind = repository.tags.keys().filter(|tag| last.as_ref().is_none_or(|last| *tag > last));
        let tags: Vec<&String> = behind.collect();
        let end = n.unwrap_or(usize::MAX).min(self.most).min(tags.len());
        let mut answer = Answer::new(200, json!({"name": name, "tags": &tags[..end]}).to_string())
            .with("Content-Type", "application/json; charset=utf-8");
        if end < tags.len() {
            let last = tags[end - 1];
            let query = match self.link {
                Link::Token => last.bytes().fold("next_page=b%2F%3D".to_owned(), |mut token, byte| {
                    write!(token, "{byte:02x}").unwrap();
                    token
                }),
                _ => format!("last={last}&n={end}"),
            };
            answer = answer.with("Link", self.link(&request.path, &query, addr));
        }
        answer
    }

    pub(super) fn referrers(
        &self,
        request: &Seen,
        repository: &Repository,
        subject: &str,
        addr: SocketAddr,
    ) -> Answer {
        if !self.referrers {
            return Answer::error(404, "NOT_FOUND");
        }
        let mut all = repository.referrers.get(subject).cloned().unwrap_or_default();
        let wanted = parameter(request, "artifactType");
        all.retain(|descriptor| wanted.is_none_or(|wanted| descriptor["artifactType"] == wanted));
        let start: usize = parameter(request, "from").map_or(0, |from| from.parse().unwrap());
        let end = (start + self.most).min(all.len());
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": &all[start..end]});
        let mut answer = Answer::new(200, index.to_string()).with("Content-Type", OCI_INDEX);
        if wanted.is_some() {
            answer = answer.with("OCI-Filters-Applied", "artifactType");
        }
        match end < all.len() {
            true => answer.with("Link", self.link(&request.path, &format!("from={end}"), addr)),
            false => answer,
        }
    }

    fn link(&self, path: &str, query: &str, addr: SocketAddr) -> String {
        match &self.link {
            Link::Path => format!(r#"<{path}?{query}>; rel="next""#),
            Link::Query => format!("<?{query}>;rel=next"),
            Link::Absolute => {
                format!(
                    r#"<{path}>; rel="first", <http://{addr}{path}?{query}>; title="a, b"; rel="last next""#
                )
            }
            Link::Token => format!(r#"<{path}?{query}>; rel="next""#),
            Link::At(place) => format!(r#"<{place}{path}?{query}>; rel="next""#),
        }
    }
}
