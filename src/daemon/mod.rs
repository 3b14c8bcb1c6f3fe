//! The composition root: builds the parts, starts them in order, and ends them in order.
//!
//! The story of a run:
//! 1. the log is opened, the limit of open files raised, the sockets bound, the store opened;
//! 2. two kinds of runtimes start: a multi-threaded one for upstreams, hashing and disk, and one
//!    single-threaded one per core that serves connections ([`crate::serve`]);
//! 3. `server is running`;
//! 4. on SIGTERM or SIGINT no more connections are accepted, what runs gets 10 s, what was published is synced.

mod log;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{Health, SideDoor};
use crate::config::Settings;
use crate::oci::Registry;
use crate::pull::Pull;
use crate::serve::{ListenError, Listener, Responder, Server, server_config};
use crate::store::{OpenError, Store};
use crate::upstream::{Upstreams, UpstreamsError};

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot open the log file {path}: {source}")]
    Log { path: String, source: io::Error },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen on {address} for {option}: {source}")]
    SideDoor { option: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Upstreams(#[from] UpstreamsError),
    #[error("cannot speak TLS with server_tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

impl ServeError {
    /// As of sysexits(3): 78 configuration, 75 try again later, 71 the system.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(OpenError::Locked { .. }) => 75,
            Self::Store(OpenError::Io(_)) | Self::Start(_) | Self::Listen(_) | Self::SideDoor { .. } => 71,
            Self::Store(_) | Self::Upstreams(_) | Self::Tls(_) | Self::Log { .. } => 78,
        }
    }
}

/// Serves until it is told to end. `banner` is printed once everything that can fail has not.
pub fn serve(settings: Settings, banner: String) -> Result<(), ServeError> {
    let _log = log::start(&settings.log)?;
    raise_open_files();
    let listeners: Vec<_> = settings.listen.iter().map(Listener::bind).collect::<Result<_, _>>()?;
    let health = settings.health.map(|address| side_door("--health", address)).transpose()?;
    let tls = settings.server_tls.as_ref().map(server_config).transpose()?;
    let store = Arc::new(Store::open(&settings.image_path)?);
    let via = format!("ociregistry-{}", store.id());
    let upstreams = Upstreams::new(&settings, &format!("1.1 {via}"))?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Small files are read and written on it; one thread that waits for a disk must not be all there is. More threads
    // than cores cost wake-ups.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .thread_name("pull")
        .enable_all()
        .build()?;
    let pull = Pull::new(settings.clone(), store.clone(), upstreams, runtime.handle().clone());
    let (shut_down, shutdown) = watch::channel(false);
    let responder = Arc::new(Responder::new(pull.clone(), &settings, own_names(&listeners), via));
    let server = Server::start(responder, threads, tls, shutdown.clone())?;
    let looked_at = Health::new(store.clone(), server.pulse(), shutdown.clone());

    print!("{banner}");
    let result = runtime.block_on(async {
        tokio::spawn(store.clone().keep_times());
        tokio::spawn(store.clone().watch_disk());
        if let Some(door) = health {
            let health = Arc::new(looked_at);
            let answer = move |path: String| {
                let health = health.clone();
                async move { health.answer(&path).await }
            };
            tokio::spawn(door.serve(answer));
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ending = async move {
            let mut told = async move || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            told().await;
            tracing::info!("server is ending");
            let _ = shut_down.send(true);
            // Told twice: at once. What is on disk survives that, as it survives a crash.
            tokio::spawn(async move {
                told().await;
                std::process::exit(1);
            });
        };
        if let Some(address) = settings.health {
            tracing::info!("health is told at http://{address}/health");
        }
        if let Some(listen) = settings.passwords_in_the_clear() {
            tracing::warn!(
                "who can listen in on {listen} can read clients' passwords (htpasswd): it speaks plain http"
            );
        }
        tracing::info!("server is running");
        let (accepted, ()) = tokio::join!(server.accept(listeners, shutdown), ending);
        accepted
    });
    server.join();
    runtime.block_on(pull.settle());
    // Downloads stop where they are; what is in `partial/` is resumed when it is asked for.
    runtime.shutdown_background();
    store.close();
    result.map_err(ServeError::Start)
}

fn side_door(option: &'static str, address: SocketAddr) -> Result<SideDoor, ServeError> {
    SideDoor::bind(address).map_err(|source| ServeError::SideDoor { option, address, source })
}

/// The names by which requests may call ourselves.
fn own_names(listeners: &[Listener]) -> Vec<Registry> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let names = |address: SocketAddr| {
        let port = address.port();
        let local = ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}"));
        let host = host.iter().map(move |host| format!("{host}:{port}"));
        local.into_iter().chain(host).chain([address.to_string()])
    };
    let own = listeners.iter().filter_map(Listener::address).flat_map(names);
    own.filter_map(|name| name.parse().ok()).collect()
}

/// Every connection and every file being read is a descriptor; the soft limit of 1,024 is for old programs.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the limit of open files above {soft}");
    }
}
