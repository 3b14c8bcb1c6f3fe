//! A registry of our own: minimal, correct, and able to count, to hold back and to misbehave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use self::lists::Lists;
use self::wire::{Answer, Body};
use super::layout::{Blob, Layout, Manifest, OCI_INDEX};

pub mod lists;
mod wire;

/// What upstreams say besides, in answers of all kinds, and no client of ours may hear.
pub const STRANGE: [(&str, &str); 4] = [
    ("X-Registry-Supports-Signatures", "1"),
    ("Set-Cookie", "session=theirs"),
    ("Retry-After", "3600"),
    ("Link", r#"</v2/elsewhere>; rel="elsewhere""#),
];

/// What goes wrong with a response. Offsets count bytes of this response's body, that of a flip the blob's.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Closed without an answer.
    HangUp,
    /// Closed in good order after so many bytes.
    Cut(u64),
    /// RST after so many bytes.
    Reset(u64),
    /// Silent after so many bytes, with the connection open.
    Stall(u64),
    /// The byte at this offset of the blob has one bit turned.
    Flip(u64),
    /// Content-Length is off by so much; the body is as it should be.
    Length(i64),
    /// A status with an OCI error; a 401 with a challenge, whose tokens help no further.
    Status(u16),
    TooMany {
        retry_after: u32,
    },
    Redirect(String),
    /// 200 with a page of HTML, as of a captive portal.
    Html,
    /// So many bytes of headers.
    Headers(usize),
    /// Nothing for so long, then the right answer.
    Delay(Duration),
    /// Every token up to now is void: a 401 with a challenge.
    Revoked,
    /// 200 with all of it, whatever Range was asked for.
    NoRange,
    /// Docker-Content-Digest names something else.
    WrongHeader,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

struct Rule {
    needle: String,
    occurrences: (Bound<usize>, Bound<usize>),
    fault: Fault,
    seen: usize,
}

#[derive(Default)]
struct State {
    layout: Layout,
    lists: Lists,
    ranges: bool,
    /// Who pulls needs a Bearer token of ours.
    tokens: bool,
    valid: HashSet<String>,
    issued: usize,
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    sent: BTreeMap<String, u64>,
    /// Digest → where its bytes are held back.
    held: HashMap<String, u64>,
    connections: HashMap<SocketAddr, TcpStream>,
    stopped: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    addr: SocketAddr,
}

pub struct Upstream {
    shared: Arc<Shared>,
    pub addr: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start(layout: Layout) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { layout, ranges: true, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), addr });
        let acceptor = Some(accept(listener, shared.clone()));
        Self { shared, addr, acceptor }
    }

    pub fn without_ranges(self) -> Self {
        self.state().ranges = false;
        self
    }

    pub fn with_tokens(self) -> Self {
        self.state().tokens = true;
        self
    }

    /// Serves lists so, from now on.
    pub fn set_lists(&self, lists: Lists) {
        self.state().lists = lists;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes what is served from now on.
    pub fn change(&self, change: impl FnOnce(&mut Layout)) {
        change(&mut self.state().layout);
    }

    /// Whenever `METHOD /path` has `needle` in it: the fault, in these occurrences, counted from now on.
    pub fn fault(&self, needle: &str, occurrences: impl RangeBounds<usize>, fault: Fault) {
        let occurrences = (occurrences.start_bound().cloned(), occurrences.end_bound().cloned());
        self.state().rules.push(Rule { needle: needle.into(), occurrences, fault, seen: 0 });
    }

    /// From now on everything is right again.
    pub fn mend(&self) {
        self.state().rules.clear();
        self.shared.changed.notify_all();
    }

    /// Keeps back what is at `from` and after it, from whoever asks for anything before it.
    pub fn hold(&self, digest: &str, from: u64) {
        self.state().held.insert(digest.into(), from);
    }

    pub fn release(&self, digest: &str) {
        self.state().held.remove(digest);
        self.shared.changed.notify_all();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub fn forget(&self) {
        let mut state = self.state();
        state.seen.clear();
        state.sent.clear();
    }

    /// Requests of this method (`""`: of any) whose path has `needle` in it.
    pub fn count(&self, method: &str, needle: &str) -> usize {
        let asked = |seen: &&Seen| (method.is_empty() || seen.method == method) && seen.path.contains(needle);
        self.state().seen.iter().filter(asked).count()
    }

    /// Bytes of bodies sent for this digest.
    pub fn sent(&self, digest: &str) -> u64 {
        self.state().sent.get(digest).copied().unwrap_or(0)
    }

    /// Of all bodies of content.
    pub fn sent_in_all(&self) -> u64 {
        self.state().sent.iter().filter(|(digest, _)| !digest.is_empty()).map(|(_, bytes)| bytes).sum()
    }

    pub fn tokens_issued(&self) -> usize {
        self.state().issued
    }

    /// Nobody listens any more and every connection is closed.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        self.state().stopped = true;
        for connection in self.state().connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.addr); // wakes the acceptor
        acceptor.join().unwrap();
    }

    /// Listens again where it did before.
    pub fn start_again(&mut self) {
        self.state().stopped = false;
        let listener = TcpListener::bind(self.addr).unwrap();
        self.acceptor = Some(accept(listener, self.shared.clone()));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        loop {
            let (stream, peer) = listener.accept().unwrap();
            let mut state = shared.state.lock().unwrap();
            if state.stopped {
                return;
            }
            state.connections.insert(peer, stream.try_clone().unwrap());
            drop(state);
            let shared = shared.clone();
            std::thread::spawn(move || {
                let _ = wire::serve(&stream, &shared); // an error is the client's hanging up
                shared.state.lock().unwrap().connections.remove(&peer);
            });
        }
    })
}

