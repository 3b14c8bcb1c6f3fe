//! Whether the threads that serve are alive.

use tokio::runtime::Handle;

/// Tells whether every thread of a [`Server`](super::Server) does its work.
pub struct Pulse {
    workers: Vec<Handle>,
}

impl Pulse {
    pub(super) fn of(workers: impl IntoIterator<Item = Handle>) -> Self {
        Self { workers: workers.into_iter().collect() }
    }

    /// True once each has done something; a thread that hangs makes it wait, one that is gone makes it false.
    pub async fn beat(&self) -> bool {
        let beats: Vec<_> = self.workers.iter().map(|worker| worker.spawn(async {})).collect();
        for beat in beats {
            if beat.await.is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_does_nothing_has_no_pulse() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pulse = |runtime: &tokio::runtime::Runtime| Pulse::of([runtime.handle().clone()]);
        let (asking, alive, idle, gone) = (runtime(), runtime(), runtime(), runtime());
        let (of_alive, of_idle, of_gone) = (pulse(&alive), pulse(&idle), pulse(&gone));
        gone.shutdown_background();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = thread::spawn(move || alive.block_on(stopped));
        asking.block_on(async {
            assert!(of_alive.beat().await);
            assert!(!of_gone.beat().await);
            assert!(tokio::time::timeout(Duration::from_millis(50), of_idle.beat()).await.is_err());
        });
        stop.send(()).unwrap();
        thread.join().unwrap().unwrap();
    }
}
