//! Accepting connections, and the threads that serve them.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::activity::{AMPLE, Activity, Clock, Order, SCARCE};
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

/// Threads that serve, fed by [`accept`](Server::accept).
pub struct Server {
    workers: Vec<Worker>,
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
    /// Starts `threads` threads. They end when `shutdown` turns true and what runs has ended, or 10 s after. With
    /// `tls`, that is spoken on TCP.
    pub fn start(
        responder: Arc<Responder>,
        threads: usize,
        tls: Option<Arc<ServerConfig>>,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let places = limits::connections();
        let room = Arc::new(Semaphore::new(places));
        let tls = Arc::new(ArcSwapOption::new(tls));
        let common = Common { responder, tls: tls.clone(), streams: Arc::new(Semaphore::new(places)) };
        let workers = (0..threads.max(1)).map(|number| {
            let (connections, incoming) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (common, room, shutdown) = (common.clone(), room.clone(), shutdown.clone());
            let work = move || {
                let tasks = LocalSet::new();
                runtime.block_on(tasks.run_until(serve(incoming, common, room, shutdown)));
                // What still runs has had its time; a read that hangs on a disk must not keep us.
                runtime.shutdown_background();
            };
            let thread = thread::Builder::new().name(format!("serve-{number}")).spawn(work)?;
            Ok(Worker { connections, thread })
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()?, tls, room })
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
            // Its thread ends only after all accepting has.
            let _ = worker.connections.send(connection);
        }
        Ok(())
    }

    /// Asks each thread whether it serves.
    pub fn probe(&self) -> Probe {
        Probe { threads: self.workers.iter().map(|worker| worker.connections.clone()).collect() }
    }

    /// Waits for the threads. Blocks, for ever unless `shutdown` was sent.
    pub fn join(self) {
        for Worker { connections, thread } in self.workers {
            drop(connections);
            let _ = thread.join();
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
    let told = async { drop(shutdown.wait_for(|shutdown| *shutdown).await) };
    let accepting = async {
        let mut quiet_until = Instant::now();
        loop {
            match listener.accept().await {
                Ok(connection) => {
                    if room.available_permits() == 0 && Instant::now() >= quiet_until {
                        tracing::warn!(
                            "there are as many connections as can be: new ones wait, idle ones are ended"
                        );
                        quiet_until = Instant::now() + SAID_AGAIN;
                    }
                    let place = room.clone().acquire_owned().await.ok();
                    if admitted.send(Admitted { connection, place }).await.is_err() {
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
    };
    tokio::select! {
        () = accepting => {}
        () = told => {}
    }
}

/// One thread's work: serve what comes, see that none takes too long, and end in good order.
pub async fn serve(
    mut incoming: mpsc::UnboundedReceiver<Admitted>,
    common: Common,
    room: Arc<Semaphore>,
    mut shutdown: watch::Receiver<bool>,
) {
    let clock = Clock::default();
    let connections = RefCell::new(Vec::<Rc<Activity>>::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            admitted = incoming.recv() => {
                let Some(Admitted { connection, place }) = admitted else { break };
                let activity = Activity::new(clock.clone());
                connections.borrow_mut().push(activity.clone());
                let common = common.clone();
                tokio::task::spawn_local(async move {
                    connection::serve(connection, common, activity).await;
                    drop(place);
                });
            }
            _ = ticks.tick(), if !connections.borrow().is_empty() => {
                clock.set(clock.get() + 1);
                let patience = if room.available_permits() == 0 { &SCARCE } else { &AMPLE };
                connections.borrow_mut().retain(|activity| {
                    if let Some(order) = activity.overdue(patience) {
                        activity.order(order);
                    }
                    // Otherwise it has ended.
                    Rc::strong_count(activity) > 1
                });
            }
            _ = shutdown.wait_for(|shutdown| *shutdown) => break,
        }
    }
    let connections = connections.into_inner();
    for activity in &connections {
        activity.order(Order::Finish);
    }
    let idle = async {
        while connections.iter().any(|activity| Rc::strong_count(activity) > 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, idle).await;
}
