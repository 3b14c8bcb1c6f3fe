//! Accepting connections, and the threads that serve them.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::listener::{AsyncListener, Connection, Listener, Peer, Stream};
use super::pulse::Pulse;
use super::request_log::Entry;
use super::respond::Responder;
use super::socket::Socket;

/// For the head of a request, and for the next request on a connection that is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(120);

/// For a head (podman's Range of 1,024 parts has 20 kB), and for bytes that wait to be sent, in bytes.
const BUFFER: usize = 64 << 10;

/// A pause after an accept that failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Running responses get so long when the daemon ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Threads that serve, fed by [`accept`](Server::accept).
pub struct Server {
    workers: Vec<Worker>,
}

struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    runtime: Handle,
    thread: thread::JoinHandle<()>,
}

impl Server {
    /// Starts `threads` threads. They end when `shutdown` turns true and what runs has ended, or 10 s after.
    pub fn start(
        responder: Arc<Responder>,
        threads: usize,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let workers = (0..threads.max(1)).map(|number| {
            let (connections, incoming) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (responder, shutdown) = (responder.clone(), shutdown.clone());
            let work = move || {
                let tasks = LocalSet::new();
                runtime.block_on(tasks.run_until(serve(incoming, responder, shutdown)));
                // What still runs has had its time; a read that hangs on a disk must not keep us.
                runtime.shutdown_background();
            };
            let thread = thread::Builder::new().name(format!("serve-{number}")).spawn(work)?;
            Ok(Worker { connections, runtime: handle, thread })
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// Accepts from all listeners until `shutdown`, and deals the connections out.
    pub async fn accept(&self, listeners: Vec<Listener>, shutdown: watch::Receiver<bool>) -> io::Result<()> {
        let (sender, mut accepted) = mpsc::channel(16);
        for listener in listeners {
            tokio::spawn(accept(listener.into_async()?, sender.clone(), shutdown.clone()));
        }
        drop(sender);
        let mut next = 0;
        while let Some(connection) = accepted.recv().await {
            let worker = &self.workers[next % self.workers.len()];
            next = next.wrapping_add(1);
            // Its thread ends only after all accepting has.
            let _ = worker.connections.send(connection);
        }
        Ok(())
    }

    /// For asking whether the threads are alive.
    pub fn pulse(&self) -> Pulse {
        Pulse::of(self.workers.iter().map(|worker| worker.runtime.clone()))
    }

    /// Waits for the threads. Blocks.
    pub fn join(self) {
        for Worker { connections, thread, .. } in self.workers {
            drop(connections);
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: AsyncListener,
    connections: mpsc::Sender<Connection>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|shutdown| *shutdown) => return,
        };
        match accepted {
            Ok(connection) => {
                if connections.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One thread's work: serve what comes, and end in good order.
async fn serve(
    mut incoming: mpsc::UnboundedReceiver<Connection>,
    responder: Arc<Responder>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Each connection holds one more of it.
    let running = Rc::new(());
    loop {
        let connection = tokio::select! {
            connection = incoming.recv() => match connection {
                Some(connection) => connection,
                None => break,
            },
            _ = shutdown.wait_for(|shutdown| *shutdown) => break,
        };
        let Ok((stream, client)) = connection.open() else { continue };
        let (responder, shutdown) = (responder.clone(), shutdown.clone());
        let running = running.clone();
        tokio::task::spawn_local(async move {
            talk(stream, client, responder, shutdown).await;
            drop(running);
        });
    }
    let idle = async {
        while Rc::strong_count(&running) > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, idle).await;
}

async fn talk(stream: Stream, client: Peer, responder: Arc<Responder>, mut shutdown: watch::Receiver<bool>) {
    let socket = Socket::new(stream);
    let service = service_fn(|request| {
        let responder = responder.clone();
        async move {
            let log = Entry::of(&request, client);
            Ok::<_, Infallible>(responder.respond(request, client, log).await)
        }
    });
    {
        let mut serving = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(BUFFER)
                .serve_connection(socket.clone(), service)
        );
        let told = async { drop(shutdown.wait_for(|shutdown| *shutdown).await) };
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = told => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, %error, "connection ended");
        }
    }
    socket.close().await;
}
