//! The corpora that `make fuzz` begins with and adds to, without fuzzing.

#![allow(clippy::unwrap_used)] // A test may panic.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

fn replay(corpus: &str, run: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut count = 0;
    for input in std::fs::read_dir(folder).unwrap() {
        let path = input.unwrap().path();
        println!("{}", path.display()); // seen when it fails
        run(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn challenge() {
    replay("challenge", targets::challenge::run);
}

#[test]
fn link() {
    replay("link", targets::link::run);
}

#[test]
fn list() {
    replay("list", targets::list::run);
}

#[test]
fn multipart() {
    replay("multipart", targets::multipart::run);
}

#[test]
fn range() {
    replay("range", targets::range::run);
}

#[test]
fn route() {
    replay("route", targets::route::run);
}
