//! Where runtimes reach the daemon.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Url};

use crate::config::{Listen, Scheme, Settings};

/// A scheme, a host and a port: `http://127.0.0.1:8080`. It is one that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want the daemon's address as http://host:port or https://host:port, without a path")]
pub struct InvalidAddress;

impl Address {
    /// Of the addresses it listens on the one that most runtimes of this host get on with.
    pub fn of(settings: &Settings) -> Self {
        let reachable = settings.listen.iter().filter_map(|listen| {
            let Listen::Tcp(address) = listen else {
                return None;
            };
            let ip = match address.ip() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            Some((ip, address.port()))
        });
        let (ip, port) = reachable
            .min_by_key(|(ip, _)| (!ip.is_loopback(), ip.is_ipv6()))
            .unwrap_or((Ipv4Addr::LOCALHOST.into(), 8080));
        let host = match ip {
            IpAddr::V4(ip) => Host::Ipv4(ip),
            IpAddr::V6(ip) => Host::Ipv6(ip),
        };
        let scheme = if settings.server_tls.is_some() { Scheme::Https } else { Scheme::Http };
        Self { scheme, host, port }
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Without the brackets of IPv6.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Ipv6(ip) => ip.to_string(),
            host => host.to_string(),
        }
    }

    /// Without an IPv6 address, which is no part of an image's name to older clients; loopback has another name.
    pub(super) fn nameable(&self) -> Option<Self> {
        let host = match &self.host {
            Host::Ipv6(Ipv6Addr::LOCALHOST) => Host::Domain("localhost".to_owned()),
            Host::Ipv6(_) => return None,
            host => host.clone(),
        };
        Some(Self { host, ..self.clone() })
    }

    /// `127.0.0.1:8080`, as in the name of an image.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(InvalidAddress),
        };
        if rest.trim_end_matches('/').contains(['/', '?', '#', '@', '\\']) || rest.contains(char::is_control)
        {
            return Err(InvalidAddress);
        }
        let url = Url::parse(text).map_err(|_| InvalidAddress)?;
        let host = url.host().ok_or(InvalidAddress)?.to_owned();
        let unspecified = match &host {
            Host::Domain(_) => false,
            Host::Ipv4(ip) => ip.is_unspecified(),
            Host::Ipv6(ip) => ip.is_unspecified(),
        };
        let port = url.port_or_known_default().filter(|&port| port > 0 && !unspecified);
        Ok(Self { scheme, host, port: port.ok_or(InvalidAddress)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Configuration, Override};

    fn of(host: &str, port: &str) -> String {
        let over = |key, text: &str| Override { key, option: "--x", text: text.to_owned() };
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = Configuration::load(Some(file.path()), &[over("host", host), over("port", port)]);
        Address::of(&read.unwrap().settings).to_string()
    }

    #[test]
    fn what_listens_everywhere_is_reached_by_loopback() {
        assert_eq!(of("127.0.0.1", "8080"), "http://127.0.0.1:8080");
        assert_eq!(of("0.0.0.0", "5000"), "http://127.0.0.1:5000");
        assert_eq!(of("::", "5000"), "http://[::1]:5000");
        assert_eq!(of("10.0.0.5", "80"), "http://10.0.0.5:80");
    }

    #[test]
    fn with_a_certificate_it_is_https() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("cert"), pair.cert.pem()).unwrap();
        std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
        let tls = format!("[server_tls]\ncert = {:?}\nkey = {:?}", path("cert"), path("key"));
        std::fs::write(path("c.toml"), tls).unwrap();
        let settings = Configuration::load(Some(&path("c.toml")), &[]).unwrap().settings;
        assert_eq!(Address::of(&settings).to_string(), "https://127.0.0.1:8080");
    }

    #[test]
    fn addresses_are_told_from_other_texts() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://Mirror.example/", "https://mirror.example:443"),
            ("http://[::1]:5000", "http://[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://u:p@a",
            "http://a?b",
            "http://a#b",
            "http://0.0.0.0:8080",
            "http://[::]:8080",
            "http://a:0",
            "http://a\n",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
