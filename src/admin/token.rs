//! The token of those who give commands over the network.

use std::hint::black_box;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config::Secret;
use crate::oci::{Algorithm, Digest, Hasher};

/// The one in force, as its SHA-256.
pub struct Token(ArcSwap<Digest>);

impl Token {
    pub fn new(token: &Secret) -> Self {
        Self(ArcSwap::from_pointee(digest(token.reveal().as_bytes())))
    }

    /// Puts another one in its place.
    pub fn renew(&self, token: &Secret) {
        self.0.store(digest(token.reveal().as_bytes()).into());
    }

    /// Whether a request bears it (RFC 6750 section 2.1). How long that takes tells nothing of it.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
        given.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"bearer ") && is_same(&digest(token), &self.0.load())
        })
    }
}

fn digest(token: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(token);
    hasher.finish()
}

/// Looks at all of both.
fn is_same(a: &Digest, b: &Digest) -> bool {
    let different = a.hex().bytes().zip(b.hex().bytes()).fold(0, |found, (a, b)| black_box(found | (a ^ b)));
    different == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new(&Secret::new("0123456789abcdef".to_owned()));
        let is_in = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            token.is_in(&headers)
        };
        assert!(is_in("Bearer 0123456789abcdef") && is_in("bearer 0123456789abcdef"));
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Bearer ",
            "Bearer",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "",
        ] {
            assert!(!is_in(wrong), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        token.renew(&Secret::new("another-0123456789".to_owned()));
        assert!(!is_in("Bearer 0123456789abcdef") && is_in("Bearer another-0123456789"));
    }
}
