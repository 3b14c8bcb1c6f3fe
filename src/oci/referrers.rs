//! What refers to a manifest: signatures, attestations, SBOMs (distribution-spec, "Listing Referrers").

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounded::{Bounded, MAX_LISTED};
use super::tags::InvalidList;
use super::{Digest, Name, Tag};

/// A manifest in its repository, which others may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    pub name: Name,
    pub digest: Digest,
}

impl Subject {
    /// The tag under which clients keep the list in a registry without the referrers API: the algorithm, and of
    /// the digest no more than 64 digits ("Referrers Tag Schema").
    pub fn fallback_tag(&self) -> Option<Tag> {
        let hex = self.digest.hex();
        let digits = hex.get(..64).unwrap_or(&hex);
        format!("{}-{digits}", self.digest.algorithm().name()).parse().ok()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

/// All referrers of a manifest: the index that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    index: Bytes,
}

const BEFORE: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
const AFTER: &str = "]}";

/// The descriptors of an index, each as it was written.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    manifests: Bounded<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a> {
    #[serde(borrow, default)]
    artifact_type: Option<Cow<'a, str>>,
}

impl Referrers {
    /// Reads an index. Its descriptors are kept as they stand; what is no object could be none, and is left out.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidList> {
        let mut list = GrowingReferrers::default();
        list.append(json)?;
        Ok(list.finish())
    }

    pub fn none() -> Self {
        GrowingReferrers::default().finish()
    }

    /// The index, as JSON.
    pub fn index(&self) -> &Bytes {
        &self.index
    }

    pub fn is_empty(&self) -> bool {
        self.index.len() == BEFORE.len() + AFTER.len()
    }

    /// The index of those that have one of these artifact types.
    pub fn of_types(&self, types: &[String]) -> Result<Self, InvalidList> {
        let types: HashSet<&str> = types.iter().map(String::as_str).collect();
        let is_wanted = |raw: &&RawValue| {
            let typed = serde_json::from_str::<Typed>(raw.get()).ok();
            typed.and_then(|typed| typed.artifact_type).is_some_and(|own| types.contains(&*own))
        };
        let mut list = GrowingReferrers::default();
        list.push_all(descriptors(&self.index)?.into_iter().filter(is_wanted))?;
        Ok(list.finish())
    }
}

fn descriptors(json: &[u8]) -> Result<Vec<&RawValue>, InvalidList> {
    Ok(serde_json::from_slice::<Document>(json)?.manifests.0)
}

/// Referrers that still come in, page by page.
#[derive(Debug, Default)]
pub struct GrowingReferrers {
    descriptors: String,
    count: usize,
}

impl GrowingReferrers {
    /// Puts the descriptors of the next page behind what is there.
    pub fn append(&mut self, json: &[u8]) -> Result<(), InvalidList> {
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        self.push_all(descriptors(json)?.into_iter().filter(is_object))
    }

    fn push_all<'a>(&mut self, raws: impl Iterator<Item = &'a RawValue>) -> Result<(), InvalidList> {
        for raw in raws {
            if self.count == MAX_LISTED {
                return Err(InvalidList::TooLong);
            }
            if self.count > 0 {
                self.descriptors.push(',');
            }
            self.descriptors.push_str(raw.get());
            self.count += 1;
        }
        Ok(())
    }

    pub fn finish(self) -> Referrers {
        Referrers { index: [BEFORE, &self.descriptors, AFTER].concat().into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &str = r#"{"schemaVersion":2,"manifests":[
        {"digest": "sha256:aa", "size": 1e0, "artifactType":"a/b"} , {"digest":"sha256:bb"}, 5 ],"annotations":{}}"#;

    #[test]
    fn descriptors_are_kept_as_they_were_written() {
        let list = Referrers::parse(TWO.as_bytes()).unwrap();
        let index = std::str::from_utf8(list.index()).unwrap();
        assert!(
            index.ends_with(
                r#":[{"digest": "sha256:aa", "size": 1e0, "artifactType":"a/b"},{"digest":"sha256:bb"}]}"#
            ),
            "{index}"
        );
        assert_eq!(Referrers::parse(list.index()).unwrap(), list);
        assert!(!list.is_empty() && Referrers::none().is_empty());
    }

    #[test]
    fn types_are_any_of_those_asked_for() {
        let list = Referrers::parse(TWO.as_bytes()).unwrap();
        let count = |types: &[&str]| {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            descriptors(list.of_types(&types).unwrap().index()).unwrap().len()
        };
        assert_eq!(count(&["a/b"]), 1);
        assert_eq!(count(&["c/d", "a/b"]), 1);
        assert_eq!(count(&["A/B"]), 0);
    }

    #[test]
    fn an_index_without_manifests_is_none_and_null_is_empty() {
        assert!(Referrers::parse(br#"{"manifests":null}"#).unwrap().is_empty());
        for json in ["{}", "[]", "", "<html>", r#"{"manifests":{}}"#] {
            assert!(Referrers::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn the_fallback_tag_has_64_digits_at_most() {
        let name: Name = Name::new("quay.io".parse().unwrap(), "a".parse().unwrap());
        let tag = |text: String| {
            let subject = Subject { name: name.clone(), digest: text.parse().unwrap() };
            subject.fallback_tag().unwrap().to_string()
        };
        let sixty_four = "ab".repeat(32);
        assert_eq!(tag(format!("sha256:{sixty_four}")), format!("sha256-{sixty_four}"));
        assert_eq!(tag(format!("sha512:{}", "ab".repeat(64))), format!("sha512-{sixty_four}"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(json in "[\\[\\]{}\":,a-z0-9 ]{0,60}|.*") {
            if let Ok(list) = Referrers::parse(json.as_bytes()) {
                let _ = list.of_types(&["a".to_owned()]);
            }
        }
    }
}
