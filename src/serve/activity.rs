//! What a connection is doing, and how long it may go on with it.
//!
//! No connection has a timer. What happens on it is noted with the second of the thread's clock, and once a second
//! a sweep over all of the thread's connections finds those whose time is up. On HTTP/2 it finds responses too: each
//! has its own time, so that none is kept by what goes on beside it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::AbortHandle;

/// A clock of whole seconds. It stands still while the thread has no connection.
pub type Clock = Rc<Cell<u32>>;

/// Seconds that something may take.
pub struct Patience {
    /// The TLS handshake.
    pub handshake: u32,
    /// The head of a request, from its first byte on.
    pub head: u32,
    /// Between requests, and before the first one.
    pub idle: u32,
    /// The same on HTTP/2, which does not say when a client has taken the end of a response.
    pub idle_http2: u32,
    /// Taking any of a response. A client's disk may be slow: containerd's stalls for tens of seconds.
    pub stall: u32,
    /// What a client waits for that will say nothing more, and may be gone.
    pub half_closed: u32,
}

pub const AMPLE: Patience =
    Patience { handshake: 10, head: 30, idle: 120, idle_http2: 300, stall: 300, half_closed: 30 };

/// When others wait to be let in.
pub const SCARCE: Patience =
    Patience { handshake: 5, head: 5, idle: 2, idle_http2: 5, stall: 60, half_closed: 5 };

/// When requests of HTTP/2 wait for a place, which those that stall take from them.
pub const CROWDED: Patience = Patience { stall: SCARCE.stall, ..AMPLE };

/// Who was told to finish and does not is cut off after so many seconds more.
const FINISH: u32 = 10;

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End when what runs is done.
    Finish,
    /// End now.
    Cut(Cut),
}

/// Why a connection is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("the client was too slow")]
    TooSlow,
    #[error("the daemon ended")]
    Ending,
}

/// What is waited for while no request runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Idle,
    Head,
}

/// A request under way.
struct Turn {
    /// The client waits for us, and not we for the client.
    owed: bool,
    /// For how long.
    since: u32,
    /// What answers it, where that can be ended by itself (HTTP/2).
    task: Option<AbortHandle>,
}

/// One connection's.
pub struct Activity {
    clock: Clock,
    phase: Cell<Phase>,
    /// When anything last happened that counts while no request runs.
    since: Cell<u32>,
    http2: Cell<bool>,
    /// Requests under way, until the last of the body is handed over. A place is used again: HTTP/1 has one.
    turns: RefCell<Vec<Option<Turn>>>,
    /// Where the newest is.
    newest: Cell<usize>,
    running: Cell<u32>,
    /// Since when the client takes nothing of what was written.
    blocked: Cell<Option<u32>>,
    /// Since when we know that the client sends nothing more.
    half_closed: Cell<Option<u32>>,
    order: Cell<Option<Order>>,
    cut: Cell<Option<Cut>>,
    waiting: RefCell<Option<Waker>>,
}

