//! A layer: one program in a tar archive (POSIX ustar).

const BLOCK: usize = 512;

/// An executable file of root's at `path`, of at most 100 bytes, from 1970.
pub fn of_program(path: &str, program: &[u8]) -> Vec<u8> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755\0"); // mode
    put(108, "0000000\0"); // user
    put(116, "0000000\0"); // group
    put(124, &format!("{:011o}\0", program.len()));
    put(136, "00000000000\0"); // time
    put(148, "        "); // the checksum is computed with spaces in its place
    put(156, "0"); // a regular file
    put(257, "ustar\0");
    put(263, "00"); // version
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    let checksum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(checksum.as_bytes());

    let mut archive = [&header, program].concat();
    // Whole blocks, and two empty ones at the end.
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn it_unpacks_to_the_program() {
        for length in [0, 1, 511, 512, 513] {
            let program = vec![7; length];
            let archive = of_program("hello", &program);
            assert_eq!(archive.len() % BLOCK, 0);
            let mut archive = ::tar::Archive::new(&*archive);
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some("hello"));
            assert_eq!((entry.header().mode().unwrap(), entry.header().uid().unwrap()), (0o755, 0));
            let mut unpacked = Vec::new();
            entry.read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, program);
            assert!(entries.next().is_none());
        }
    }
}
