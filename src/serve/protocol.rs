//! What a client speaks, seen from its first bytes.

/// RFC 9113, 3.4: what a client that knows of HTTP/2 begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 8446, 5.1: a record of a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Or whatever else: its server answers that with a 400.
    Http1,
    Http2,
    Tls,
}

impl Protocol {
    /// None while that can still become one or the other.
    pub fn of(first: &[u8]) -> Option<Self> {
        match first {
            [] => None,
            [TLS_HANDSHAKE, ..] => Some(Self::Tls),
            _ if first.starts_with(HTTP2_PREFACE) => Some(Self::Http2),
            _ if HTTP2_PREFACE.starts_with(first) => None,
            _ => Some(Self::Http1),
        }
    }
}

/// What stands in an answer to one who speaks TLS to a plain port. containerd tries TLS first on a host with
/// `skip_verify` or `ca`: to this answer it comes back without, and a mere close makes it skip the mirror without a word.
pub const PLAIN_HERE: &str =
    "This port speaks plain HTTP, and the client began with TLS: use http:// here.\n";

/// And to one who speaks plain HTTP to a port with TLS.
pub const TLS_HERE: &str = "This port speaks TLS, and the client did not: use https:// here.\n";

/// A whole response that can be sent to whatever is at the other end.
pub fn bad_request(text: &str) -> String {
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        for (first, protocol) in [
            (&b""[..], None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Protocol::Http1)),
            (b"PUT", Some(Protocol::Http1)),
            (b"GET /v2/ HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"\r\nG", Some(Protocol::Http1)),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"\x80\x2e\x01", Some(Protocol::Http1)),
        ] {
            assert_eq!(Protocol::of(first), protocol, "{first:?}");
        }
    }
}
