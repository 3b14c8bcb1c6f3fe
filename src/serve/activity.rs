//! What a connection is doing, and how long it may go on with it.
//!
//! No connection has a timer. What happens on it is noted with the second of the thread's clock, and once a second
//! a sweep over all of the thread's connections finds those whose time is up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

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
}

pub const AMPLE: Patience = Patience { handshake: 10, head: 30, idle: 120, idle_http2: 300, stall: 300 };

/// When others wait to be let in.
pub const SCARCE: Patience = Patience { handshake: 5, head: 5, idle: 2, idle_http2: 5, stall: 60 };

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

/// One connection's.
pub struct Activity {
    clock: Clock,
    phase: Cell<Phase>,
    http2: Cell<bool>,
    /// When anything last happened that counts.
    since: Cell<u32>,
    /// Requests under way, until the last of the body is handed over.
    requests: Cell<u32>,
    /// Those whose next bytes the client has to wait for, and not we for the client.
    owed: Cell<u32>,
    /// The client does not take what was written.
    blocked: Cell<bool>,
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
            requests: Cell::new(0),
            owed: Cell::new(0),
            blocked: Cell::new(false),
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
        if self.requests.get() == 0 && self.phase.get() == Phase::Idle && !self.http2.get() {
            self.enter(Phase::Head);
        }
    }

    pub fn blocked(&self) {
        self.blocked.set(true);
    }

    /// Bytes went out.
    pub fn sent(&self) {
        if self.blocked.replace(false) {
            self.since.set(self.clock.get());
        }
    }

    /// What is to be done about it now, if anything.
    pub fn overdue(&self, patience: &Patience) -> Option<Order> {
        let cut = Order::Cut(Cut::TooSlow);
        let (limit, order) = match self.phase.get() {
            _ if self.blocked.get() => (patience.stall, cut),
            _ if self.owed.get() > 0 => return None,
            _ if self.requests.get() > 0 => (patience.stall, cut),
            Phase::Handshake => (patience.handshake, cut),
            Phase::Head => (patience.head, cut),
            Phase::Idle if self.http2.get() => (patience.idle_http2, Order::Finish),
            Phase::Idle => (patience.idle, Order::Finish),
        };
        let age = self.clock.get() - self.since.get();
        (age > limit).then(|| if age > limit + FINISH { cut } else { order })
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
    owed: bool,
}

impl Exchange {
    pub fn begin(activity: Rc<Activity>) -> Self {
        activity.requests.set(activity.requests.get() + 1);
        activity.owed.set(activity.owed.get() + 1);
        activity.enter(Phase::Idle);
        Self { activity, owed: true }
    }

    /// Why it is cut off, if it is.
    pub fn cut(&self) -> Option<Cut> {
        self.activity.cut.get()
    }

    /// Whether the client waits for us.
    pub fn owe(&mut self, owed: bool) {
        let activity = &self.activity;
        match (self.owed, owed) {
            (true, false) => activity.owed.set(activity.owed.get() - 1),
            (false, true) => activity.owed.set(activity.owed.get() + 1),
            _ => {}
        }
        self.owed = owed;
        activity.since.set(activity.clock.get());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.owe(false);
        self.activity.requests.set(self.activity.requests.get() - 1);
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
        let mut exchange = Exchange::begin(activity.clone());
        assert_eq!(later(&activity, 10_000), None);
        exchange.owe(false);
        assert_eq!(later(&activity, AMPLE.stall), None);
        assert_eq!(later(&activity, 1), Some(Order::Cut(Cut::TooSlow)));
        exchange.owe(true);
        assert_eq!(later(&activity, 10_000), None);
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
