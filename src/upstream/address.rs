//! Where we let ourselves be sent: the rules on addresses and hosts, and the resolver that applies them to what
//! is really dialled. A name that a client made up must not turn this host into a door to its own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// How far requests for a registry may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Public addresses only: registries that nobody configured, unless all of them are allowed.
    Public,
    /// Anywhere but to a cloud's metadata service: configured registries.
    Anywhere,
}

/// Our own rules forbid to go there. Travels through the HTTP client as the source of its error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Forbidden(pub(super) String);

impl Reach {
    /// Judges a URL before it is asked. A name passes here and is judged by its addresses when it is resolved,
    /// unless a proxy resolves it, where only the name itself can be judged.
    pub(super) fn check(self, url: &Url, proxied: bool) -> Result<(), Forbidden> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) if proxied => self.check_name(name),
            Some(Host::Domain(_)) => Ok(()),
            None => Err(Forbidden("the address has no host".to_owned())),
        }
    }

    pub(super) fn check_address(self, address: IpAddr) -> Result<(), Forbidden> {
        match self.objection(address) {
            Some(kind) => Err(Forbidden(format!("{address} is {kind}"))),
            None => Ok(()),
        }
    }

    fn objection(self, address: IpAddr) -> Option<&'static str> {
        if is_metadata(address) {
            return Some("a metadata service's address");
        }
        match (self, address) {
            (Self::Anywhere, _) => None,
            (Self::Public, IpAddr::V4(address)) => not_public_v4(address),
            (Self::Public, IpAddr::V6(address)) => not_public_v6(address),
        }
    }

    fn check_name(self, name: &str) -> Result<(), Forbidden> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let local = || {
            !name.contains('.')
                || [".local", ".localhost", ".internal"].iter().any(|suffix| name.ends_with(suffix))
        };
        if name == "metadata.google.internal" {
            Err(Forbidden(format!("{name} is a metadata service's name")))
        } else if self == Self::Public && local() {
            Err(Forbidden(format!("{name} is a local name")))
        } else {
            Ok(())
        }
    }
}

/// Networks that are not the public internet (IANA's special-purpose registry), in the order of their numbers.
const NOT_PUBLIC_V4: [([u8; 4], u8, &str); 16] = [
    ([0, 0, 0, 0], 8, "not a host's address"),
    ([10, 0, 0, 0], 8, "a private address"),
    ([100, 64, 0, 0], 10, "a carrier's private address"),
    ([127, 0, 0, 0], 8, "a loopback address"),
    ([168, 63, 129, 16], 32, "a metadata service's address"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "a private address"),
    ([192, 0, 0, 0], 24, "a reserved address"),
    ([192, 0, 2, 0], 24, "a documentation address"),
    ([192, 88, 99, 0], 24, "a reserved address"),
    ([192, 168, 0, 0], 16, "a private address"),
    ([198, 18, 0, 0], 15, "a benchmarking address"),
    ([198, 51, 100, 0], 24, "a documentation address"),
    ([203, 0, 113, 0], 24, "a documentation address"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    NOT_PUBLIC_V4
        .iter()
        .find(|(net, length, _)| (bits ^ u32::from_be_bytes(*net)) >> (32 - length) == 0)
        .map(|(_, _, kind)| *kind)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return not_public_v4(inner);
    }
    let segments = address.segments();
    match segments {
        // NAT64's well-known prefix: what hosts with IPv6 only see of the public IPv4 internet.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => not_public_v4(join(high, low)),
        [0x64, 0xff9b, 1, ..] => Some("a local translation address"),
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("not a host's address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0x2001, 0xdb8, ..] => Some("a documentation address"),
        [0x2001, second, ..] if second < 0x200 => Some("a reserved address"),
        [0x2002, ..] => Some("a 6to4 address"),
        [0x3fff, second, ..] if second < 0x1000 => Some("a documentation address"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("a private address"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("a multicast address"),
        [first, ..] if first & 0xe000 == 0x2000 => None,
        _ => Some("a reserved address"),
    }
}

/// Addresses at which clouds hand out a machine's own credentials.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_metadata_v4(address),
        IpAddr::V6(address) => {
            matches!(
                address.segments(),
                [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
            ) || embedded(address).into_iter().any(is_metadata_v4)
        }
    }
}

fn is_metadata_v4(address: Ipv4Addr) -> bool {
    matches!(
        address.octets(),
        [169, 254, 169, 254]
            | [169, 254, 170, 2 | 23]
            | [169, 254, 0, 23]
            | [100, 100, 100, 200]
            | [168, 63, 129, 16]
            | [192, 0, 0, 192]
    )
}

/// The IPv4 addresses that an IPv6 address may be translated to, whichever translation its prefix means.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    match address.segments() {
        // Compatible, mapped, translated (SIIT) and NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => vec![join(high, low)],
        // A local prefix of 96 bits has it at the end, shorter ones around the bits 64 to 71 (RFC 6052).
        [0x64, 0xff9b, 1, a, b, c, high, low] => vec![
            join(high, low),
            join(a, b << 8 | c >> 8),
            join(a << 8 | b & 0xff, c),
            join(b << 8 | c >> 8, c << 8 | high >> 8),
        ],
        [0x2002, high, low, ..] => vec![join(high, low)],
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            vec![join(high, low), join(!client_high, !client_low)]
        }
        _ => Vec::new(),
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// The system's resolver, of whose answers only the permitted ones are dialled.
impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(reach.permitted(name.as_str(), found)?)
        })
    }
}

