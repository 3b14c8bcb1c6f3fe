//! Why the daemon did not start, or ended.

use std::io;
use std::net::SocketAddr;

use crate::serve::ListenError;
use crate::store::OpenError;
use crate::upstream::UpstreamsError;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot open the log file {path}: {source}{hint}")]
    Log { path: String, source: io::Error, hint: String },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen on {address} for {option}: {source}")]
    SideDoor { option: &'static str, address: SocketAddr, source: io::Error },
    #[error("the socket that systemd hands over as `{name}` cannot be used: {reason}")]
    Inherited { name: String, reason: String },
    /// Of an inherited socket.
    #[error("{0}")]
    Exposed(String),
    #[error("{0}")]
    Account(String),
    #[error("{source}{hint}")]
    Store { source: OpenError, hint: String },
    #[error(transparent)]
    Upstreams(#[from] UpstreamsError),
    #[error("cannot speak TLS with server_tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

impl ServeError {
    /// As of sysexits(3): 78 configuration, 75 try again later, 71 the system.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { source: OpenError::Locked { .. }, .. } => 75,
            Self::Store { source: OpenError::Io(_), .. }
            | Self::Start(_)
            | Self::Listen(_)
            | Self::SideDoor { .. } => 71,
            Self::Store { .. }
            | Self::Upstreams(_)
            | Self::Tls(_)
            | Self::Log { .. }
            | Self::Inherited { .. }
            | Self::Exposed(_)
            | Self::Account(_) => 78,
        }
    }
}
