//! Who is believed to be a registry, and who we show ourselves to be.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::PemFile;

/// A folder with `cert.pem` and `key.pem`, signed by itself.
fn certificate(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    folder
}

fn pem(folder: &tempfile::TempDir, name: &str) -> PemFile {
    PemFile::read(&folder.path().join(name)).unwrap()
}

/// Answers every connection with a manifest over TLS; wants to see the certificate of `client`, if any.
async fn serve(own: &Path, client: Option<&Path>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client {
        Some(client) => {
            let mut roots = RootCertStore::empty();
            let certificate = CertificateDer::from_pem_file(client.join("cert.pem")).unwrap();
            roots.add(certificate).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_file(own.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(own.join("key.pem")).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MANIFEST.len());
            let _ = stream.write_all(&[head.as_bytes(), MANIFEST].concat()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

async fn fetch(url: String, tls: ClientTls) -> Result<(), UpstreamError> {
    let mut entry = entry(&url, Credentials::Anonymous);
    entry.tls = tls;
    let upstreams = Upstreams::new(&settings(vec![entry]), VIA).unwrap();
    let upstream = upstreams.get(&"registry.example".parse().unwrap());
    upstream.manifest(&repository(), &tag()).await.map(drop)
}

#[tokio::test]
async fn a_registry_is_believed_whose_certificate_the_configured_authority_vouches_for() {
    let (own, other) = (certificate("localhost"), certificate("localhost"));
    let port = serve(own.path(), None).await;
    let with = |ca: &tempfile::TempDir| ClientTls { ca: Some(pem(ca, "cert.pem")), ..ClientTls::default() };
    fetch(format!("https://localhost:{port}"), with(&own)).await.unwrap();
    for (host, tls) in
        [("localhost", with(&other)), ("localhost", ClientTls::default()), ("127.0.0.1", with(&own))]
    {
        let error = fetch(format!("https://{host}:{port}"), tls).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn anybody_is_believed_where_that_is_configured() {
    let own = certificate("elsewhere.example");
    let port = serve(own.path(), None).await;
    let tls = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    fetch(format!("https://localhost:{port}"), tls).await.unwrap();
}

#[tokio::test]
async fn our_certificate_is_shown() {
    let (own, client) = (certificate("localhost"), certificate("client.example"));
    let port = serve(own.path(), Some(client.path())).await;
    let with = |identity| ClientTls { ca: Some(pem(&own, "cert.pem")), identity, ..ClientTls::default() };
    let shown = (pem(&client, "cert.pem"), pem(&client, "key.pem"));
    fetch(format!("https://localhost:{port}"), with(Some(shown))).await.unwrap();
    assert!(fetch(format!("https://localhost:{port}"), with(None)).await.is_err());
}
