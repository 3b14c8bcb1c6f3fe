//! Who may pull, and what. Asked before anything is looked up: it judges addresses, passwords and names alone.

use http::{HeaderMap, header};

use super::listener::Peer;
use super::passwords::{Login, Passwords, Verdict};
use super::route::{Endpoint, Refusal};
use crate::config::{AccessSettings, RegistryPattern, Settings, Unlisted};
use crate::hello;
use crate::oci::{Code, Name};

/// The rules in force.
pub struct Access {
    settings: AccessSettings,
    passwords: Option<Passwords>,
    /// Registries that have an entry.
    listed: Vec<RegistryPattern>,
    hello_world: bool,
}

impl Access {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.access.clone(),
            passwords: settings.access.users.clone().map(Passwords::new),
            listed: settings.registries.iter().map(|entry| entry.name.clone()).collect(),
            hello_world: settings.hello_world,
        }
    }

    /// Whether this client may pull at all.
    pub async fn admit(&self, client: Peer, headers: &HeaderMap) -> Result<(), Refusal> {
        if client == Peer::Probe {
            return Ok(());
        }
        self.admit_from(client)?;
        let Some(passwords) = &self.passwords else { return Ok(()) };
        let login = headers.get(header::AUTHORIZATION).and_then(Login::parse);
        let Some(login) = login else { return Err(unauthorized("a user and a password are needed to pull")) };
        match passwords.check(client, &login).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong => Err(unauthorized("wrong user or password")),
            Verdict::Unknown => {
                Err(Refusal::new(503, Code::Unavailable, "too many passwords are being checked: try again"))
            }
        }
    }

    fn admit_from(&self, client: Peer) -> Result<(), Refusal> {
        let Peer::Tcp(address) = client else {
            // The permissions of its file say who may connect to a Unix socket.
            return Ok(());
        };
        let address = address.ip().to_canonical();
        let clients = &self.settings.clients;
        if clients.is_empty() || clients.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let message =
            format!("{address} is none of the clients that may pull from this registry (`clients`)");
        Err(Refusal::new(403, Code::Denied, message))
    }

    /// Whether anybody may pull this.
    pub fn permit(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let name = match endpoint {
            Endpoint::Base => return Ok(()),
            // Nobody's but the program's own.
            Endpoint::Manifest(image) if self.hello_world && hello::manifest(image).is_some() => {
                return Ok(());
            }
            Endpoint::Blob(name, digest) if self.hello_world && hello::blob(name, digest).is_some() => {
                return Ok(());
            }
            Endpoint::Manifest(image) => &image.name,
            Endpoint::Blob(name, _) | Endpoint::Tags { name, .. } => name,
            Endpoint::Referrers { subject, .. } => &subject.name,
        };
        match self.objection(name) {
            Some(reason) => Err(Refusal::new(403, Code::Denied, format!("{name}: refused: {reason}"))),
            None => Ok(()),
        }
    }

    fn objection(&self, name: &Name) -> Option<String> {
        let AccessSettings { allow, deny, unlisted, .. } = &self.settings;
        if let Some(pattern) = deny.iter().find(|pattern| pattern.covers(name)) {
            return Some(format!("`deny` has {pattern}"));
        }
        if !allow.is_empty() && !allow.iter().any(|pattern| pattern.matches(name)) {
            return Some("no pattern of `allow` matches it".to_owned());
        }
        if *unlisted == Unlisted::Deny && !self.listed.iter().any(|entry| entry.matches(&name.registry)) {
            return Some(format!(
                "{} has no entry in the configuration, and `unlisted` is \"deny\"",
                name.registry
            ));
        }
        None
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(401, Code::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Configuration;

    fn access(text: &str) -> Access {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Access::new(&Configuration::load(Some(&path), &[]).unwrap_or_else(|e| panic!("{e}")).settings)
    }

    fn admits(access: &Access, address: &str) -> bool {
        access.admit_from(Peer::Tcp(format!("{address}:1234").parse().unwrap())).is_ok()
    }

    fn permits(access: &Access, name: &str) -> bool {
        access.permit(&Endpoint::Manifest(name.parse().unwrap())).is_ok()
    }

    #[test]
    fn clients_are_told_by_their_address_in_every_form() {
        let access = access("clients = [\"10.0.0.0/8\", \"fd00::/8\", \"192.0.2.7\"]");
        for address in ["10.1.2.3", "[::ffff:10.1.2.3]", "[fd00::1]", "192.0.2.7"] {
            assert!(admits(&access, address), "{address}");
        }
        for address in ["11.1.2.3", "[::ffff:11.1.2.3]", "127.0.0.1", "[::1]", "192.0.2.8", "[::10.1.2.3]"] {
            assert!(!admits(&access, address), "{address}");
        }
        assert!(access.admit_from(Peer::Unix).is_ok());
        let refused = access.admit_from(Peer::Tcp("[::ffff:11.1.2.3]:1".parse().unwrap())).unwrap_err();
        assert!(refused.status == 403 && refused.message.starts_with("11.1.2.3 is none"), "{refused:?}");
    }

    #[test]
    fn deny_beats_allow_and_allow_refuses_the_rest() {
        let access =
            access("allow = [\"docker.io/library/*\", \"quay.io/**\"]\ndeny = [\"quay.io/secret/**\"]");
        for name in ["nginx", "docker.io/library/nginx", "index.docker.io/nginx", "quay.io/a/b/c"] {
            assert!(permits(&access, name), "{name}");
        }
        for name in ["docker.io/team/nginx", "quay.io/secret/a", "quay.io:443/a", "ghcr.io/a"] {
            assert!(!permits(&access, name), "{name}");
        }
    }

    #[test]
    fn no_other_spelling_of_a_registry_passes_a_deny() {
        let access = access(
            "deny = [\"quay.io/**\", \"docker.io/**\", \"reg.example:5000/**\", \"[::1]:5000/**\", \"10.0.0.1/**\"]",
        );
        for host in [
            "quay.io",
            "QUAY.io:443",
            "quay.io:0443",
            "quay.io:80",
            "docker.io:0443",
            "docker.io:80",
            "index.docker.io:443",
            "registry-1.docker.io:443",
            "registry-1.docker.io:80",
            "reg.example:05000",
            "[0:0::1]:5000",
            "[::1]:05000",
            "10.1",
            "[::ffff:10.0.0.1]:443",
        ] {
            assert!(!permits(&access, &format!("{host}/a/b")), "{host}");
        }
        for host in ["quay.io:5000", "reg.example", "reg.example:5001", "[::2]:5000", "10.0.0.2"] {
            assert!(permits(&access, &format!("{host}/a/b")), "{host}");
        }
    }

    #[test]
    fn unlisted_registries_can_be_refused() {
        let access = access("unlisted = \"deny\"\n[[registries]]\nname = \"*.example.com\"");
        assert!(permits(&access, "a.example.com/x"));
        assert!(!permits(&access, "docker.io/library/nginx"));
        let endpoint = Endpoint::Manifest("quay.io/a".parse().unwrap());
        assert!(access.permit(&endpoint).unwrap_err().message.contains("quay.io has no entry"));
    }

    #[test]
    fn the_greeting_is_nobodys_but_the_programs_own() {
        let text = "unlisted = \"deny\"\ndeny = [\"docker.io/**\"]\n";
        let (with, without) = (access(&format!("{text}hello_world = true")), access(text));
        assert!(permits(&with, "hello-world") && !permits(&without, "hello-world"));
        assert!(!permits(&with, "hello-world:other") && !permits(&with, "nginx"));
    }
}
