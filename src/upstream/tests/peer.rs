//! A registry written by hand, byte for byte, so that it can cut, stall and lie.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Peer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn read(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap().split(' ');
        Self {
            method: words.next().unwrap().to_owned(),
            target: words.next().unwrap().to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
        }
    }
}

#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    after: Option<(usize, Fault)>,
    delay: Duration,
}

/// What happens after some bytes of the body.
#[derive(Clone, Copy)]
pub enum Fault {
    Cut,
    Stall,
    Reset,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), after: None, delay: Duration::ZERO }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push(format!("{name}: {}\r\n", value.to_string()));
        self
    }

    /// With a Content-Length, unless a header says otherwise.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn after(mut self, bytes: usize, fault: Fault) -> Self {
        self.after = Some((bytes, fault));
        self
    }

    pub fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The whole, or the part a Range asks for.
    pub fn content(request: &Request, content: &[u8]) -> Self {
        let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return Self::new(200).body(content);
        };
        let (first, last) = range.split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let last = last.parse().unwrap_or(content.len() - 1).min(content.len() - 1);
        Self::new(206)
            .header("Content-Range", format!("bytes {first}-{last}/{}", content.len()))
            .body(&content[first..=last])
    }

    pub fn redirect(location: impl ToString) -> Self {
        Self::new(307).header("Location", location)
    }
}

impl Peer {
    /// Listens on an address of its own; `answer` gets the number of the request and the request.
    pub async fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(converse(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn converse(
    mut stream: TcpStream,
    answer: Arc<impl Fn(usize, &Request) -> Reply>,
    log: Arc<Mutex<Vec<Request>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let request = Request::read(std::str::from_utf8(&buffer[..end]).unwrap());
        buffer.drain(..end + 4);
        let reply = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            answer(log.len() - 1, &request)
        };
        tokio::time::sleep(reply.delay).await;
        let framed = reply.headers.iter().any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
        });
        let length = if framed { String::new() } else { format!("Content-Length: {}\r\n", reply.body.len()) };
        let head = format!("HTTP/1.1 {} X\r\n{}{length}\r\n", reply.status, reply.headers.concat());
        let _ = stream.write_all(head.as_bytes()).await;
        if request.method == "HEAD" {
            continue;
        }
        let (bytes, fault) = match reply.after {
            Some((bytes, fault)) => (bytes.min(reply.body.len()), Some(fault)),
            None => (reply.body.len(), None),
        };
        let _ = stream.write_all(&reply.body[..bytes]).await;
        match fault {
            None => {}
            Some(Fault::Cut) => return,
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Reset) => {
                // What was sent shall be read before the reset overtakes it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}
