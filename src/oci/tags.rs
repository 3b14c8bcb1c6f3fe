//! A repository's tags, and pages of them (distribution-spec, "Listing Tags").

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;

use super::Tag;
use super::bounded::{Bounded, MAX_LISTED};

/// Why a text is no list that can be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidList {
    #[error("is none: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has more than {MAX_LISTED} entries")]
    TooLong,
}

/// Tags that still come in, page by page, in upstream's order.
///
/// They are kept as the JSON that they are served as, `"1.0","latest"`: a tag needs no escapes, so a page of them
/// is a slice of that.
#[derive(Clone, Debug, Default)]
pub struct GrowingTags {
    text: String,
    /// None is listed twice: behind the second one a client would be sent back to behind the first.
    seen: HashSet<Tag>,
}

/// All tags of a repository, in upstream's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagList {
    /// As in [`GrowingTags`].
    text: Bytes,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many; none is all.
    pub n: Option<usize>,
    /// Only what stands behind this one.
    pub last: Option<String>,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPage {
    /// The elements of a JSON array, without its brackets.
    pub text: Bytes,
    /// The last tag of the page, when more stand behind it.
    pub next: Option<String>,
}

impl TagPage {
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        tags(std::str::from_utf8(&self.text).unwrap_or_default())
    }
}

/// `{"name": …, "tags": […]}`
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    tags: Bounded<Text<'a>>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl GrowingTags {
    /// Puts more behind what is there.
    pub fn append(&mut self, tags: impl IntoIterator<Item = Tag>) -> Result<(), InvalidList> {
        for tag in tags {
            if self.seen.contains(&tag) {
                continue;
            }
            if self.seen.len() == MAX_LISTED {
                return Err(InvalidList::TooLong);
            }
            self.text.extend([if self.text.is_empty() { "\"" } else { ",\"" }, tag.as_str(), "\""]);
            self.seen.insert(tag);
        }
        Ok(())
    }

    /// A page that is all there, with more behind it.
    pub fn page(&self, page: &Page) -> Option<TagPage> {
        if page.n? == 0 {
            return (!self.text.is_empty()).then(TagPage::default);
        }
        self.so_far(page).filter(|part| part.next.is_some())
    }

    /// What is there of a page, so far; where it ends nothing is known to follow. None when it is nothing at all,
    /// or where the page begins is not known yet.
    pub fn so_far(&self, page: &Page) -> Option<TagPage> {
        if page.last.as_ref().is_some_and(|last| !self.text.contains(&quoted(last))) {
            return None;
        }
        let (range, next) = cut(&self.text, page);
        let text = self.text.get(range).filter(|text| !text.is_empty())?;
        Some(TagPage { text: Bytes::copy_from_slice(text.as_bytes()), next })
    }

    pub fn finish(self) -> TagList {
        TagList { text: self.text.into() }
    }
}

/// Reads one answer of an upstream. What can be no tag, and so could not be asked for, is left out.
pub fn tags_of(json: &[u8]) -> Result<Vec<Tag>, InvalidList> {
    Ok(valid(serde_json::from_slice::<Document>(json)?.tags))
}

fn valid(tags: Bounded<Text<'_>>) -> Vec<Tag> {
    tags.0.iter().filter_map(|Text(tag)| tag.parse().ok()).collect()
}

impl TagList {
    /// Reads a JSON array.
    pub fn parse(json: &str) -> Result<Self, InvalidList> {
        Self::of(valid(serde_json::from_str(json)?))
    }

    pub fn of(tags: impl IntoIterator<Item = Tag>) -> Result<Self, InvalidList> {
        let mut list = GrowingTags::default();
        list.append(tags)?;
        Ok(list.finish())
    }

    /// The elements of a JSON array, without its brackets.
    pub fn as_str(&self) -> &str {
        // Tags are ASCII.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        tags(self.as_str())
    }

    /// With those of `more` that are not in it: in their places if the list is sorted, else behind it.
    pub fn and(&self, more: Vec<Tag>) -> Result<Self, InvalidList> {
        let known: HashSet<&str> = self.iter().collect();
        let more: Vec<Tag> = more.into_iter().filter(|tag| !known.contains(tag.as_str())).collect();
        if more.is_empty() {
            return Ok(self.clone());
        }
        let mut all: Vec<Tag> = self.iter().filter_map(|tag| tag.parse().ok()).chain(more).collect();
        if self.iter().is_sorted() {
            all.sort_unstable();
        }
        Self::of(all)
    }

