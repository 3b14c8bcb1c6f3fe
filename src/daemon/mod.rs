//! The composition root: builds the parts, starts them in order, and ends them in order.
//!
//! The story of a run:
//! 1. the log is opened, the sockets are taken over from systemd or bound (`privileged`), and whoever is root becomes an account
//!    of its own (`account`); only then is a thread started, or the store opened;
//! 2. two kinds of runtimes start: a multi-threaded one for upstreams, hashing and disk, and one
//!    single-threaded one per core that serves connections ([`crate::serve`]);
//! 3. every serving thread answers a request, and what is to be preloaded first is there: `server is running`, and systemd
//!    is told so;
//! 4. while we serve, systemd hears how we are, and that every serving thread answers (`watch`); commands come in at
//!    the admin socket ([`crate::admin`]); SIGHUP and `ociregistry reload` have the configuration read anew (`reload`);
//! 5. on SIGTERM or SIGINT no more connections are accepted, what runs gets 10 s, what was published is synced.

mod account;
mod alone;
mod care;
mod error;
mod log;
mod preload;
mod privileged;
mod reload;
mod restore;
mod sockets;
mod systemd;
mod unchecked;
mod watch;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Group;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch as channel};

use crate::admin::{self, Desk, Health, Token, Worker};
use crate::config::{self, Access, Configuration, Listen, Settings, Source, drop_in};
use crate::oci::Registry;
use crate::pull::{Pull, Shared};
use crate::serve::{Listener, Responder, Server};
use crate::store::{OpenError, Store};
use crate::upstream::Upstreams;
use account::Account;
pub use account::become_owner;
pub use alone::Alone;
use care::Care;
pub use error::ServeError;
use log::Log;
pub use log::say;
use preload::Preload;
use privileged::{Privileged, open_log};
use reload::Reloader;
use systemd::{News, Systemd};
use watch::Gauges;

/// Reloads that may wait for one under way.
const RELOADS: usize = 16;

/// Where clients reach us.
pub struct Reached {
    pub addresses: Vec<String>,
    /// Of the first address that has one.
    pub port: Option<u16>,
}

