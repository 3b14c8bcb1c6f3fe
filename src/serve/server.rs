//! Accepting connections, and the threads that serve them.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::activity::{AMPLE, Activity, CROWDED, Clock, Cut, Order, SCARCE};
use super::connection::{self, Common};
use super::limits;
use super::listener::{AsyncListener, Connection, Listener};
use super::probe::Probe;
use super::respond::Responder;

/// A pause after an accept that failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// That there is no more room is logged no oftener.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Of the clock that connections are timed by.
const TICK: Duration = Duration::from_secs(1);

/// Running responses get so long when the daemon ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Then they are closed, in good order where that takes no longer.
const CLOSE: Duration = Duration::from_secs(1);

/// Threads that serve, fed by [`accept`](Server::accept).
pub struct Server {
    workers: Vec<Worker>,
    /// Turns true when no more connections are dealt out.
    dealt: watch::Sender<bool>,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    /// One permit a connection.
    room: Arc<Semaphore>,
}

struct Worker {
    connections: mpsc::UnboundedSender<Admitted>,
    thread: thread::JoinHandle<()>,
}

/// What new connections over TCP speak.
pub struct TlsSwitch(Arc<ArcSwapOption<ServerConfig>>);

impl TlsSwitch {
    /// TLS as this says from now on, or none. Connections that are there keep theirs.
    pub fn turn(&self, tls: Option<Arc<ServerConfig>>) {
        self.0.store(tls);
    }
}

/// A connection that has its place.
pub struct Admitted {
    pub connection: Connection,
    pub place: Option<OwnedSemaphorePermit>,
}

impl Server {
    /// Starts `threads` threads. They end when accepting has and what runs has too, or 10 s after. With `tls`, that
    /// is spoken on TCP.
    pub fn start(
        responder: Arc<Responder>,
        threads: usize,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let (dealt, all_dealt) = watch::channel(false);
        let places = limits::connections();
        let room = Arc::new(Semaphore::new(places));
        let tls = Arc::new(ArcSwapOption::new(tls));
        let common = Common { responder, tls: tls.clone(), streams: Arc::new(Semaphore::new(places)) };
        let workers = (0..threads.max(1)).map(|number| {
            let (connections, incoming) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (common, room, all_dealt) = (common.clone(), room.clone(), all_dealt.clone());
            let work = move || {
                let tasks = LocalSet::new();
                runtime.block_on(tasks.run_until(serve(incoming, common, room, all_dealt)));
                // What still runs has had its time; a read that hangs on a disk must not keep us.
                runtime.shutdown_background();
            };
            let thread = thread::Builder::new().name(format!("serve-{number}")).spawn(work)?;
            Ok(Worker { connections, thread })
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()?, dealt, tls, room })
    }

    /// By which a reload changes what is spoken.
    pub fn tls_switch(&self) -> TlsSwitch {
        TlsSwitch(self.tls.clone())
    }

    /// Accepts from all listeners until `shutdown`, and deals the connections out.
    pub async fn accept(&self, listeners: Vec<Listener>, shutdown: watch::Receiver<bool>) -> io::Result<()> {
        let (sender, mut admitted) = mpsc::channel(16);
        for listener in listeners {
            let listener = listener.into_async()?;
            tokio::spawn(accept(listener, self.room.clone(), sender.clone(), shutdown.clone()));
        }
        drop(sender);
        let mut next = 0;
        while let Some(connection) = admitted.recv().await {
            let worker = &self.workers[next % self.workers.len()];
            next = next.wrapping_add(1);
            // Its thread ends only after all were dealt out.
            let _ = worker.connections.send(connection);
        }
        self.dealt.send_replace(true);
        Ok(())
    }

    /// Asks each thread whether it serves.
    pub fn probe(&self) -> Probe {
        Probe { threads: self.workers.iter().map(|worker| worker.connections.clone()).collect() }
    }

    /// Waits for the threads, once accepting has ended. Blocks.
    pub fn join(self) {
        // If it never began.
        self.dealt.send_replace(true);
        for worker in self.workers {
            let _ = worker.thread.join();
        }
    }
}

/// One listener's task. Where there is no room, a connection waits here, and those behind it in the kernel.
pub async fn accept(
    listener: AsyncListener,
    room: Arc<Semaphore>,
    admitted: mpsc::Sender<Admitted>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut told = pin!(async { drop(shutdown.wait_for(|shutdown| *shutdown).await) });
    let mut quiet_until = Instant::now();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut told => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                if room.available_permits() == 0 && Instant::now() >= quiet_until {
                    tracing::warn!(
                        "there are as many connections as can be: new ones wait, idle ones are ended"
                    );
                    quiet_until = Instant::now() + SAID_AGAIN;
                }
                // Whoever was let in is answered, also when we are told to end meanwhile.
                let place = tokio::select! {
                    biased;
                    place = room.clone().acquire_owned() => place.ok(),
                    () = &mut told => None,
                };
                let last = place.is_none();
                if admitted.send(Admitted { connection, place }).await.is_err() || last {
                    return;
                }
            }
            // The client gave up before we came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One thread's work: serve what comes, see that none takes too long, and end in good order once all that was to
/// come is there.
pub async fn serve(
    mut incoming: mpsc::UnboundedReceiver<Admitted>,
    common: Common,
    room: Arc<Semaphore>,
    mut all_dealt: watch::Receiver<bool>,
) {
    let clock = Clock::default();
    let connections = RefCell::new(Vec::<Rc<Activity>>::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = |Admitted { connection, place }| {
        let activity = Activity::new(clock.clone());
        connections.borrow_mut().push(activity.clone());
        let common = common.clone();
        tokio::task::spawn_local(async move {
            connection::serve(connection, common, activity).await;
            drop(place);
        });
    };
    loop {
        tokio::select! {
            admitted = incoming.recv() => {
                let Some(admitted) = admitted else { break };
                begin(admitted);
            }
            _ = ticks.tick(), if !connections.borrow().is_empty() => {
                clock.set(clock.get() + 1);
                let patience = match (room.available_permits(), common.streams.available_permits()) {
                    (0, _) => &SCARCE,
                    (_, 0) => &CROWDED,
                    _ => &AMPLE,
                };
                connections.borrow_mut().retain(|activity| {
                    activity.end_stalled(patience);
                    if let Some(order) = activity.overdue(patience) {
                        activity.order(order);
                    }
                    // Otherwise it has ended.
                    Rc::strong_count(activity) > 1
                });
            }
            _ = all_dealt.wait_for(|all| *all) => break,
        }
    }
    incoming.close();
    while let Ok(admitted) = incoming.try_recv() {
        begin(admitted);
    }
    let connections = connections.into_inner();
    for activity in &connections {
        activity.order(Order::Finish);
    }
    let all_ended = async || {
        while connections.iter().any(|activity| Rc::strong_count(activity) > 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(DRAIN, all_ended()).await.is_err() {
        for activity in &connections {
            activity.order(Order::Cut(Cut::Ending));
        }
        let _ = timeout(CLOSE, all_ended()).await;
    }
}
