//! The daemon's side of commands: each on a thread of its own, for as long as somebody listens.

use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use super::answer::{Body, Cause, Complaint, LINES, Line, lines, not_by_this_method};
use super::command::{Cache, Command};
use crate::store::Store;
use crate::store::care::{CareError, Pace};

/// Bytes of a request.
const REQUEST: usize = 1 << 20;

/// For all of a request to come.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// A client that takes nothing for so long stops work that others wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of threads that only look, as in nice(1).
const NICE: i32 = 10;

/// Who gives a command.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// Of this host, when the kernel knows who it is.
    User(Option<u32>),
    /// With the token.
    Address(SocketAddr),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(Some(uid)) => write!(f, "uid {uid}"),
            Self::User(None) => f.write_str("a user of this host"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Does commands on the daemon's store.
pub struct Worker {
    store: Arc<Store>,
    /// Had by what changes the cache as a whole.
    turn: Arc<Mutex<()>>,
    /// True from when the daemon is told to end.
    ending: watch::Receiver<bool>,
}

/// What a command tells, as it goes.
pub type Told<C> = mpsc::Receiver<Line<<C as Command>::Item, <C as Command>::Done>>;

type Teller<C> = mpsc::Sender<Line<<C as Command>::Item, <C as Command>::Done>>;

impl Worker {
    pub fn new(store: Arc<Store>, ending: watch::Receiver<bool>) -> Self {
        Self { store, turn: Arc::default(), ending }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers a request for a command as JSON lines.
    pub async fn answer<C: Command, B>(&self, request: Request<B>, asker: &Asker) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match read::<C, B>(C::PATH, request).await {
            Ok(command) => lines(self.begin(command, *asker)).await,
            Err(refusal) => refusal,
        }
    }

    /// Begins a command. It ends early when what it tells is dropped: a prune between two images.
    pub fn begin<C: Command>(&self, command: C, asker: Asker) -> Told<C> {
        let (teller, told) = mpsc::channel(LINES);
        let (store, turn, mut ending) = (self.store.clone(), self.turn.clone(), self.ending.clone());
        tokio::spawn(async move {
            let turn = match C::ALONE.then(|| turn.clone().try_lock_owned()) {
                None => None,
                Some(Ok(turn)) => Some(turn),
                Some(Err(_)) => {
                    let note = "another command prunes or repairs the cache: waiting for its end";
                    let _ = teller.send(Line::Note(note.to_owned())).await;
                    tokio::select! {
                        turn = turn.lock_owned() => Some(turn),
                        _ = ending.wait_for(|ending| *ending) => None,
                        () = teller.closed() => return,
                    }
                }
            };
            let (handle, failed) = (Handle::current(), teller.clone());
            // Where the daemon ends there is nobody to join it: what a command leaves is what a crash would.
            let work = move || {
                // What only looks leaves the processor to pulls. Who is nice stays so, and others wait for what changes
                // something.
                if !C::ALONE {
                    let _ = rustix::process::nice(NICE);
                }
                Work { command, asker, teller, ending, handle }.run(&store);
                drop(turn);
            };
            if let Err(error) = thread::Builder::new().name("command".to_owned()).spawn(work) {
                let complaint = Complaint::new(Cause::Other, format!("the system gives no thread: {error}"));
                let _ = failed.send(Line::Error(complaint)).await;
            }
        });
        told
    }
}

/// Reads a request for what is at `path`, or refuses it.
pub async fn read<R, B>(path: &str, request: Request<B>) -> Result<R, Response<Body>>
where
    R: DeserializeOwned,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.method() != Method::POST {
        return Err(not_by_this_method("POST"));
    }
    let body = std::pin::pin!(Limited::new(request.into_body(), REQUEST));
    let refuse = |what: String| Complaint::request(what).respond();
    let body = timeout(REQUEST_WITHIN, body.collect())
        .await
        .map_err(|_| refuse(format!("the request did not come in {REQUEST_WITHIN:?}")))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => refuse(format!("the request is larger than {REQUEST} bytes")),
            None => refuse(format!("the request did not come: {error}")),
        })?
        .to_bytes();
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    // Fields could be given as a list, too, in an order that is nobody's business.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(refuse(format!("the request for {path} is not right: want a JSON object")));
    }
    serde_json::from_slice(body)
        .map_err(|error| refuse(format!("the request for {path} is not right: {error}")))
}

/// A command under way.
struct Work<C: Command> {
    command: C,
    asker: Asker,
    teller: Teller<C>,
    ending: watch::Receiver<bool>,
    handle: Handle,
}

impl<C: Command> Work<C> {
    fn run(self, store: &Arc<Store>) {
        let Self { command, asker, teller, ending, handle } = &self;
        // Why it is to end early, whatever it makes of that.
        let stopped = OnceCell::new();
        let stop = || {
            if *ending.borrow() {
                let _ = stopped.set(Complaint::new(Cause::Ending, "the daemon ends: stopped before the end"));
            } else if teller.is_closed() {
                let _ =
                    stopped.set(Complaint::new(Cause::Ending, "who asked has gone: stopped before the end"));
            }
            stopped.get().is_some()
        };
        let mut told = 0u64;
        let mut tell = |item| {
            told += 1;
            match self.send(Line::Item(item)) {
                _ if stop() => ControlFlow::Break(()),
                true => ControlFlow::Continue(()),
                false => {
                    let message = format!(
                        "nobody took what there was to tell for {PATIENCE:?}: stopped before the end"
                    );
                    let _ = stopped.set(Complaint::new(Cause::Ending, message));
                    ControlFlow::Break(())
                }
            }
        };
        let on = C::On::of(store);
        if on.is_busy() {
            self.send(Line::Note(
                "the cache is being pruned or counted: waiting for the end of that".to_owned(),
            ));
        }
        let result = match stop() {
            true => Err(CareError::Stopped),
            false => command.run(&on, &Pace::until(&stop), &mut tell),
        };
        if let Ok(done) = &result
            && let Some(entry) = command.entry(done)
        {
            tracing::info!("by {asker}: {entry}");
        }
        let end = match (stopped.get(), result) {
            (None, Ok(done)) => Line::Done(done),
            // A list that was told to stop makes nothing of it.
            (Some(complaint), Ok(_)) => Line::Error(complaint.clone()),
            (stopped, Err(error)) => {
                let complaint = stopped.cloned().unwrap_or_else(|| Complaint::from(&error));
                if C::ALONE && complaint.kind != Cause::Request {
                    tracing::info!("by {asker}: {} came to no end, after {told} told: {complaint}", C::PATH);
                }
                Line::Error(complaint)
            }
        };
        let _ = handle.block_on(teller.send_timeout(end, PATIENCE));
    }

    /// False when nobody takes it while others wait. Who only looks may be waited for.
    fn send(&self, line: Line<C::Item, C::Done>) -> bool {
        let Err(mpsc::error::TrySendError::Full(line)) = self.teller.try_send(line) else { return true };
        let mut ending = self.ending.clone();
        self.handle.block_on(async {
            tokio::select! {
                _ = self.teller.send(line) => true,
                _ = ending.wait_for(|ending| *ending) => true,
                () = tokio::time::sleep(PATIENCE), if C::ALONE => false,
            }
        })
    }
}