impl Shared {
    /// Waits until `done`, the time is over, or the upstream is stopped.
    fn wait(&self, done: impl Fn(&State) -> bool, limit: Option<Duration>) {
        let limit = limit.unwrap_or(Duration::from_secs(3600));
        let state = self.state.lock().unwrap();
        let _ =
            self.changed.wait_timeout_while(state, limit, |state| !state.stopped && !done(state)).unwrap();
    }
}

impl State {
    fn fault_for(&mut self, request: &Seen) -> Option<Fault> {
        let line = format!("{} {}", request.method, request.path);
        let mut fault = None;
        for rule in &mut self.rules {
            if line.contains(&rule.needle) {
                if rule.occurrences.contains(&rule.seen) && fault.is_none() {
                    fault = Some(rule.fault.clone());
                }
                rule.seen += 1;
            }
        }
        fault
    }

    fn answer(&mut self, request: &Seen, fault: &Option<Fault>, addr: SocketAddr) -> Answer {
        if request.path == "/token" {
            self.issued += 1;
            let token = format!("token-{}", self.issued);
            self.valid.insert(token.clone());
            return Answer::new(200, format!(r#"{{"token":"{token}","expires_in":300}}"#))
                .with("Content-Type", "application/json");
        }
        match fault {
            Some(Fault::Status(401)) => return challenge(addr),
            Some(Fault::Status(403)) => return Answer::error(403, "DENIED"),
            Some(Fault::Status(status)) => return Answer::error(*status, "UNKNOWN"),
            Some(Fault::TooMany { retry_after }) => {
                return Answer::error(429, "TOOMANYREQUESTS").with("Retry-After", retry_after);
            }
            Some(Fault::Redirect(to)) => return Answer::new(307, "").with("Location", to),
            Some(Fault::Html) => {
                return Answer::new(200, "<html><title>Log in to the hotel</title></html>")
                    .with("Content-Type", "text/html; charset=utf-8");
            }
            Some(Fault::Revoked) => self.valid.clear(),
            _ => {}
        }
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if self.tokens && !bearer.is_some_and(|token| self.valid.contains(token)) {
            return challenge(addr);
        }
        let answer = self.content(request, matches!(fault, Some(Fault::NoRange)), addr);
        match fault {
            Some(Fault::WrongHeader) => {
                let mut answer = answer;
                answer.headers.retain(|(name, _)| name != "Docker-Content-Digest");
                answer.with("Docker-Content-Digest", super::layout::sha256(b"something else"))
            }
            _ => answer,
        }
    }

    fn content(&self, request: &Seen, no_range: bool, addr: SocketAddr) -> Answer {
        if !matches!(&*request.method, "GET" | "HEAD") {
            return Answer::error(405, "UNSUPPORTED");
        }
        if request.path == "/v2/" {
            return Answer::new(200, "{}");
        }
        // Who claims support of signatures is asked for them, by skopeo and podman.
        if request.path.starts_with("/extensions/v2/") {
            return Answer::new(200, r#"{"signatures":[]}"#).with("Content-Type", "application/json");
        }
        let mut parts = request.path.rsplitn(3, '/');
        let (reference, kind) = (parts.next().unwrap(), parts.next().unwrap_or(""));
        let name = parts.next().and_then(|rest| rest.strip_prefix("/v2/")).unwrap_or("");
        let Some(repository) = self.layout.0.get(name) else {
            return Answer::error(404, "NAME_UNKNOWN");
        };
        match kind {
            "manifests" => {
                let digest = repository.tags.get(reference).map_or(reference, String::as_str);
                match repository.manifests.get(digest) {
                    Some(manifest) => manifest_answer(manifest),
                    None => Answer::error(404, "MANIFEST_UNKNOWN"),
                }
            }
            "blobs" => match repository.blobs.get(reference) {
                Some(blob) => self.blob_answer(blob, request.header("range").filter(|_| !no_range)),
                None => Answer::error(404, "BLOB_UNKNOWN"),
            },
            "tags" if reference == "list" => self.lists.tags(request, repository, name, addr),
            "referrers" => self.lists.referrers(request, repository, reference, addr),
            _ => Answer::error(404, "UNSUPPORTED"),
        }
    }

    fn blob_answer(&self, blob: &Blob, range: Option<&str>) -> Answer {
        let size = blob.size();
        let answer = |status, start, end| Answer {
            status,
            headers: vec![
                ("Content-Type".into(), "application/octet-stream".into()),
                ("Docker-Content-Digest".into(), blob.digest.clone()),
            ],
            body: Body::Blob { blob: blob.clone(), start, end },
            digest: blob.digest.clone(),
        };
        let Some(range) = range.filter(|_| self.ranges) else {
            return answer(200, 0, size);
        };
        match single_range(range, size) {
            Some((start, end)) if start < end => {
                answer(206, start, end).with("Content-Range", format!("bytes {start}-{}/{size}", end - 1))
            }
            Some(_) => Answer::error(416, "SIZE_INVALID").with("Content-Range", format!("bytes */{size}")),
            None => answer(200, 0, size),
        }
    }
}

fn challenge(addr: SocketAddr) -> Answer {
    let challenge = format!(r#"Bearer realm="http://{addr}/token",service="tests""#);
    Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge)
}

fn manifest_answer(manifest: &Manifest) -> Answer {
    let mut answer = Answer::new(200, manifest.bytes.to_vec())
        .with("Content-Type", &manifest.media_type)
        .with("Docker-Content-Digest", &manifest.digest);
    answer.digest = manifest.digest.clone();
    answer
}

/// Start and end of `bytes=…`; an empty one cannot be satisfied. None for what is not one range.
fn single_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some((size.saturating_sub(last.parse().ok()?), size));
    }
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { size } else { (last.parse::<u64>().ok()? + 1).min(size) };
    Some((first.min(size), end.max(first.min(size))))
}
