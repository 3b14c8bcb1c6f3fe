//! Which image keeps what: a million names and contents in 12 bytes each.

/// An image that keeps what it leads to, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root(u32);

/// When an image was last used, and then its number: no two are equal. The least goes first.
pub type Rank = (u32, Root);

/// The keeper of what no image leads to.
pub const NOBODY: Root = Root(0);

/// The time of use of an image that is not to go.
const STAYS: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Kept {
    high: u32,
    low: u32,
    by: Root,
}

impl Kept {
    fn key(self) -> (u32, u32) {
        (self.high, self.low)
    }
}

/// Of all images that lead to something, the one that would go last keeps it. Looked into once [`done`](Self::done).
pub struct Keepers {
    kept: Vec<Kept>,
    /// By root.
    used: Vec<u32>,
}

/// Whether an image may go, and since when nobody used it, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Stays,
    UnusedSince(u32),
}

impl Default for Keepers {
    fn default() -> Self {
        Self { kept: Vec::new(), used: vec![0] }
    }
}

impl Keepers {
    pub fn add(&mut self, standing: Standing) -> Root {
        let root = Root(u32::try_from(self.used.len()).unwrap_or(u32::MAX));
        self.used.push(match standing {
            Standing::Stays => STAYS,
            Standing::UnusedSince(used) => used.min(STAYS - 1),
        });
        root
    }

    pub fn keep(&mut self, key: u64, by: Root) {
        if self.kept.len() == self.kept.capacity() {
            self.tidy();
            // Doubling would take twice the room of what is there, for a while.
            let more = if self.kept.len() > self.kept.capacity() / 4 * 3 { self.kept.len() / 2 } else { 0 };
            self.kept.reserve_exact(more.max(1024));
        }
        self.kept.push(Kept { high: (key >> 32) as u32, low: key as u32, by });
    }

    fn tidy(&mut self) {
        let used = &self.used;
        let rank = |root: Root| (used.get(root.0 as usize).copied().unwrap_or(STAYS), root);
        self.kept.sort_unstable_by(|a, b| a.key().cmp(&b.key()).then_with(|| rank(b.by).cmp(&rank(a.by))));
        self.kept.dedup_by_key(|kept| kept.key());
    }

    pub fn done(mut self) -> Self {
        self.tidy();
        self
    }

    pub fn of(&self, key: u64) -> Option<Root> {
        let key = ((key >> 32) as u32, key as u32);
        let at = self.kept.binary_search_by(|kept| kept.key().cmp(&key)).ok()?;
        self.kept.get(at).map(|kept| kept.by)
    }

    pub fn rank(&self, root: Root) -> Rank {
        (self.used.get(root.0 as usize).copied().unwrap_or(STAYS), root)
    }

    /// Those that may go, the one to go first at the beginning.
    pub fn candidates(&self) -> Vec<Rank> {
        let all = self.used.iter().zip(0..).skip(1).map(|(used, number)| (*used, Root(number)));
        let mut ranks: Vec<_> = all.filter(|(used, _)| *used < STAYS).collect();
        ranks.sort_unstable();
        ranks
    }

    /// Something for each root, from nothing.
    pub fn for_each_root<T: Clone + Default>(&self) -> ByRoot<T> {
        ByRoot(vec![T::default(); self.used.len()])
    }
}

pub struct ByRoot<T>(Vec<T>);

impl<T> ByRoot<T> {
    pub fn get_mut(&mut self, root: Root) -> Option<&mut T> {
        self.0.get_mut(root.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_one_that_goes_last_keeps(
            used in proptest::collection::vec(0..5u32, 1..20),
            kept in proptest::collection::vec((0..50u64, 0..20usize), 0..3000),
        ) {
            let mut keepers = Keepers::default();
            let roots: Vec<_> =
                used.iter().map(|used| keepers.add(Standing::UnusedSince(*used))).collect();
            let mut model = std::collections::BTreeMap::new();
            for (key, index) in &kept {
                let root = roots[index % roots.len()];
                let key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                keepers.keep(key, root);
                let last = model.entry(key).or_insert(root);
                *last = [*last, root].into_iter().max_by_key(|root| keepers.rank(*root)).unwrap();
            }
            let keepers = keepers.done();
            for key in (0..60u64).map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
                prop_assert_eq!(keepers.of(key), model.get(&key).copied());
            }
        }
    }
}