    /// A page, which shares its bytes with the list.
    pub fn page(&self, page: &Page) -> TagPage {
        let (range, next) = cut(self.as_str(), page);
        TagPage { text: self.text.slice(range), next }
    }
}

fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|quoted| quoted.trim_matches('"')).filter(|tag| !tag.is_empty())
}

/// Where a page stands in the text, and its last tag if more stand behind it. No tags are followed by none.
fn cut(text: &str, page: &Page) -> (Range<usize>, Option<String>) {
    let start = page.last.as_deref().map_or(0, |last| behind(text, last));
    let rest = &text[start..];
    let end = match page.n {
        Some(0) => return (start..start, None),
        Some(n) => rest.match_indices(',').nth(n - 1).map(|(at, _)| at),
        None => None,
    };
    let Some(end) = end else { return (start..text.len(), None) };
    (start..start + end, tags(&rest[..end]).last().map(str::to_owned))
}

/// A tag as it stands in the text; what is no tag as it never stands there.
fn quoted(last: &str) -> String {
    if last.parse::<Tag>().is_ok() { format!("\"{last}\"") } else { " ".to_owned() }
}

/// Where the tags behind `last` begin. One that is not in the list, perhaps no longer, has the first behind it that
/// sorts behind it.
fn behind(text: &str, last: &str) -> usize {
    let quoted = quoted(last);
    if let Some(at) = text.find(&quoted) {
        return (at + quoted.len() + 1).min(text.len());
    }
    let mut at = 0;
    for tag in tags(text) {
        if tag > last {
            return at;
        }
        at += tag.len() + 3;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(tags: &[&str]) -> TagList {
        TagList::of(tags.iter().map(|tag| tag.parse().unwrap())).unwrap()
    }

    fn page(list: &TagList, n: Option<usize>, last: Option<&str>) -> (Vec<String>, Option<String>) {
        let page = list.page(&Page { n, last: last.map(str::to_owned) });
        let json = format!("[{}]", std::str::from_utf8(&page.text).unwrap());
        (serde_json::from_str(&json).unwrap(), page.next)
    }

    fn strings(tags: &[&str]) -> Vec<String> {
        tags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_page_begins_behind_last_and_has_n_tags() {
        let tags = list(&["a", "b", "c"]);
        assert_eq!(page(&tags, None, None), (strings(&["a", "b", "c"]), None));
        assert_eq!(page(&tags, Some(2), None), (strings(&["a", "b"]), Some("b".into())));
        assert_eq!(page(&tags, Some(2), Some("b")), (strings(&["c"]), None));
        assert_eq!(page(&tags, Some(3), None), (strings(&["a", "b", "c"]), None));
        assert_eq!(page(&tags, Some(usize::MAX), Some("a")), (strings(&["b", "c"]), None));
        assert_eq!(page(&tags, None, Some("c")), (vec![], None));
    }

    #[test]
    fn zero_tags_are_followed_by_nothing() {
        assert_eq!(page(&list(&["a", "b"]), Some(0), None), (vec![], None));
        assert_eq!(page(&list(&[]), Some(1), None), (vec![], None));
    }

    #[test]
    fn behind_a_tag_that_is_not_there_is_what_sorts_behind_it() {
        let tags = list(&["1.0", "1.2", "latest"]);
        assert_eq!(page(&tags, Some(1), Some("1.1")), (strings(&["1.2"]), Some("1.2".into())));
        assert_eq!(page(&tags, None, Some("zzz")), (vec![], None));
        assert_eq!(page(&tags, None, Some("")), (strings(&["1.0", "1.2", "latest"]), None));
        assert_eq!(page(&tags, None, Some("0\",\"1.2")), (strings(&["1.0", "1.2", "latest"]), None));
    }

    #[test]
    fn upstreams_order_is_kept() {
        let tags = list(&["z", "a", "m"]);
        assert_eq!(page(&tags, Some(1), Some("z")), (strings(&["a"]), Some("a".into())));
        assert_eq!(page(&tags, Some(1), Some("a")), (strings(&["m"]), None));
    }

    #[test]
    fn answers_of_upstreams_are_read() {
        let read = |json: &str| tags_of(json.as_bytes()).and_then(TagList::of);
        assert_eq!(read(r#"{"name":"x","tags":["a","b"]}"#).unwrap(), list(&["a", "b"]));
        assert_eq!(read(r#"{"name":"x","tags":null}"#).unwrap(), list(&[]));
        assert_eq!(read(r#"{"tags":["not a tag","\u0061",""]}"#).unwrap(), list(&["a"]));
        for json in ["", "[]", "{}", r#"{"tags":{}}"#, r#"{"tags":[1]}"#, r#"{"tags":["a"]"#] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_page_of_a_growing_list_is_given_when_more_is_known_to_follow() {
        let mut tags = GrowingTags::default();
        let page = |n: usize, last: Option<&str>| Page { n: Some(n), last: last.map(str::to_owned) };
        assert_eq!(tags.so_far(&page(1, None)), None);
        tags.append(["z", "a"].map(|tag| tag.parse().unwrap())).unwrap();
        assert_eq!(tags.page(&page(1, None)).unwrap().next.as_deref(), Some("z"));
        assert_eq!(tags.page(&page(2, None)), None);
        assert_eq!(tags.page(&page(0, None)), Some(TagPage::default()));
        assert_eq!(tags.page(&Page::default()), None);
        assert_eq!(&tags.so_far(&page(2, None)).unwrap().text[..], br#""z","a""#);
        assert_eq!(&tags.so_far(&page(9, Some("z"))).unwrap().text[..], br#""a""#);
        assert_eq!(tags.so_far(&page(1, Some("m"))), None, "it may still come");
        assert_eq!(tags.so_far(&page(1, Some("a"))), None);
    }

    #[test]
    fn more_tags_find_their_places_in_a_sorted_list() {
        let more = || vec!["c".parse().unwrap(), "b".parse().unwrap()];
        assert_eq!(list(&["a", "c", "d"]).and(more()).unwrap(), list(&["a", "b", "c", "d"]));
        assert_eq!(list(&["d", "a"]).and(more()).unwrap(), list(&["d", "a", "c", "b"]));
        assert_eq!(list(&["c", "b", "a"]).and(more()).unwrap(), list(&["c", "b", "a"]));
    }

    #[test]
    fn a_tag_is_listed_once() {
        let tags = list(&["a", "b", "a", "c", "c"]);
        assert_eq!(page(&tags, None, None), (strings(&["a", "b", "c"]), None));
    }

    #[test]
    fn too_many_are_refused_in_one_page_and_in_several() {
        let mut tags = GrowingTags::default();
        assert!(tags.append((0..MAX_LISTED).map(|n| n.to_string().parse().unwrap())).is_ok());
        assert!(tags.append(["7".parse().unwrap()]).is_ok());
        assert!(tags.append(["more".parse().unwrap()]).is_err());
        let more = format!(r#"{{"tags":[{}"a"]}}"#, "\"a\",".repeat(MAX_LISTED));
        assert!(tags_of(more.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(json in "[\\[\\]{}\":,a-z0-9 ]{0,60}|.*") {
            let _ = tags_of(json.as_bytes());
            let _ = TagList::parse(&json);
        }

        #[test]
        fn any_page_of_any_list_is_a_part_of_it(
            tags in proptest::collection::hash_set("[a-z0-9_]{1,3}", 0..12),
            n in proptest::option::of(0usize..14),
            last in proptest::option::of("[a-z0-9_\",]{0,3}"),
        ) {
            let all: Vec<&str> = tags.iter().map(String::as_str).collect();
            let tags = strings(&all);
            let (part, next) = page(&list(&all), n, last.as_deref());
            prop_assert!(part.is_empty() || tags.windows(part.len()).any(|window| window == part));
            prop_assert!(n.is_none_or(|n| part.len() <= n));
            prop_assert!(next.is_none() || next.as_ref() == part.last());
        }

        #[test]
        fn the_pages_make_up_the_whole(
            tags in proptest::collection::hash_set("[A-Za-z0-9_][A-Za-z0-9._-]{0,5}", 0..40),
            pages in 1usize..8,
            n in 1usize..10,
        ) {
            let tags: Vec<String> = tags.into_iter().collect();
            let mut growing = GrowingTags::default();
            for chunk in tags.chunks(tags.len().div_ceil(pages).max(1)) {
                growing.append(chunk.iter().map(|tag| tag.parse().unwrap())).unwrap();
            }
            let list = growing.finish();
            let (mut seen, mut last) = (Vec::new(), None);
            loop {
                let (part, next) = page(&list, Some(n), last.as_deref());
                prop_assert!(next.is_none() || part.len() == n);
                seen.extend(part);
                match next {
                    Some(next) => last = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(&seen, &tags);
            prop_assert_eq!(TagList::parse(&format!("[{}]", list.as_str())).unwrap(), list);
        }
    }
}
