//! A fast upstream: everything in memory, a thread a connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use ociregistry::oci::{Algorithm, Digest};

use crate::content::Content;

struct File {
    head: String,
    bytes: Vec<u8>,
}

type Files = Arc<HashMap<String, File>>;

pub fn start(content: &Content) -> SocketAddr {
    let files = content.files.iter().map(|(path, (media_type, bytes))| {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let head = format!(
            "Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\nAccept-Ranges: bytes\r\n"
        );
        (path.clone(), File { head, bytes: bytes.clone() })
    });
    let files: Files = Arc::new(files.collect());
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = files.clone();
            std::thread::spawn(move || serve(stream, &files));
        }
    });
    address
}

/// Ends with the connection, whatever ends that.
fn serve(mut stream: TcpStream, files: &Files) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut first = 0;
        let (method, path) = (method.to_owned(), target.split('?').next()?.to_owned());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok().filter(|count| *count > 0)?;
            if header == "\r\n" {
                break;
            }
            if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                first = range.split('-').next()?.parse().ok()?;
            }
        }
        let Some(file) = files.get(&path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        let size = file.bytes.len();
        let status = match first {
            0 => "200 OK\r\n".to_owned(),
            _ => format!("206 Partial Content\r\nContent-Range: bytes {first}-{}/{size}\r\n", size - 1),
        };
        let head = format!("HTTP/1.1 {status}{}Content-Length: {}\r\n\r\n", file.head, size - first);
        let body = if method == "HEAD" { &[] } else { &file.bytes[first..] };
        if body.len() < 64 << 10 {
            stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        } else {
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(body).ok()?;
        }
    }
}