impl Activity {
    pub fn new(clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            since: Cell::new(clock.get()),
            clock,
            phase: Cell::new(Phase::Idle),
            http2: Cell::new(false),
            turns: RefCell::default(),
            newest: Cell::new(0),
            running: Cell::new(0),
            blocked: Cell::new(None),
            half_closed: Cell::new(None),
            order: Cell::new(None),
            cut: Cell::new(None),
            waiting: RefCell::new(None),
        })
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.get());
    }

    pub fn handshaking(&self) {
        self.enter(Phase::Handshake);
    }

    pub fn handshaken(&self) {
        self.enter(Phase::Idle);
    }

    pub fn speaks_http2(&self) {
        self.http2.set(true);
        self.enter(Phase::Idle);
    }

    /// Bytes came in. What trickles in changes nothing: a head's time runs from its first byte on.
    pub fn received(&self) {
        if self.running.get() == 0 && self.phase.get() == Phase::Idle && !self.http2.get() {
            self.enter(Phase::Head);
        }
    }

    pub fn blocked(&self) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(self.clock.get()));
        }
    }

    /// Bytes went out.
    pub fn sent(&self) {
        if self.blocked.take().is_some() {
            self.since.set(self.clock.get());
        }
    }

    pub fn is_http2(&self) -> bool {
        self.http2.get()
    }

    /// Whether a request is being answered.
    pub fn is_answering(&self) -> bool {
        self.running.get() > 0
    }

    pub fn half_closed(&self) {
        if self.half_closed.get().is_none() {
            self.half_closed.set(Some(self.clock.get()));
        }
    }

    /// What answers the newest request. It is ended by itself when the client takes nothing of the response.
    pub fn answered_by(&self, task: AbortHandle) {
        if let Some(Some(turn)) = self.turns.borrow_mut().get_mut(self.newest.get()) {
            turn.task = Some(task);
        }
    }

    /// What is to be done about it now, if anything.
    pub fn overdue(&self, patience: &Patience) -> Option<Order> {
        let cut = Order::Cut(Cut::TooSlow);
        let (since, limit, order) = match (self.blocked.get(), self.phase.get()) {
            (Some(since), _) => (since, patience.stall, cut),
            _ if self.running.get() > 0 => (self.abandoned()?, patience.half_closed, cut),
            (None, Phase::Handshake) => (self.since.get(), patience.handshake, cut),
            (None, Phase::Head) => (self.since.get(), patience.head, cut),
            (None, Phase::Idle) if self.http2.get() => (self.since.get(), patience.idle_http2, Order::Finish),
            (None, Phase::Idle) => (self.since.get(), patience.idle, Order::Finish),
        };
        let age = self.clock.get() - since;
        (age > limit).then(|| if age > limit + FINISH { cut } else { order })
    }

    /// Since when a client waits of which only a write would tell whether it is there.
    fn abandoned(&self) -> Option<u32> {
        let half_closed = self.half_closed.get()?;
        let turns = self.turns.borrow();
        turns.iter().flatten().filter(|turn| turn.owed).map(|turn| turn.since.max(half_closed)).min()
    }

    /// Ends the responses of HTTP/2 of which the client has taken nothing for too long, each by itself.
    pub fn end_stalled(&self, patience: &Patience) {
        for turn in self.turns.borrow().iter().flatten().filter(|turn| !turn.owed) {
            if let Some(task) = &turn.task
                && self.clock.get() - turn.since > patience.stall
            {
                tracing::debug!("a response was not taken in time");
                task.abort();
            }
        }
    }

    pub fn order(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// What runs is cut off, and may say why.
    pub fn cut_off(&self, why: Cut) {
        self.cut.set(Some(why));
    }

    /// Waits for the next order.
    pub async fn ordered(&self) -> Order {
        poll_fn(|context| match self.order.take() {
            Some(order) => Poll::Ready(order),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waiting = Some(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// A request under way on a connection. Dropped, it is over.
pub struct Exchange {
    activity: Rc<Activity>,
    /// In its `turns`.
    index: usize,
}

impl Exchange {
    pub fn begin(activity: Rc<Activity>) -> Self {
        activity.enter(Phase::Idle);
        activity.running.set(activity.running.get() + 1);
        let turn = Some(Turn { owed: true, since: activity.clock.get(), task: None });
        let mut turns = activity.turns.borrow_mut();
        let index = turns.iter().position(Option::is_none).unwrap_or(turns.len());
        match turns.get_mut(index) {
            Some(free) => *free = turn,
            None => turns.push(turn),
        }
        drop(turns);
        activity.newest.set(index);
        Self { activity, index }
    }

    /// Why it is cut off, if it is.
    pub fn cut(&self) -> Option<Cut> {
        self.activity.cut.get()
    }

    /// Whether the client waits for us.
    pub fn owe(&self, owed: bool) {
        if let Some(Some(turn)) = self.activity.turns.borrow_mut().get_mut(self.index)
            // How long it waits for us counts from when it began to.
            && !(owed && turn.owed)
        {
            (turn.owed, turn.since) = (owed, self.activity.clock.get());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.running.set(activity.running.get() - 1);
        activity.since.set(activity.clock.get());
        if let Some(turn) = activity.turns.borrow_mut().get_mut(self.index) {
            *turn = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(activity: &Activity, seconds: u32) -> Option<Order> {
        activity.clock.set(activity.clock.get() + seconds);
        activity.overdue(&AMPLE)
    }

    #[test]
    fn a_client_that_waits_for_us_may_wait() {
        let activity = Activity::new(Clock::default());
        let exchange = Exchange::begin(activity.clone());
        assert_eq!(later(&activity, 10_000), None);
        exchange.owe(false);
        activity.blocked();
        assert_eq!(later(&activity, AMPLE.stall), None);
        assert_eq!(later(&activity, 1), Some(Order::Cut(Cut::TooSlow)));
        activity.sent();
        exchange.owe(true);
        assert_eq!(later(&activity, 10_000), None);
    }

    #[test]
    fn who_may_be_gone_is_waited_with_for_half_a_minute_at_a_time() {
        let activity = Activity::new(Clock::default());
        let exchange = Exchange::begin(activity.clone());
        assert_eq!(later(&activity, 1000), None);
        activity.half_closed();
        assert_eq!(later(&activity, AMPLE.half_closed), None);
        exchange.owe(false);
        exchange.owe(true);
        assert_eq!(later(&activity, AMPLE.half_closed), None);
        exchange.owe(true);
        activity.half_closed();
        assert_eq!(later(&activity, 1), Some(Order::Cut(Cut::TooSlow)));
    }

    #[tokio::test]
    async fn a_response_that_is_not_taken_ends_whatever_goes_on_beside_it() {
        let activity = Activity::new(Clock::default());
        activity.speaks_http2();
        let begin = || {
            let exchange = Exchange::begin(activity.clone());
            let task = tokio::spawn(std::future::pending::<()>());
            activity.answered_by(task.abort_handle());
            (exchange, task)
        };
        let [(waiting, first), (stalled, second), (active, third)] = [begin(), begin(), begin()];
        stalled.owe(false);
        for _ in 0..AMPLE.stall / 100 {
            active.owe(false);
            activity.end_stalled(&AMPLE);
            drop(begin());
            assert_eq!(later(&activity, 100), None);
        }
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        activity.clock.set(activity.clock.get() + 1);
        activity.end_stalled(&AMPLE);
        assert!(second.await.unwrap_err().is_cancelled());
        drop((stalled, active, waiting));
        assert!(!first.is_finished() && !third.is_finished());
        assert_eq!(later(&activity, AMPLE.idle_http2), None);
        assert_eq!(later(&activity, 1), Some(Order::Finish));
    }

    #[test]
    fn who_does_not_finish_when_told_is_cut_off() {
        let activity = Activity::new(Clock::default());
        drop(Exchange::begin(activity.clone()));
        assert_eq!(later(&activity, AMPLE.idle), None);
        assert_eq!(later(&activity, 1), Some(Order::Finish));
        assert_eq!(later(&activity, FINISH), Some(Order::Cut(Cut::TooSlow)));
    }

    #[test]
    fn an_end_that_is_not_taken_has_the_time_of_a_response() {
        let activity = Activity::new(Clock::default());
        let exchange = Exchange::begin(activity.clone());
        activity.blocked();
        drop(exchange);
        assert_eq!(later(&activity, AMPLE.stall), None);
        activity.sent();
        assert_eq!(later(&activity, AMPLE.idle), None);
    }
}
