//! Whether the daemon answers where runtimes are told to look for it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Address;
use crate::config::Scheme;

/// For each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer's first lines.
const MOST: u64 = 16 * 1024;

/// What is wrong with an address.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("nothing answers at {0}: {1}. Is the daemon running (systemctl status ociregistry), and there?")]
    Silent(Address, io::Error),
    #[error("what answers at {0} is no registry: {1} to GET /v2/. Does another program use the port?")]
    Other(Address, String),
    #[error("{0} wants users and passwords, which a runtime has to be given too")]
    Locked(Address),
}

/// Asks `GET /v2/`, and waits 5 s at most for each step.
pub fn probe(address: &Address) -> Result<(), Unanswered> {
    let status = ask(address).map_err(|error| Unanswered::Silent(address.clone(), error))?;
    match status.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some("401") => Err(Unanswered::Locked(address.clone())),
        _ => Err(Unanswered::Other(address.clone(), status.chars().take(80).collect())),
    }
}

/// The status line.
fn ask(address: &Address) -> io::Result<String> {
    let socket = connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match address.scheme() {
        Scheme::Http => converse(socket, address),
        Scheme::Https => converse(encrypt(socket, address)?, address),
    }
}

fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for place in (address.host(), address.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// With the authorities that the system trusts, as the runtimes do.
fn encrypt(socket: TcpStream, address: &Address) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(address.host()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}

fn converse(mut stream: impl Read + Write, address: &Address) -> io::Result<String> {
    let host = address.authority();
    // In one piece: who sees a part of it may answer that.
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    let mut stream = stream.take(MOST);
    while !answer.contains(&b'\n') {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    Ok(line.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(answer: &'static str) -> Result<(), Unanswered> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = socket.read(&mut request).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let result = probe(&address);
        assert!(server.join().unwrap().starts_with("GET /v2/ HTTP/1.1\r\n"));
        result
    }

    #[test]
    fn a_registry_is_told_from_other_servers() {
        answered("HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(matches!(answered("HTTP/1.1 401 Unauthorized\r\n\r\n"), Err(Unanswered::Locked(_))));
        assert!(matches!(answered("HTTP/1.1 404 Not Found\r\n\r\n"), Err(Unanswered::Other(..))));
        assert!(matches!(answered("SSH-2.0-x\r\n"), Err(Unanswered::Other(..))));
        assert!(matches!(answered(""), Err(Unanswered::Silent(..))));
    }
}
