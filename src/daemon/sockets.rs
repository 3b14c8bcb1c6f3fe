//! The sockets we serve on: those that systemd hands over (sd_listen_fds(3)), else those of the configuration.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use super::ServeError;
use super::account::Account;
use super::unchecked;
use crate::admin::SideDoor;
use crate::config::{Listen, Settings};
use crate::serve::{ListenError, Listener};

/// Open sockets, by what they are for.
pub struct Sockets {
    /// Where clients pull.
    pub pull: Vec<Listener>,
    /// Where commands come in, if systemd made that.
    pub admin: Option<UnixListener>,
    /// Where commands come in over the network.
    pub network: Option<SideDoor>,
    /// Where health is told.
    pub health: Option<SideDoor>,
    /// Those for pulls are systemd's: they count in place of host, port and listen.
    pub inherited: bool,
}

impl Sockets {
    /// To be called once in a process. A socket that systemd calls `admin` (`FileDescriptorName=`) takes commands,
    /// `health` tells health, any other one is for pulls; `metrics` is refused as long as there is nothing behind it.
    pub fn open(settings: &Settings, account: &Account) -> Result<Self, ServeError> {
        let mut pull = Vec::new();
        let (mut admin, mut health) = (None, None);
        let handed = sd_notify::listen_fds_with_names().map_err(|source| inherited("LISTEN_FDS", &source))?;
        for (fd, name) in handed {
            let listener =
                Listener::from_fd(unchecked::own(fd)).map_err(|source| inherited(&name, &source))?;
            match (name.as_str(), listener) {
                ("admin", Listener::Unix(listener, _)) if admin.is_none() => admin = Some(listener),
                ("admin", _) => {
                    return Err(inherited(&name, &io::Error::other("want one Unix socket of that name")));
                }
                ("health", Listener::Tcp(listener)) if health.is_none() => {
                    health = Some(SideDoor::new(listener).map_err(|source| inherited(&name, &source))?);
                }
                ("health", _) => {
                    return Err(inherited(&name, &io::Error::other("want one TCP socket of that name")));
                }
                ("metrics", _) => {
                    return Err(inherited(&name, &io::Error::other("not supported yet, leave it out")));
                }
                (_, listener) => pull.push(listener),
            }
        }
        let inherited = !pull.is_empty();
        if inherited {
            for listener in &pull {
                if let Some(reason) = listener.listen().and_then(|listen| settings.objection(&listen)) {
                    return Err(ServeError::Exposed(reason));
                }
            }
        } else {
            pull = bind(settings, account)?;
        }
        let health = match (health, settings.health) {
            (None, Some(address)) => Some(side_door("--health", address)?),
            (health, _) => health,
        };
        let network =
            settings.admin.as_ref().map(|admin| side_door("admin.listen", admin.listen)).transpose()?;
        Ok(Self { pull, admin, network, health, inherited })
    }
}

fn inherited(name: &str, source: &io::Error) -> ServeError {
    ServeError::Inherited { name: name.to_owned(), reason: source.to_string() }
}

fn bind(settings: &Settings, account: &Account) -> Result<Vec<Listener>, ServeError> {
    let bind = |address: &Listen| {
        let listener = Listener::bind(address)?;
        if let Listen::Unix(path) = address {
            account.give(path).map_err(|source| ListenError { address: address.clone(), source })?;
        }
        Ok(listener)
    };
    settings.listen.iter().map(bind).collect()
}

fn side_door(option: &'static str, address: SocketAddr) -> Result<SideDoor, ServeError> {
    SideDoor::bind(address).map_err(|source| ServeError::SideDoor { option, address, source })
}
