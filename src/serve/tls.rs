//! TLS to clients: what we show them, what they have to show us, and the handshake.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::protocol::Protocol;
use crate::config::ServerTls;

/// TLS 1.2 and 1.3, with HTTP/2 for those who ask for it. Sessions are resumed by tickets, whose keys are this
/// configuration's own: none outlives it, so that who is let in is always decided by the newest authorities.
pub fn server_config(settings: &ServerTls) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &settings.clients {
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| rustls::Error::General(e.to_string()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let identity = SingleCertAndKey::from(settings.identity.clone());
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// A connection that is not served. It is still to be closed in good order: the client has yet to read what it was
/// told, an alert or an answer.
pub struct Refused {
    pub stream: TcpStream,
    pub reason: Reason,
}

pub enum Reason {
    /// The client speaks something else.
    Plain,
    Failed(io::Error),
}

/// Shakes hands.
pub async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> Result<TlsStream<TcpStream>, Refused> {
    let mut first = [0];
    let reason = match stream.peek(&mut first).await {
        Ok(_) if Protocol::of(&first) == Some(Protocol::Tls) => None,
        Ok(0) => Some(Reason::Failed(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Some(Reason::Plain),
        Err(error) => Some(Reason::Failed(error)),
    };
    match reason {
        Some(reason) => Err(Refused { stream, reason }),
        None => {
            let shaken = TlsAcceptor::from(config).accept(stream).into_fallible().await;
            shaken.map_err(|(error, stream)| Refused { stream, reason: Reason::Failed(error) })
        }
    }
}
