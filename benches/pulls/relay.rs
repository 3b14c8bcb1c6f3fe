//! A relay that makes an upstream far away: a delay each way, and a bandwidth that all connections share.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// When the line is free again.
type Line = Arc<Mutex<Instant>>;

/// `bandwidth` in bytes per second, from upstream to the client.
pub fn start(upstream: SocketAddr, delay: Duration, bandwidth: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let line: Line = Arc::new(Mutex::new(Instant::now()));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection costs a round trip before it carries anything.
            let line = line.clone();
            std::thread::spawn(move || {
                std::thread::sleep(2 * delay);
                let Ok(server) = TcpStream::connect(upstream) else { return };
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                    return;
                };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                std::thread::spawn(move || pump(client_too, server_too, delay, None));
                pump(server, client, delay, Some((line, bandwidth)));
            });
        }
    });
    address
}

/// Carries bytes one way, each piece `delay` after it came, at the line's pace.
fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration, line: Option<(Line, u64)>) {
    // What is under way: the line's bandwidth times its delay, and some for the receiver.
    let (sender, pieces) = mpsc::sync_channel::<(Instant, Vec<u8>)>(256);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut departs = Instant::now();
            if let Some((line, bandwidth)) = &line {
                let mut free = line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                departs = departs.max(*free) + Duration::from_secs_f64(count as f64 / *bandwidth as f64);
                *free = departs;
            }
            if sender.send((departs + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    for (arrives, piece) in pieces {
        std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = reader.join();
}
