//! A list of images as people keep it in a file: one a line, comments behind `#`.

use super::{Image, InvalidName};

/// A line that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct InvalidLine {
    /// From 1.
    pub line: usize,
    pub error: InvalidName,
}

/// Reads a list. All wrong lines are reported, not only the first.
pub fn read_list(text: &str) -> Result<Vec<Image>, Vec<InvalidLine>> {
    let mut images = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // No part of an image's name has a `#`.
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(image) => images.push(image),
            Err(error) => wrong.push(InvalidLine { line: number + 1, error }),
        }
    }
    if wrong.is_empty() { Ok(images) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_left_out() {
        let images = read_list("# ours\n\nbusybox:1.36 # small\r\n  quay.io/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000\n").unwrap();
        let names: Vec<_> = images.iter().map(ToString::to_string).collect();
        assert_eq!(names[0], "docker.io/library/busybox:1.36");
        assert!(names[1].starts_with("quay.io/a/b@sha256:"));
    }

    #[test]
    fn every_wrong_line_is_told() {
        let wrong = read_list("busybox\nUPPER\n#\na b\n").unwrap_err();
        assert_eq!(wrong.iter().map(|line| line.line).collect::<Vec<_>>(), [2, 4]);
        assert!(wrong[0].to_string().starts_with("line 2: "), "{}", wrong[0]);
    }
}
