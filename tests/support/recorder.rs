//! A wire that remembers what the client at its end asked for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Recorder {
    pub addr: SocketAddr,
    /// What clients sent, a connection each.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    /// In front of whoever listens at `to`, for as long as the test's process lives.
    pub fn of(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Self { addr: listener.local_addr().unwrap(), sent: Arc::default() };
        let sent = recorder.sent.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let connection = {
                    let mut sent = sent.lock().unwrap();
                    sent.push(vec![]);
                    sent.len() - 1
                };
                let sent = sent.clone();
                thread::spawn(move || {
                    pass(client, server, |bytes| sent.lock().unwrap()[connection].extend(bytes))
                });
                thread::spawn(move || pass(back, forth, |_| ()));
            }
        });
        recorder
    }

    /// The `Range` headers so far.
    pub fn ranges(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        let heads = sent.iter().map(|bytes| String::from_utf8_lossy(bytes));
        heads.flat_map(|head| head.lines().filter_map(range).collect::<Vec<_>>()).collect()
    }
}

fn range(line: &str) -> Option<String> {
    line.strip_prefix("Range: ").map(str::to_owned)
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        see(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