/// Serves until it is told to end. `source` is where `configuration` was read, to be read anew. `banner` is printed
/// once everything that can fail has not. To be called once in a process, before there is another thread.
pub fn serve(
    source: Source,
    configuration: Configuration,
    banner: impl FnOnce(&Settings, &Reached) -> String,
) -> Result<(), ServeError> {
    let since = Instant::now();
    // A hangup would end us before there is who hears it. It waits until then.
    let hangup = SigSet::from(Signal::SIGHUP);
    hangup.thread_block().map_err(io::Error::from)?;
    let settings = &configuration.settings;
    let account = Account::find(&settings.account)?;
    let output = open_log(settings, &account)?;
    let opened = Privileged::open(settings, account);

    let level = settings.log.level;
    let (log, _guard) = log::start(output, level)?;
    // Those who look there only shall find it, too.
    if log.is_file() {
        configuration.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    let served =
        opened.and_then(|opened| run(since, hangup, source, configuration, opened, log.clone(), banner));
    if let Err(error) = &served
        && log.is_file()
    {
        tracing::error!("{error}");
    }
    served
}

/// From the open log to the end.
fn run(
    since: Instant,
    hangup: SigSet,
    source: Source,
    configuration: Configuration,
    Privileged { account, sockets, tls }: Privileged,
    log: Arc<Log>,
    banner: impl FnOnce(&Settings, &Reached) -> String,
) -> Result<(), ServeError> {
    let settings = &configuration.settings;
    raise_open_files();
    unchecked::give_memory_back();
    let systemd = Systemd::start()?;
    let reached = reached(&sockets.pull);
    if let Some(listen) =
        sockets.pull.iter().filter_map(Listener::listen).find(|l| settings.passwords_in_the_clear(l))
    {
        tracing::warn!(
            "who can listen in on {listen} can read clients' passwords (htpasswd): it speaks plain http"
        );
    }
    if let Some(admin) = &settings.admin {
        tracing::info!("commands are taken at http://{} from whoever has the token", admin.listen);
        if Listen::Tcp(admin.listen).is_open_to_others() {
            tracing::warn!(
                "who can listen in on {} can read the token of commands (admin.listen): it speaks plain http",
                admin.listen
            );
        }
    }
    if let Some(text) = account.describe() {
        tracing::info!("{text}");
    }
    if sockets.inherited {
        let addresses = reached.addresses.join(", ");
        tracing::info!("serving on {addresses}, as systemd says, and not on host, port and listen");
    }
    let store = Arc::new(open_store(&settings.image_path, &account)?);
    let via = via(&store);
    let upstreams = Upstreams::new(settings, &format!("1.1 {via}"))?;
    let (admin_socket, admin_path) = take_commands(sockets.admin, settings, &store);

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = pull_runtime()?;
    let care = Arc::new(Care::start(&store, settings)?);
    let pull = Pull::new(settings.clone(), store.clone(), upstreams, runtime.handle().clone());
    let (shut_down, shutdown) = channel::channel(false);
    let preload = (!settings.preload.images.is_empty()).then(|| Preload {
        images: settings.preload.images.clone(),
        pull: pull.clone(),
        store: store.clone(),
    });
    let mode = settings.preload.mode;
    let (ready, is_ready) = channel::channel(preload.is_none() || mode == config::Preload::Background);
    let responder = Arc::new(Responder::new(pull.clone(), settings, own_names(&sockets.pull), via));
    let server = Server::start(responder.clone(), threads, tls)?;
    let health = Arc::new(Health::new(store.clone(), server.probe(), is_ready, shutdown.clone()));
    let banner = banner(settings, &reached);
    let gauges = Arc::new(Gauges {
        pull: pull.clone(),
        store: store.clone(),
        care: care.clone(),
        served: responder.counters.clone(),
        addresses: reached.addresses,
        image_path: settings.image_path.display().to_string(),
        since,
        started: jiff::Timestamp::now() - since.elapsed(),
        log: log.clone(),
        last_reload: Mutex::default(),
        looks: Shared::default(),
    });
    let image_path = settings.image_path.clone();
    let token = settings.admin.as_ref().map(|admin| Arc::new(Token::new(&admin.token)));
    let reloader = Reloader {
        source,
        started: configuration.clone(),
        current: configuration,
        open: sockets.pull.iter().filter_map(Listener::listen).collect(),
        pull: pull.clone(),
        responder,
        care: care.clone(),
        tls: server.tls_switch(),
        token: token.clone(),
        log,
    };

    let worker = Worker::new(store.clone(), shutdown.clone());
    let stop = Arc::new(Notify::new());

    // Nobody may be reading it.
    let mut out = io::stdout();
    let _ = out.write_all(banner.as_bytes()).and_then(|()| out.flush());
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let hangups = signal(SignalKind::hangup())?;
        hangup.thread_unblock()?;
        let commanded = stop.clone();
        let mut told = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = commanded.notified() => {}
            }
        };
        let disk = store.clone();
        tokio::task::spawn_blocking(move || {
            let error = disk.look_at_disk();
            let hint = error.map(|error| drop_in(&image_path, Access::Write, &error.source));
            let hint = hint.unwrap_or_default();
            if !hint.is_empty() {
                tracing::error!(path = %image_path.display(), "perhaps only the unit keeps the daemon from writing there{hint}");
            }
        });
        tokio::spawn(store.clone().keep_times());
        tokio::spawn(store.clone().watch_disk());
        tokio::spawn(restore::run(store.clone(), pull.clone()));
        if let Some(door) = sockets.health {
            tracing::info!("health is told at http://{}/health", door.address()?);
            let answer = move |path: String| {
                let health = health.clone();
                async move { health.answer(&path).await }
            };
            tokio::spawn(door.serve(answer));
        }
        tokio::spawn({
            let pull = pull.clone();
            async move { pull.failures.sum_up().await }
        });
        let begin = async {
            if let Err(error) = server.probe().answered().await {
                tracing::error!(%error, "a serving thread answers no requests");
            }
            let (reload, reloads) = mpsc::channel(RELOADS);
            let status = gauges.clone();
            let desk = Arc::new(Desk {
                status: Box::new(move || Box::pin(status.clone().status())),
                reload,
                worker,
                pull: pull.clone(),
                stop: Box::new(move || stop.notify_one()),
            });
            if let Some(listener) = admin_socket {
                tokio::spawn(admin::serve(listener, desk.clone()));
            }
            if let (Some(door), Some(token)) = (sockets.network, token) {
                tokio::spawn(admin::serve_network(door, token, desk));
            }
            tokio::spawn(reloader.run(hangups, reloads, gauges.clone(), systemd.clone()));
            if let Some(limit) = systemd::watchdog() {
                let probing = watch::prove_alive(server.probe(), limit, systemd.clone(), shutdown.clone());
                tokio::spawn(probing);
            }
            if let Some(preload) = preload {
                let left = match mode {
                    config::Preload::Background => None,
                    config::Preload::Wait => {
                        let mut ending = shutdown.clone();
                        tokio::select! {
                            left = preload.run(|words| systemd.tell(News::Starting(words))) => Some(left),
                            _ = ending.wait_for(|ending| *ending) => return,
                        }
                    }
                };
                let _ = ready.send(true);
                tokio::spawn(async move {
                    let left = match left {
                        Some(left) => left,
                        None => preload.run(|_| {}).await,
                    };
                    preload.go_on(left).await;
                });
            }
            tracing::info!("server is running");
            systemd.tell(News::Ready(gauges.at_hand().line()));
            tokio::spawn(watch::describe(gauges, systemd.clone()));
        };
        let ending = async {
            told().await;
            tracing::info!("server is ending");
            systemd.tell(News::Stopping("Ending: running answers get 10 s".to_owned()));
            let _ = shut_down.send(true);
            // Told twice: at once. What is on disk survives that, as it survives a crash.
            tokio::spawn(async move {
                told().await;
                std::process::exit(1);
            });
        };
        let (accepted, (), ()) = tokio::join!(server.accept(sockets.pull, shutdown.clone()), begin, ending);
        accepted
    });
    // Whatever ended it.
    let _ = shut_down.send(true);
    server.join();
    runtime.block_on(pull.settle());
    // Downloads stop where they are; what is in `partial/` is resumed when it is asked for.
    runtime.shutdown_background();
    care.end();
    if let Some(path) = admin_path {
        // Another process may not find it, or find it dead: both are said alike.
        let _ = std::fs::remove_file(path);
    }
    store.close();
    result.map_err(ServeError::Start)
}

