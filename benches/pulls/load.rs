//! The load: blocking clients with kept connections, the same for every server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a GET asks for, and how many bytes must come back.
#[derive(Clone, Debug)]
pub struct Target {
    pub path: String,
    pub length: usize,
}

pub enum Work {
    Repeat(Target),
    /// Counted by whole images.
    Images(Vec<Vec<Target>>),
}

/// Repeats the work on so many connections for some time: rounds per second.
pub fn run_for(address: SocketAddr, work: &Work, connections: usize, time: Duration) -> f64 {
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    match work {
                        Work::Repeat(target) => client.get(target),
                        Work::Images(images) => {
                            let number = next.fetch_add(1, Ordering::Relaxed) % images.len();
                            images[number].iter().for_each(|target| client.get(target));
                        }
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    rounds.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// Gets each of these once.
pub fn run_once(address: SocketAddr, targets: &[Target], connections: usize) {
    let each: Vec<_> = targets.iter().map(|target| vec![target.clone()]).collect();
    run_all(address, &each, connections);
}

/// Gets all of these once, dealt out to so many connections.
pub fn run_all(address: SocketAddr, images: &[Vec<Target>], connections: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                    image.iter().for_each(|target| client.get(target));
                }
            });
        }
    });
}

/// Seconds that each pull took while `work` went on, by so many clients with a pause after each.
pub fn times(
    address: SocketAddr,
    images: &[Vec<Target>],
    clients: usize,
    pause: Duration,
    work: &mut dyn FnMut(),
) -> Vec<f64> {
    let over = AtomicBool::new(false);
    let one = |first: usize| {
        let mut client = Client::connect(address);
        let mut times = Vec::new();
        for image in images.iter().cycle().skip(first * images.len() / clients) {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let begun = Instant::now();
            image.iter().for_each(|target| client.get(target));
            times.push(begun.elapsed().as_secs_f64());
            std::thread::sleep(pause);
        }
        times
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || one(client))).collect();
        // However the work ends, the clients do.
        let ends = Over(&over);
        work();
        drop(ends);
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}

/// Says so when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: vec![0; 256 << 10] }
    }

    /// Gets one, checks status and length, throws the bytes away.
    pub fn get(&mut self, target: &Target) {
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n", target.path);
        self.stream.write_all(request.as_bytes()).expect("send");
        let mut have = 0;
        let body = loop {
            let count = self.stream.read(&mut self.buffer[have..]).expect("receive");
            assert!(count > 0, "closed before the head of {}", target.path);
            have += count;
            if let Some(end) = self.buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        assert!(
            self.buffer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&self.buffer[..body])
        );
        let mut left = target.length - (have - body);
        while left > 0 {
            let most = left.min(self.buffer.len());
            let count = self.stream.read(&mut self.buffer[..most]).expect("receive");
            assert!(count > 0, "{left} bytes short of {}", target.path);
            left -= count;
        }
    }
}
