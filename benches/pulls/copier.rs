//! The peer that does the least: a thread a connection, which gets what is asked for from upstream, writes it to a file,
//! renames that into place, and sends it on. It parses next to nothing, verifies nothing, syncs nothing, and two that ask for
//! the same fetch it twice: no program that keeps files can be much faster on the same machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ends with the program.
pub fn start(folder: &Path, upstream: SocketAddr) -> SocketAddr {
    std::fs::create_dir_all(folder).expect("make a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let (folder, number) = (folder.to_owned(), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, number) = (folder.clone(), number.clone());
            std::thread::spawn(move || copy(stream, upstream, &folder, &number));
        }
    });
    address
}

/// Ends with the connection, whatever ends that.
fn copy(mut client: TcpStream, upstream: SocketAddr, folder: &Path, number: &AtomicUsize) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let mut requests = BufReader::new(client.try_clone().ok()?);
    let mut far = TcpStream::connect(upstream).ok()?;
    far.set_nodelay(true).ok()?;
    let mut answers = BufReader::with_capacity(64 << 10, far.try_clone().ok()?);
    loop {
        let (request, _) = head(&mut requests)?;
        far.write_all(request.as_bytes()).ok()?;
        let (answer, length) = head(&mut answers)?;
        let start = answer.len();
        let mut whole = answer.into_bytes();
        whole.resize(start + length, 0);
        answers.read_exact(&mut whole[start..]).ok()?;
        let name = number.fetch_add(1, Ordering::Relaxed);
        let (new, kept): (PathBuf, PathBuf) =
            (folder.join(format!("new-{name}")), folder.join(name.to_string()));
        std::fs::write(&new, &whole[start..]).ok()?;
        std::fs::rename(&new, &kept).ok()?;
        client.write_all(&whole).ok()?;
    }
}

/// The head of a message, and the length of what follows.
fn head(reader: &mut impl BufRead) -> Option<(String, usize)> {
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let from = text.len();
        reader.read_line(&mut text).ok().filter(|count| *count > 0)?;
        let line = &text[from..];
        if line == "\r\n" {
            return Some((text, length));
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok()?;
        }
    }
}
