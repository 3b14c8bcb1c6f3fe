//! Whose list is fetched when: a few at once of each registry, so that one that is silent holds up no other.

use std::convert::Infallible;
use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PullError;
use crate::oci::Registry;

/// Lists that one registry is asked for at once.
const AT_ONCE: usize = 4;

/// Lists that wait for their turn at one registry.
const WAITING: usize = 64;

/// What all lists that are coming in may come to, in bytes.
const ROOM: usize = 256 << 20;

/// Registries are as many as clients name; those asked longest ago are forgotten, with no harm but more at once.
const REGISTRIES: usize = 1024;

/// Places for the lists of all registries.
pub struct Turns {
    places: Cache<Registry, Arc<Semaphore>>,
    room: Arc<Semaphore>,
}

/// A place that is taken, and the room that the list has taken so far. Dropping it gives both back.
pub struct Turn {
    _place: OwnedSemaphorePermit,
    taken: OwnedSemaphorePermit,
    room: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Cache::new(REGISTRIES), room: Arc::new(Semaphore::new(ROOM)) }
    }
}

impl Turns {
    /// Waits for a place; an error where too many do.
    pub async fn take(&self, registry: &Registry) -> Result<Turn, PullError> {
        let made = || Ok::<_, Infallible>(Arc::new(Semaphore::new(AT_ONCE)));
        let places = match self.places.get_or_insert_with(registry, made) {
            Ok(places) => places,
            Err(never) => match never {},
        };
        // Each who has a place or waits for one holds the semaphore, as does the cache.
        if Arc::strong_count(&places) > 1 + AT_ONCE + WAITING {
            return Err(PullError::Crowded);
        }
        let place = places.acquire_owned().await.map_err(|_| PullError::Lost)?;
        let taken = self.room.clone().try_acquire_many_owned(0).map_err(|_| PullError::Crowded)?;
        Ok(Turn { _place: place, taken, room: self.room.clone() })
    }
}

impl Turn {
    /// Takes room for so many bytes more, until the turn ends; an error where there is none.
    pub fn grow(&mut self, bytes: usize) -> Result<(), PullError> {
        let bytes = u32::try_from(bytes).map_err(|_| PullError::Crowded)?;
        let more = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| PullError::Crowded)?;
        self.taken.merge(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    fn registry(name: &str) -> Registry {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_whose_places_are_taken_holds_up_no_other() {
        let turns = Turns::default();
        let silent = registry("silent.example");
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.take(&silent).await.unwrap());
        }
        let one_more = tokio::time::timeout(Duration::from_secs(600), turns.take(&silent));
        assert!(one_more.await.is_err());
        assert!(turns.take(&registry("good.example")).await.is_ok());
        taken.pop();
        assert!(turns.take(&silent).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_bounded_and_who_gives_up_makes_room() {
        let turns = Arc::new(Turns::default());
        let silent = registry("silent.example");
        let mut tasks = JoinSet::new();
        let mut wait = |count| {
            for _ in 0..count {
                let (turns, silent) = (turns.clone(), silent.clone());
                tasks.spawn(async move {
                    let _turn = turns.take(&silent).await.unwrap();
                    std::future::pending::<()>().await;
                });
            }
        };
        wait(AT_ONCE + WAITING);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(matches!(turns.take(&silent).await, Err(PullError::Crowded)));
        assert!(turns.take(&registry("good.example")).await.is_ok());
        tasks.shutdown().await;
        assert!(turns.take(&silent).await.is_ok());
    }

    #[tokio::test]
    async fn what_comes_in_is_bounded_over_all() {
        let turns = Turns::default();
        let mut one = turns.take(&registry("a.example")).await.unwrap();
        let mut other = turns.take(&registry("b.example")).await.unwrap();
        one.grow(ROOM - 1).unwrap();
        other.grow(1).unwrap();
        assert!(matches!(other.grow(1), Err(PullError::Crowded)));
        drop(one);
        other.grow(ROOM - 1).unwrap();
        drop(other);
        assert_eq!(turns.room.available_permits(), ROOM);
    }
}
