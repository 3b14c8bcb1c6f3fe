//! HTTP/2 frame by frame (RFC 9113), for what no client would do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::process::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;
const ACK: u8 = 1;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// INITIAL_WINDOW_SIZE as large as can be.
    pub fn settings() -> Self {
        Self::new(SETTINGS, 0, 0, [0, 4, 0x7f, 0xff, 0xff, 0xff])
    }

    /// The same for the connection as a whole.
    fn window() -> Self {
        Self::new(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0, 0])
    }

    /// A GET that is complete: END_STREAM and END_HEADERS.
    pub fn get(stream: u32, path: &str) -> Self {
        let text = |text: &str| {
            let mut bytes = vec![u8::try_from(text.len()).unwrap()];
            assert!(bytes[0] < 127);
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        // :method GET, :scheme http, :authority, :path
        let block = [&[0x82, 0x86, 0x01][..], &text("localhost"), &[0x04], &text(path)].concat();
        Self::new(HEADERS, 0x4 | 0x1, stream, block)
    }

    pub fn cancel(stream: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }

    /// The error code of RST_STREAM and GOAWAY, which stands at the end of what both must have.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The value of a setting.
    pub fn setting(&self, wanted: u16) -> Option<u32> {
        let pairs = self.payload.chunks_exact(6);
        let value = |pair: &[u8]| u32::from_be_bytes(pair[2..6].try_into().unwrap());
        pairs.filter(|pair| pair[..2] == wanted.to_be_bytes()).map(value).next()
    }
}

pub struct Wire {
    socket: TcpStream,
}

impl Wire {
    /// Says hello, and that it takes as much as there is.
    pub fn connect(addr: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&[PREFACE, &Frame::settings().bytes(), &Frame::window().bytes()].concat()).unwrap();
        Self { socket }
    }

    /// All at once. Whether it could be sent: the other side may have had enough.
    pub fn send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.socket.write_all(&bytes).is_ok()
    }

    /// None: closed.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that is one of these, and no acknowledgement.
    pub fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            let acknowledges = matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK != 0;
            if kinds.contains(&frame.kind) && !acknowledges {
                return Some(frame);
            }
        }
    }
}
