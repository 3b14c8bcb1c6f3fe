//! `multipart/byteranges` as a client reads it: by its boundary alone (RFC 2046, section 5.1.1; RFC 9110, 14.6).

pub struct Part<'a> {
    pub content_type: String,
    pub first: u64,
    pub last: u64,
    /// Of the whole blob.
    pub size: u64,
    pub body: &'a [u8],
}

/// The parts of a whole body. Strict: what a client may stumble over is an error, in words.
pub fn read<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, String> {
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").ok_or(content_type)?;
    if boundary.len() > 70 || !boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("a boundary of other than 70 letters and digits: {boundary}"));
    }
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..]).ok_or("does not begin with a boundary")?;
    let mut parts = vec![];
    loop {
        if rest.starts_with(b"--") {
            return if rest == b"--\r\n" { Ok(parts) } else { Err("goes on after its end".into()) };
        }
        rest = rest.strip_prefix(b"\r\n").ok_or("no end of line after a boundary")?;
        let (head, after) = cut(rest, b"\r\n\r\n").ok_or("a part without a head")?;
        let (part, after) = cut(after, delimiter.as_bytes()).ok_or("a part without an end")?;
        parts.push(read_part(head, part)?);
        rest = after;
    }
}

fn read_part<'a>(head: &[u8], body: &'a [u8]) -> Result<Part<'a>, String> {
    let head = std::str::from_utf8(head).map_err(|error| error.to_string())?;
    let field = |name: &str| {
        let mut values = head.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        values.next().ok_or_else(|| format!("no {name} in {head:?}"))
    };
    let range = field("Content-Range")?;
    let numbers = || {
        let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
    };
    let (first, last, size): (u64, u64, u64) = numbers().ok_or(range)?;
    if last < first || last >= size || last - first + 1 != body.len() as u64 {
        return Err(format!("{} bytes for {range}", body.len()));
    }
    Ok(Part { content_type: field("Content-Type")?.to_owned(), first, last, size, body })
}

/// What is before and behind the first `needle`.
fn cut<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == needle[0])?;
        if bytes[at..].starts_with(needle) {
            return Some((&bytes[..at], &bytes[at + needle.len()..]));
        }
        at += 1;
    }
}
