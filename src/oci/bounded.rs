//! A JSON array that may be `null`, and must not be longer than anybody needs.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Entries of a list, tags or referrers, in one array and in all its pages together.
pub const MAX_LISTED: usize = 200_000;

/// At most [`MAX_LISTED`] entries. A `null`, as programs in Go write an empty list, is empty.
pub struct Bounded<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Bounded<T>, E> {
        Ok(Bounded(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Bounded<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MAX_LISTED {
                return Err(A::Error::custom(format_args!("more than {MAX_LISTED} entries")));
            }
            list.push(entry);
        }
        Ok(Bounded(list))
    }
}
