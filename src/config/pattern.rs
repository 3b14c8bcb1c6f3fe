//! Which registries an entry is for.

use std::fmt;
use std::str::FromStr;

use crate::oci::Registry;

/// One registry, or all whose host has the same number of labels and equals it in each that is not `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryPattern {
    Exact(Registry),
    /// `*.dkr.ecr.*.amazonaws.com`: a host in lower case, with its port if it has one.
    Wildcard(String),
}

impl RegistryPattern {
    pub fn matches(&self, registry: &Registry) -> bool {
        match self {
            Self::Exact(exact) => exact == registry,
            Self::Wildcard(pattern) => {
                let (host, port) = split_port(registry.as_str());
                let (wanted, wanted_port) = split_port(pattern);
                // An address is not made of labels.
                let named = !host.starts_with('[') && host.parse::<std::net::Ipv4Addr>().is_err();
                named
                    && port == wanted_port
                    && host.split('.').count() == wanted.split('.').count()
                    && host
                        .split('.')
                        .zip(wanted.split('.'))
                        .all(|(label, want)| want == "*" || want == label)
            }
        }
    }

    /// Of two patterns that match, the greater one counts: exact beats wildcard, longer beats shorter.
    pub fn rank(&self) -> (bool, usize) {
        match self {
            Self::Exact(registry) => (true, registry.as_str().len()),
            Self::Wildcard(pattern) => (false, pattern.len()),
        }
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Why a text is no pattern of registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a registry: want host, host:port, address:port, [IPv6]:port, or a host with * for whole labels")]
pub struct InvalidPattern;

impl FromStr for RegistryPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if !text.contains('*') {
            return text.parse().map(Self::Exact).map_err(|_| InvalidPattern);
        }
        let lower = text.to_ascii_lowercase();
        let (host, port) = split_port(&lower);
        let whole = host.split('.').all(|label| label == "*" || !label.contains('*'));
        let valid = lower.replace('*', "x").parse::<Registry>().is_ok();
        if whole && valid && port.is_none_or(|port| !port.contains('*')) {
            Ok(Self::Wildcard(lower))
        } else {
            Err(InvalidPattern)
        }
    }
}

impl fmt::Display for RegistryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(registry) => fmt::Display::fmt(registry, f),
            Self::Wildcard(pattern) => f.write_str(pattern),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, registry: &str) -> bool {
        let pattern: RegistryPattern = pattern.parse().unwrap();
        pattern.matches(&registry.parse().unwrap())
    }

    #[test]
    fn a_star_is_one_label() {
        let ecr = "*.dkr.ecr.*.amazonaws.com";
        assert!(matches(ecr, "1234.dkr.ecr.eu-west-1.amazonaws.com"));
        assert!(matches(ecr, "1234.DKR.ecr.eu-west-1.amazonaws.com"));
        for other in [
            "dkr.ecr.eu.amazonaws.com",
            "a.b.dkr.ecr.eu.amazonaws.com",
            "a.dkr.ecr.eu.amazonaws.com.evil.example",
            "a.dkr.ecr.eu.amazonaws.com:5000",
        ] {
            assert!(!matches(ecr, other), "{other}");
        }
        assert!(matches("*.example:5000", "a.example:5000"));
        assert!(!matches("*.example:5000", "a.example"));
    }

    #[test]
    fn a_star_matches_no_part_of_an_address() {
        assert!(!matches("*.*.*.*", "10.0.0.1"));
        assert!(!matches("*:5000", "[::1]:5000"));
    }

    #[test]
    fn docker_has_one_name_here_too() {
        assert!(matches("registry-1.docker.io", "docker.io"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a*.example", "**.example", "*.example:*", "*/a", "*.", "a b", "[*]:5000"] {
            assert!(text.parse::<RegistryPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn exact_beats_longer_beats_shorter() {
        let rank = |text: &str| text.parse::<RegistryPattern>().unwrap().rank();
        assert!(rank("a.b") > rank("*.example.com"));
        assert!(rank("*.example.com") > rank("*.*.com"));
    }
}
