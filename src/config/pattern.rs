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
        self.is_for(registry, |port| port)
    }

    /// Whether a registry is, or may be, at a place that this means: a scheme's own port is no other place, so
    /// `quay.io` covers `quay.io:443`, and the other way round.
    pub fn covers(&self, registry: &Registry) -> bool {
        self.is_for(registry, |port| port.filter(|port| !matches!(*port, "80" | "443")))
    }

    fn is_for(&self, registry: &Registry, counts: fn(Option<&str>) -> Option<&str>) -> bool {
        let (host, port) = split_port(registry.as_str());
        let (wanted, wanted_port) = split_port(self.as_str());
        if counts(port) != counts(wanted_port) {
            return false;
        }
        match self {
            Self::Exact(_) => host == wanted,
            Self::Wildcard(_) => {
                // An address is not made of labels.
                let named = !host.starts_with('[') && host.parse::<std::net::Ipv4Addr>().is_err();
                named
                    && host.split('.').count() == wanted.split('.').count()
                    && host
                        .split('.')
                        .zip(wanted.split('.'))
                        .all(|(label, want)| want == "*" || want == label)
            }
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Exact(registry) => registry.as_str(),
            Self::Wildcard(pattern) => pattern,
        }
    }

    /// Of two patterns that match, the greater one counts: exact beats wildcard, longer beats shorter.
    pub fn rank(&self) -> (bool, usize) {
        (matches!(self, Self::Exact(_)), self.as_str().len())
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
        let (host, _) = split_port(&lower);
        let whole = host.split('.').all(|label| label == "*" || !label.contains('*'));
        let named = lower.replace('*', "x").parse::<Registry>().map_err(|_| InvalidPattern)?;
        if !whole {
            return Err(InvalidPattern);
        }
        // Its port as names have theirs.
        Ok(Self::Wildcard(match split_port(named.as_str()).1 {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }))
    }
}

impl fmt::Display for RegistryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
    fn a_schemes_own_port_is_no_other_place() {
        let covers = |pattern: &str, registry: &str| {
            pattern.parse::<RegistryPattern>().unwrap().covers(&registry.parse().unwrap())
        };
        for (pattern, registry) in [
            ("quay.io", "quay.io:443"),
            ("quay.io:443", "quay.io"),
            ("reg.example:80", "reg.example:0443"),
            ("*.example", "a.example:80"),
            ("*.example:0443", "a.example"),
            ("[::1]", "[0::1]:443"),
        ] {
            assert!(covers(pattern, registry), "{pattern} {registry}");
            assert!(!matches(pattern, registry), "{pattern} {registry}");
        }
        for (pattern, registry) in
            [("quay.io", "quay.io:5000"), ("quay.io:5000", "quay.io"), ("quay.io", "a.io:443")]
        {
            assert!(!covers(pattern, registry), "{pattern} {registry}");
        }
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