/// The name by which requests of ours are known.
fn via(store: &Store) -> String {
    format!("ociregistry-{}", store.id())
}

/// What upstreams, hashing and disk run on.
fn pull_runtime() -> io::Result<Runtime> {
    // Small files are read and written on it; one thread that waits for a disk must not be all there is. More threads
    // than cores cost wake-ups.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(2);
    Builder::new_multi_thread().worker_threads(threads).thread_name("pull").enable_all().build()
}

fn open_store(path: &Path, account: &Account) -> Result<Store, ServeError> {
    Store::open(path).map_err(|source| {
        let hint = match &source {
            OpenError::Io(error) => {
                let denied = error.source.kind() == std::io::ErrorKind::PermissionDenied;
                let advice = account.advice(path).filter(|_| denied);
                advice.unwrap_or_else(|| drop_in(path, Access::Write, &error.source))
            }
            _ => String::new(),
        };
        ServeError::Store { source, hint }
    })
}

/// The socket for commands, and its file if that is ours. Without one we serve all the same.
fn take_commands(
    inherited: Option<UnixListener>,
    settings: &Settings,
    store: &Store,
) -> (Option<UnixListener>, Option<PathBuf>) {
    let announce = |path: &Path| {
        if let Err(error) = store.announce(path) {
            tracing::warn!(%error, "commands will not find their way");
        }
    };
    if let Some(listener) = inherited {
        let address = listener.local_addr().ok();
        if let Some(path) = address.as_ref().and_then(|address| address.as_pathname()) {
            announce(path);
        }
        return match listener.set_nonblocking(true) {
            Ok(()) => (Some(listener), None),
            Err(_) => (None, None),
        };
    }
    // systemd lists folders with colons between them.
    let runtime = std::env::var("RUNTIME_DIRECTORY").ok();
    let runtime = runtime.as_deref().and_then(|folders| folders.split(':').next()).map(PathBuf::from);
    let path = runtime.unwrap_or_else(|| settings.image_path.clone()).join(admin::FILE_NAME);
    let group = Group::from_name(&settings.account.group).ok().flatten().map(|group| group.gid);
    match admin::bind(&path, group) {
        Ok(listener) => {
            announce(&path);
            (Some(listener), Some(path))
        }
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "no commands are taken");
            (None, None)
        }
    }
}

fn reached(listeners: &[Listener]) -> Reached {
    let name = |listener: &Listener| match listener.listen() {
        Some(listen) => listen.to_string(),
        None => "a Unix socket without a name".to_owned(),
    };
    Reached {
        addresses: listeners.iter().map(name).collect(),
        port: listeners.iter().find_map(Listener::address).map(|address| address.port()),
    }
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
