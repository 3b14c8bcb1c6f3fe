//! The upstream's end of a connection: requests in, answers out, and the faults that happen to bytes on their way.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Fault, STRANGE, Seen, Shared, State};
use crate::support::layout::Blob;

/// One connection, request after request.
pub(super) fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let mut state = shared.state.lock().unwrap();
        state.seen.push(request.clone());
        let fault = state.fault_for(&request);
        drop(state);
        if let Some(Fault::HangUp) = fault {
            return Ok(());
        }
        if let Some(Fault::Delay(time)) = fault {
            shared.wait(|_| false, Some(time));
        }
        let answer = shared.state.lock().unwrap().answer(&request, &fault, shared.addr);
        if !answer.write(stream, &request, fault, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut seen = Seen { method: method.into(), path: path.into(), query: query.into(), headers: vec![] };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => seen.headers.push((name.into(), value.trim().into())),
            None => return Ok(Some(seen)),
        }
    }
}

pub(super) enum Body {
    Blob { blob: Blob, start: u64, end: u64 },
    Bytes(Vec<u8>),
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    /// What the bytes of the body are counted under.
    pub(super) digest: String,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let digest = String::new();
        Self { status, headers: vec![], body: Body::Bytes(body.into()), digest }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"as the test says"}}]}}"#))
            .with("Content-Type", "application/json")
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    fn length(&self) -> u64 {
        match &self.body {
            Body::Blob { start, end, .. } => end - start,
            Body::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// False: the connection is of no more use.
    fn write(
        self,
        mut stream: &TcpStream,
        request: &Seen,
        fault: Option<Fault>,
        shared: &Shared,
    ) -> std::io::Result<bool> {
        let mut length = self.length() as i64;
        if let Some(Fault::Length(by)) = fault {
            length += by;
        }
        let mut head = format!("HTTP/1.1 {} as the test says\r\nContent-Length: {length}\r\n", self.status);
        // Not where it would have us wait before we ask again.
        let strange = STRANGE.iter().filter(|_| self.status < 405);
        for (name, value) in strange {
            head += &format!("{name}: {value}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(Fault::Headers(size)) = fault {
            for n in 0..size / 1000 {
                head += &format!("X-Filler-{n}: {}\r\n", "x".repeat(980));
            }
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        let closes = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if request.method == "HEAD" {
            return Ok(!closes && !matches!(fault, Some(Fault::Cut(_) | Fault::Reset(_))));
        }
        let (start, end) = match &self.body {
            Body::Blob { start, end, .. } => (*start, *end),
            Body::Bytes(bytes) => (0, bytes.len() as u64),
        };
        let (halt, flip) = match fault {
            Some(Fault::Cut(n) | Fault::Reset(n) | Fault::Stall(n)) => {
                (start.saturating_add(n).min(end), None)
            }
            Some(Fault::Flip(n)) => (end, Some(n)),
            _ => (end, None),
        };
        let held_at = |state: &State| match state.held.get(&self.digest) {
            Some(at) if *at > start => *at,
            _ => u64::MAX,
        };
        if matches!(fault, Some(Fault::Reset(_))) {
            // a reset throws away what waits here, which then counts as sent
            socket2::SockRef::from(stream).set_send_buffer_size(1 << 16)?;
        }
        let mut buffer = vec![0; 1 << 17];
        let mut at = start;
        while at < halt {
            let gate = held_at(&shared.state.lock().unwrap());
            if at >= gate {
                shared.wait(|state| held_at(state) > at, None);
                if shared.state.lock().unwrap().stopped {
                    return Ok(false);
                }
                continue;
            }
            let n = (halt.min(gate) - at).min(buffer.len() as u64) as usize;
            match &self.body {
                Body::Blob { blob, .. } => assert_eq!(blob.read_at(at, &mut buffer[..n]), n),
                Body::Bytes(bytes) => buffer[..n].copy_from_slice(&bytes[at as usize..][..n]),
            }
            if let Some(flip) = flip
                && (at..at + n as u64).contains(&flip)
            {
                buffer[(flip - at) as usize] ^= 1;
            }
            *shared.state.lock().unwrap().sent.entry(self.digest.clone()).or_default() += n as u64;
            stream.write_all(&buffer[..n])?;
            at += n as u64;
        }
        match fault {
            Some(Fault::Cut(_)) => return Ok(false),
            Some(Fault::Reset(_)) => {
                std::thread::sleep(Duration::from_millis(50)); // for what is on its way to arrive
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Some(Fault::Stall(_)) => {
                shared.wait(|state| state.rules.is_empty(), None);
                return Ok(false);
            }
            Some(Fault::Length(_)) => return Ok(false),
            _ => {}
        }
        Ok(!closes)
    }
}
