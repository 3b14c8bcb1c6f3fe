//! How an upstream's certificate is checked, and ours shown. What is configured is parsed at the start, so that a
//! typo is found then; the system's many authorities are read when the first connection needs them.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::UpstreamsError;
use crate::config::{ClientTls, PemFile};

/// One upstream's TLS, what is configured found good.
#[derive(Default)]
pub(super) struct Tls {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    skip_verify: bool,
}

impl Tls {
    pub(super) fn read(settings: &ClientTls) -> Result<Self, UpstreamsError> {
        let authorities = match &settings.ca {
            Some(file) => certificates(file)?,
            None => Vec::new(),
        };
        let identity = match &settings.identity {
            Some((chain, key)) => Some(identity(chain, key)?),
            None => None,
        };
        Ok(Self { authorities, identity, skip_verify: settings.insecure_skip_verify })
    }

    /// Whether the peer is known to be who it says it is.
    pub(super) fn verifies(&self) -> bool {
        !self.skip_verify
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        } else if self.authorities.is_empty() {
            builder.with_root_certificates(Arc::clone(&SYSTEM))
        } else {
            let mut roots = RootCertStore::clone(&SYSTEM);
            roots.add_parsable_certificates(self.authorities.iter().cloned());
            builder.with_root_certificates(roots)
        };
        let mut config = match &self.identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The system's authorities. `SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(reason, "the system trusts no certificate authority");
    }
    Arc::new(roots)
});

fn certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, UpstreamsError> {
    let bad = |reason: String| UpstreamsError::file(file.path(), reason);
    let found: Vec<_> = CertificateDer::pem_slice_iter(file.content())
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    for certificate in &found {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
    }
    Ok(found)
}

fn identity(
    chain_file: &PemFile,
    key_file: &PemFile,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), UpstreamsError> {
    let chain = certificates(chain_file)?;
    let key = PrivateKeyDer::from_pem_slice(key_file.content())
        .map_err(|error| UpstreamsError::file(key_file.path(), error.to_string()))?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
        .map_err(|error| UpstreamsError::file(key_file.path(), error.to_string()))?;
    Ok((chain, key))
}

/// `insecure_skip_verify`: whoever answers is believed.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn written(folder: &Path, name: &str, text: &str) -> PemFile {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        PemFile::read(&path).unwrap()
    }

    #[test]
    fn good_files_make_a_client() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["registry.example".to_owned()]).unwrap();
        let certificate = written(folder.path(), "cert.pem", &pair.cert.pem());
        let key = written(folder.path(), "key.pem", &pair.signing_key.serialize_pem());
        for insecure_skip_verify in [false, true] {
            let settings = ClientTls {
                ca: Some(certificate.clone()),
                identity: Some((certificate.clone(), key.clone())),
                insecure_skip_verify,
            };
            let tls = Tls::read(&settings).unwrap();
            assert_eq!(tls.verifies(), !insecure_skip_verify);
            tls.client_config().unwrap();
        }
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let certificate = written(folder.path(), "cert.pem", &pair.cert.pem());
        let wrong_key = written(folder.path(), "wrong.key", &other.signing_key.serialize_pem());
        let empty = written(folder.path(), "empty.pem", "");
        let broken = written(
            folder.path(),
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        for bad in [&empty, &broken] {
            let settings = ClientTls { ca: Some(bad.clone()), ..ClientTls::default() };
            let error = Tls::read(&settings).err().unwrap().to_string();
            assert!(error.contains(bad.path().to_str().unwrap()), "{error}");
        }
        let settings = ClientTls { identity: Some((certificate, wrong_key.clone())), ..ClientTls::default() };
        let error = Tls::read(&settings).err().unwrap().to_string();
        assert!(error.contains(wrong_key.path().to_str().unwrap()), "{error}");
    }
}
