//! Outgoing TLS: whom we believe, and which versions and suites we speak. Also used for image downloads.

use crate::config::{Suite, TlsMinimum, TlsRules, Trust};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What went wrong while setting up TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading the certificates in {path}: {cause}")]
    File { path: PathBuf, cause: String },
    #[error("{path} holds no certificate that can be used")]
    Empty { path: PathBuf },
    #[error("setting up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("setting up certificate checks: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Where ramdisks and distributions keep the bundle of public roots.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The one cryptography provider, named wherever it is needed: no process-wide default that a dependency may change. Holds
/// all suites of TLS 1.3 and those of TLS 1.2 that the rules name.
pub fn provider(rules: &TlsRules) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if let Some(suites) = &rules.suites {
        let named = suites.iter().map(|suite| in_library(*suite));
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.extend(named);
    }
    Arc::new(provider)
}

fn in_library(suite: Suite) -> SupportedCipherSuite {
    use ring::cipher_suite as known;
    match suite {
        Suite::EcdsaAes256 => known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdsaAes128 => known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdsaChaCha20 => known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Suite::RsaAes256 => known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::RsaAes128 => known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::RsaChaCha20 => known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

/// Versions from `minimum` on. Every suite of the provider is ECDHE with AEAD; there is no renegotiation in rustls.
pub fn versions(minimum: TlsMinimum) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    static FROM_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match minimum {
        TlsMinimum::V12 => &FROM_12,
        TlsMinimum::V13 => &FROM_13,
    }
}

/// Client settings for a trust decision.
///
/// # Errors
/// [`TlsError`] naming the file that cannot be used.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(trust, &TlsMinimum::V12.into(), None)
}

/// As [`client_config`], with what may be spoken and our own certificate (chain and key files).
///
/// # Errors
/// [`TlsError`] naming the file that cannot be used.
pub fn client_config_with(
    trust: &Trust,
    rules: &TlsRules,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider(rules);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(rules.minimum))?;
    let builder = match trust {
        Trust::Insecure => {
            tracing::warn!("ipa-insecure is set: no server's certificate is checked, images included");
            let verifier = Arc::new(Anyone(provider.signature_verification_algorithms));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        checked => {
            let roots = Arc::new(roots(checked)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_webpki_verifier(verifier)
        }
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| TlsError::File { path: key.clone(), cause: e.to_string() })?;
            builder.with_client_auth_cert(certificates(chain)?, key)?
        }
    };
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, TlsError> {
    let file = match trust {
        Trust::CaFile(path) => Some(path.clone()),
        _ => BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()),
    };
    let mut store = RootCertStore::empty();
    match file {
        None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let (added, ignored) = store.add_parsable_certificates(certificates(&path)?);
            if added == 0 {
                return Err(TlsError::Empty { path });
            }
            if ignored > 0 {
                tracing::warn!("{ignored} certificates in {} cannot be used as roots", path.display());
            }
        }
    }
    Ok(store)
}

/// All certificates of a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |e: rustls_pki_types::pem::Error| TlsError::File { path: path.into(), cause: e.to_string() };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)
}

/// Accepts every certificate, still checks that the peer holds its key.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        tracing::warn!("the certificate of {} is not checked (ipa-insecure)", server_name.to_str());
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_must_hold_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let trust = Trust::CaFile(path.clone());
        assert!(matches!(client_config(&trust), Err(TlsError::File { .. })));
        std::fs::write(&path, "no pem here\n").unwrap();
        assert!(matches!(client_config(&trust), Err(TlsError::Empty { .. })));
    }

    #[test]
    fn every_trust_that_needs_no_file_gives_a_configuration() {
        assert!(client_config(&Trust::Insecure).is_ok());
        assert!(client_config(&Trust::SystemRoots).is_ok());
    }
}
