//! Kinds of values that name a place on the network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use url::Url;

use super::kind::{Kind, Shown, absolute};
use super::value::Value;
use crate::oci::Registry;

pub const HOST: Kind<IpAddr> = Kind::new(
    "an IP address of this host, or localhost (other names are not looked up)",
    |value| match value.text()? {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        text => text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text).parse().ok(),
    },
);

pub const PORT: Kind<u16> = Kind::new("a port, 1 to 65535", |value| port(value.integer()?));

fn port(number: i64) -> Option<u16> {
    number.try_into().ok().filter(|&port| port > 0)
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// Whether others than this host's users may reach it. Who may connect to a Unix socket its file says.
    pub fn is_open_to_others(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub const LISTEN: Kind<Listen> = Kind::new(
    "an address and port such as \"10.0.0.5:8080\" or \"[::1]:8080\", or \"unix:/absolute/path\" of at most 107 bytes",
    |value| match value.text()? {
        text if text.starts_with("unix:") => {
            absolute(&text[5..]).filter(|path| path.as_os_str().len() < SOCKET_PATH).map(Listen::Unix)
        }
        text => tcp(text).map(Listen::Tcp),
    },
);

/// Bytes that a Unix socket's address has for its path, a zero at the end among them.
const SOCKET_PATH: usize = 108;

fn tcp(text: &str) -> Option<SocketAddr> {
    let text =
        text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}")).unwrap_or(text.to_owned());
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0)
}

/// A side door: off, on the main host, or on an address of its own.
#[derive(Debug, PartialEq)]
pub enum Door {
    Off,
    Port(u16),
    Address(SocketAddr),
}

pub const DOOR: Kind<Door> = Kind::new("a port, \"address:port\", or 0 for off", |value| match value {
    Value::Integer(0) => Some(Door::Off),
    Value::Integer(number) => port(*number).map(Door::Port),
    Value::Text(text) => tcp(text).map(Door::Address),
    _ => None,
});

/// Empty where there is none.
pub const TCP: Kind<Option<SocketAddr>> =
    Kind::new("an address and port, or \"\"", |value| match value.text()? {
        "" => Some(None),
        text => tcp(text).map(Some),
    });

pub const NETWORK: Kind<IpNet> =
    Kind::new("a network such as \"10.0.0.0/8\", or an address", |value| network(value.text()?));

/// IPv4 in the guise of IPv6 is IPv4.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (canonical @ IpAddr::V4(_), Some(length)) if network.addr().is_ipv6() => {
            IpNet::new(canonical, length).ok()
        }
        _ => Some(network),
    }
}

/// Where a proxy is not used.
pub const NO_PROXY: Kind<String> =
    Kind::new("a host, a domain such as \".example.com\", an address or a network", |value| {
        let text = value.text()?;
        let host = || {
            text.strip_prefix('.').unwrap_or(text).parse::<Registry>().is_ok() && !text.contains([':', '['])
        };
        (network(text).is_some() || host()).then(|| text.to_owned())
    });

/// Empty where there is none.
pub const URL: Kind<Option<Url>> =
    Kind::new("a URL such as \"https://host/prefix\": http or https, no user, no query; or \"\"", |value| {
        match value.text()? {
            "" => Some(None),
            text => url(text, &["http", "https"])
                .filter(|url| url.username().is_empty() && url.password().is_none())
                .map(Some),
        }
    })
    .shown(Shown::WithoutUserinfo);

/// Empty where there is none.
pub const PROXY: Kind<Option<String>> = Kind::new(
    "a URL such as \"http://user:password@host:3128\", with http, https, socks5 or socks5h; or \"\"",
    |value| match value.text()? {
        "" => Some(None),
        text => url(text, &["http", "https", "socks5", "socks5h"])
            .filter(|url| matches!(url.path(), "" | "/"))
            .map(|_| Some(text.to_owned())),
    },
)
.shown(Shown::WithoutUserinfo);

/// Without a slash at its end, unless that is all of its path.
fn url(text: &str, schemes: &[&str]) -> Option<Url> {
    // The parser would guess at a missing `//`, and drop line breaks.
    if !schemes.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://"))) {
        return None;
    }
    let mut url = Url::parse(text).ok()?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.host_str().is_some_and(|host| !host.is_empty());
    if !plain || text.contains(|c: char| c.is_control() || c == ' ') {
        return None;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !url.cannot_be_a_base() && !path.is_empty() {
        url.set_path(&path);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(kind: Kind<T>, text: &str) -> Option<T> {
        (kind.read)(&text.into())
    }

    #[test]
    fn hosts() {
        assert_eq!(read(HOST, "localhost"), Some(Ipv4Addr::LOCALHOST.into()));
        for text in ["0.0.0.0", "::", "[::1]", "10.1.2.3"] {
            assert!(read(HOST, text).is_some(), "{text}");
        }
        for text in ["", "example.com", "127.1", "10.0.0.1:80"] {
            assert!(read(HOST, text).is_none(), "{text}");
        }
    }

    #[test]
    fn urls() {
        for (text, kept) in [
            ("http://127.0.0.1:5000/hub/", "http://127.0.0.1:5000/hub"),
            ("https://a.example", "https://a.example/"),
            ("https://[::1]:5000", "https://[::1]:5000/"),
        ] {
            assert_eq!(read(URL, text).unwrap().unwrap().as_str(), kept);
        }
        for text in [
            "a.example",
            "ftp://a",
            "http:a",
            "http://",
            "http://u:p@a",
            "http://a?b",
            "http://a#b",
            "http://a /",
        ] {
            assert!(read(URL, text).is_none(), "{text}");
        }
    }

    #[test]
    fn proxies() {
        for text in ["http://u:p@proxy:3128", "socks5://127.0.0.1:1080", "socks5h://p:1", ""] {
            assert!(read(PROXY, text).is_some(), "{text}");
        }
        for text in ["proxy:3128", "http://proxy/path", "socks9://p:1"] {
            assert!(read(PROXY, text).is_none(), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ] {
            assert_eq!(read(NETWORK, text), network.parse().ok(), "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "a.example", "10.0.0.0/8 "] {
            assert_eq!(read(NETWORK, text), None, "{text}");
        }
    }

    #[test]
    fn exceptions_of_a_proxy() {
        for text in ["localhost", ".example.com", "a.example", "10.0.0.0/8", "::1"] {
            assert!(read(NO_PROXY, text).is_some(), "{text}");
        }
        for text in ["", "*", "*.example", "a b", "a:80"] {
            assert!(read(NO_PROXY, text).is_none(), "{text}");
        }
    }

    #[test]
    fn side_doors() {
        assert_eq!((DOOR.read)(&0.into()), Some(Door::Off));
        assert_eq!((DOOR.read)(&9090.into()), Some(Door::Port(9090)));
        assert!(matches!(read(DOOR, "[::1]:9"), Some(Door::Address(_))));
    }
}
