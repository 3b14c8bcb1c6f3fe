//! Lists of images in files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Access, drop_in};
use crate::oci::{Image, read_list};

/// In bytes.
const LARGEST: u64 = 16 << 20;

/// Reads a list of images: one a line, comments behind `#`. There is an error for each line that is wrong, such as
/// `/etc/images.list:3: …`.
pub fn read_images(path: &Path) -> Result<Vec<Image>, Vec<String>> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => images_in(&name, &bytes),
        Err(error) => {
            Err(vec![format!("{name}: cannot be read: {error}{}", drop_in(path, Access::Read, &error))])
        }
    }
}

/// The same for what was read already, from what `name` says.
pub fn images_in(name: &str, bytes: &[u8]) -> Result<Vec<Image>, Vec<String>> {
    let wrong = |what: &str| Err(vec![format!("{name}: {what}; want a list of images, one a line")]);
    if bytes.len() as u64 > LARGEST {
        return wrong("larger than 16 MiB");
    }
    if is_archive(bytes) {
        return wrong("an archive, and those cannot be read yet");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return wrong("not UTF-8") };
    // An editor may have put a mark of its encoding in front.
    read_list(text.trim_start_matches('\u{feff}'))
        .map_err(|wrong| wrong.iter().map(|line| format!("{name}:{}: {}", line.line, line.error)).collect())
}

/// A tar, or something packed by gzip, zstd, xz or bzip2.
fn is_archive(bytes: &[u8]) -> bool {
    let packed: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"];
    bytes.get(257..262) == Some(b"ustar") || packed.iter().any(|magic| bytes.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_and_line() {
        let images = images_in("x", "\u{feff}busybox # small\n\nquay.io/a/b:1\r\n".as_bytes()).unwrap();
        assert_eq!(images[1].to_string(), "quay.io/a/b:1");
        let errors = images_in("/a/list", b"UPPER\nbusybox\na b\n").unwrap_err();
        assert!(errors.len() == 2 && errors[0].starts_with("/a/list:1: `UPPER`"), "{errors:?}");
        assert!(errors[1].starts_with("/a/list:3: "), "{errors:?}");
        let missing = read_images(Path::new("/nowhere/list")).unwrap_err();
        assert!(missing[0].starts_with("/nowhere/list: cannot be read: "), "{missing:?}");
    }

    #[test]
    fn archives_are_told_from_lists() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_cksum();
        tar.append_data(&mut header, "manifest.json", &[][..]).unwrap();
        for bytes in [&tar.into_inner().unwrap()[..], b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd\x04"] {
            let errors = images_in("x", bytes).unwrap_err();
            assert!(errors[0].contains("an archive"), "{errors:?}");
        }
        assert!(images_in("x", b"\xff\xff").unwrap_err()[0].contains("not UTF-8"));
    }
}