impl Reach {
    fn permitted(self, name: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Addrs, Forbidden> {
        let (mut permitted, mut refusal) = (Vec::new(), None);
        for address in found {
            match self.objection(address.ip()) {
                None => permitted.push(address),
                Some(kind) => refusal = Some(format!("{name} resolves to {}, {kind}", address.ip())),
            }
        }
        match refusal {
            Some(reason) if permitted.is_empty() => Err(Forbidden(reason)),
            _ => Ok(Box::new(permitted.into_iter())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(host: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/v2/")).unwrap();
        Reach::Public.check(&url, false).is_ok()
    }

    fn anywhere(host: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/v2/")).unwrap();
        Reach::Anywhere.check(&url, false).is_ok()
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for host in "127.0.0.1 127.1 127.0.0.1. 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 [::1] \
            [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] \
            [0:0:0:0:0:0:0:1] ①②⑦.0.0.1"
            .split_whitespace()
        {
            assert!(!public(host), "{host}");
        }
    }

    #[test]
    fn what_is_not_the_public_internet_is_refused() {
        for host in "0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.127.255.255 169.254.1.1 172.16.0.1 \
            172.31.255.255 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 \
            203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 [::] [fc00::1] [fd12::1] \
            [fe80::1] [febf::1] [fec0::1] [ff02::1] [2001:db8::1] [3fff::1] [2001::1] [2001:10::1] \
            [2002:0a00:0001::1] [2002:808:808::1] [100::1] [64:ff9b:1::808:808] [64:ff9b::10.0.0.1] \
            [::ffff:10.0.0.1] [::ffff:0:8.8.8.8] [4000::1]"
            .split_whitespace()
        {
            assert!(!public(host), "{host}");
        }
    }

    #[test]
    fn the_public_internet_is_not() {
        for host in "8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 198.17.0.1 \
            198.20.0.1 223.255.255.255 169.253.1.1 [2606:4700::1111] [2a00:1450::1] [2001:200::1] \
            [2001:4860::8888] [64:ff9b::8.8.8.8] [::ffff:8.8.8.8] registry.example"
            .split_whitespace()
        {
            assert!(public(host), "{host}");
        }
    }

    #[test]
    fn metadata_services_are_out_of_reach_for_all() {
        for host in "169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192 \
            2852039166 0xa9fea9fe [fd00:ec2::254] [fd00:ec2::23] [fd20:ce::254] \
            [::ffff:169.254.169.254] [::169.254.169.254] [::ffff:0:169.254.169.254] \
            [64:ff9b::169.254.169.254] [64:ff9b:1::169.254.169.254] [64:ff9b:1:a9fe:a9:fe00::] \
            [64:ff9b:1:1:a9:fea9:fe00:0] [2002:a9fe:a9fe::1] [2001:0:a9fe:a9fe::1] \
            [2001:0:808:808:0:0:5601:5601]"
            .split_whitespace()
        {
            assert!(!anywhere(host) && !public(host), "{host}");
        }
        for host in "127.0.0.1 10.0.0.1 [::1] [fd00::1] 169.254.20.10 registry".split_whitespace() {
            assert!(anywhere(host), "{host}");
        }
    }

    #[test]
    fn behind_a_proxy_names_are_judged() {
        let check = |reach: Reach, host: &str| {
            reach.check(&Url::parse(&format!("https://{host}/")).unwrap(), true).is_ok()
        };
        for host in "intranet intranet. LOCALHOST a.local a.localhost db.internal db.internal. 10.1"
            .split_whitespace()
        {
            assert!(!check(Reach::Public, host), "{host}");
        }
        assert!(check(Reach::Public, "quay.io"));
        assert!(check(Reach::Anywhere, "intranet"));
        assert!(!check(Reach::Anywhere, "metadata.google.internal"));
    }

    #[test]
    fn forbidden_addresses_of_a_name_are_dropped_and_it_is_refused_when_none_remains() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mixed = [address("10.0.0.1"), address("8.8.8.8")];
        let permitted = Reach::Public.permitted("a.example", mixed.into_iter()).ok().unwrap();
        assert_eq!(permitted.collect::<Vec<_>>(), [address("8.8.8.8")]);
        let refused = Reach::Public.permitted("a.example", [address("10.0.0.1")].into_iter()).err().unwrap();
        assert_eq!(refused.to_string(), "a.example resolves to 10.0.0.1, a private address");
    }

    proptest! {
        #[test]
        fn an_address_is_judged_the_same_in_its_mapped_form(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            for reach in [Reach::Public, Reach::Anywhere] {
                prop_assert_eq!(
                    reach.check_address(address.into()).is_ok(),
                    reach.check_address(address.to_ipv6_mapped().into()).is_ok()
                );
            }
        }

        #[test]
        fn who_may_go_to_public_addresses_only_may_go_nowhere_else(bits: u128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            if Reach::Public.check_address(address).is_ok() {
                prop_assert!(Reach::Anywhere.check_address(address).is_ok());
            }
        }
    }
}
