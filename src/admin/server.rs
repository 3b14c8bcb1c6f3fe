//! The daemon's side of the admin socket.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::Desk;
use super::work::Asker;

/// Commands at once.
const CONNECTIONS: usize = 64;

/// For the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// A pause after an accept that failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers commands until dropped; those under way are dropped with it.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>) -> io::Result<Infallible> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                let asker = Asker::User(stream.peer_cred().ok().map(|peer| peer.uid()));
                tasks.spawn(async move {
                    let service =
                        service_fn(async |request| Ok::<_, Infallible>(desk.answer(request, &asker).await));
                    let serving = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_WITHIN)
                        .serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, "a command's connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a command");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}
