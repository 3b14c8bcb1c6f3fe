//! An HTTP client that hides nothing: whether a body ended whole, short by FIN or by RST is an answer, not an error.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use sha2::{Digest, Sha256};

use super::layout::hex;
use super::process::PATIENCE;

/// A byte stream in both directions: plain or TLS.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    version: &'static str,
}

pub fn get(target: &str) -> Request {
    Request::new("GET", target)
}

pub fn head(target: &str) -> Request {
    Request::new("HEAD", target)
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: vec![], body: vec![], version: "1.1" }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn range(self, range: &str) -> Self {
        self.header("Range", range)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn http10(mut self) -> Self {
        self.version = "1.0";
        self
    }

    fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/{}\r\n", self.method, self.target, self.version);
        if self.version == "1.1" && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || !matches!(&*self.method, "GET" | "HEAD") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends on a connection of its own and reads the answer's head.
    pub fn open(&self, addr: SocketAddr) -> Stream {
        self.try_open(addr).unwrap_or_else(|| panic!("no answer to {} {}", self.method, self.target))
    }

    /// None: nobody listens, or there is no answer.
    pub fn try_open(&self, addr: SocketAddr) -> Option<Stream> {
        let connection = try_connect(addr).ok()?;
        self.clone().header("Connection", "close").try_open_on(connection, &addr.to_string())
    }

    pub fn open_on(&self, connection: Box<dyn Connection>, host: &str) -> Stream {
        let stream = self.try_open_on(connection, host);
        stream.unwrap_or_else(|| panic!("no answer to {} {}", self.method, self.target))
    }

    fn try_open_on(&self, mut connection: Box<dyn Connection>, host: &str) -> Option<Stream> {
        connection.write_all(&self.bytes(host)).ok()?;
        let mut reader = BufReader::with_capacity(1 << 16, connection);
        let head = read_head(&mut reader)?;
        let closes = self.headers.iter().any(|header| header == &("Connection".into(), "close".into()));
        let left = if self.method == "HEAD" || matches!(head.status, 204 | 304) {
            // Where nothing else can follow, what does is seen: a body that must not be.
            (!closes).then_some(0)
        } else {
            head.header("content-length").map(|value| value.parse().unwrap())
        };
        Some(Stream { left, head, reader, got: 0, ended: None })
    }

    /// Sends, and reads all of the answer.
    pub fn send(&self, addr: SocketAddr) -> Response {
        self.open(addr).whole()
    }
}

pub fn connect(addr: SocketAddr) -> Box<dyn Connection> {
    try_connect(addr).unwrap()
}

fn try_connect(addr: SocketAddr) -> std::io::Result<Box<dyn Connection>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

#[derive(Clone, Debug)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// `None`: closed before an answer began.
fn read_head(reader: &mut impl BufRead) -> Option<Head> {
    let mut line = || {
        let mut line = String::new();
        let n = reader.read_line(&mut line).ok()?;
        (n > 0).then(|| line.trim_end().to_string())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (version, status) = (words.next()?.to_string(), words.next()?.parse().ok()?);
    let mut headers = vec![];
    loop {
        let line = line()?;
        if line.is_empty() {
            return Some(Head { version, status, headers });
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_string(), value.trim().to_string()));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// As long as Content-Length promised, or, with none promised, closed in good order.
    Whole,
    /// FIN before the promised length.
    Short,
    Reset,
}

pub struct Stream {
    pub head: Head,
    /// Bytes of the body so far.
    pub got: u64,
    reader: BufReader<Box<dyn Connection>>,
    left: Option<u64>,
    ended: Option<End>,
}

impl Stream {
    /// Reads at most `buffer`; 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let limit = self.left.unwrap_or(u64::MAX).min(buffer.len() as u64) as usize;
        if self.ended.is_some() || limit == 0 {
            self.ended.get_or_insert(End::Whole);
            return 0;
        }
        match self.reader.read(&mut buffer[..limit]) {
            Ok(0) => {
                self.ended = Some(if self.left.is_some() { End::Short } else { End::Whole });
                0
            }
            Ok(n) => {
                self.got += n as u64;
                self.left = self.left.map(|left| left - n as u64);
                n
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.ended = Some(End::Reset);
                0
            }
            // TLS closed without a goodbye
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.ended = Some(End::Short);
                0
            }
            Err(error) => panic!("after {} bytes: {error}", self.got),
        }
    }

    /// Reads until `len` bytes of the body are here in all.
    pub fn read_to(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; (len - self.got) as usize];
        let mut at = 0;
        while at < bytes.len() {
            let n = self.read(&mut bytes[at..]);
            assert!(n > 0, "{:?} after {} of {len} bytes", self.ended, self.got);
            at += n;
        }
        bytes
    }

    /// The rest of the body without keeping it: its sha256 together with what `hash` holds already.
    pub fn digest(mut self, mut hash: Sha256) -> (String, u64, End) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.read(&mut buffer) {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        (format!("sha256:{}", hex(&hash.finalize())), self.got, self.ended.unwrap())
    }

    pub fn whole(self) -> Response {
        self.whole_and_connection().0
    }

    /// The connection, for the next request on it.
    pub fn whole_and_connection(mut self) -> (Response, Box<dyn Connection>) {
        assert_eq!(self.head.header("transfer-encoding"), None);
        let mut body = vec![];
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.read(&mut buffer) {
                0 => break,
                n => body.extend_from_slice(&buffer[..n]),
            }
        }
        let response = Response { head: self.head, body, end: self.ended.unwrap() };
        (response, self.reader.into_inner())
    }
}

#[derive(Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    pub end: End,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an OCI error body.
    pub fn code(&self) -> String {
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no OCI error: {:?}", self.text()));
        assert!(json["errors"][0]["message"].is_string(), "{json}");
        json["errors"][0]["code"].as_str().unwrap().to_string()
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(
            self.status(),
            status,
            "{:?} {}",
            self.head,
            &self.text().chars().take(400).collect::<String>()
        );
        assert_eq!(self.end, End::Whole);
        self
    }

    /// Refused with this status and this OCI code.
    #[track_caller]
    pub fn refuses(self, status: u16, code: &str) -> Self {
        let response = self.is(status);
        assert_eq!(response.code(), code);
        response
    }
}

/// Sends raw bytes and reads until the other side closes.
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = connect(addr);
    connection.write_all(bytes).unwrap();
    let mut answer = vec![];
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
