//! TLS to one agent: exactly the certificate of its first heartbeat, no name, no date, no authority.
//!
//! The agent's certificate is self-signed and new at each boot; its clock may be wrong. What proves the agent is that the
//! bytes of the certificate are those that came with a valid token, and that the peer holds the key to it.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Reads the certificates of a heartbeat.
///
/// # Errors
/// Not 1 to 4 certificates, too long, or not PEM.
pub fn parse_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.len() > ferric_common::limits::CERTIFICATE_PEM {
        return Err(format!(
            "it is {} bytes long; {} are allowed",
            pem.len(),
            ferric_common::limits::CERTIFICATE_PEM
        ));
    }
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("it is not PEM: {e}"))?;
    match all.len() {
        1..=4 => Ok(all),
        n => Err(format!("it holds {n} certificates; 1 to 4 are expected")),
    }
}

/// A connector that talks to the holder of the first certificate in `pem` and to nobody else.
pub fn pinned_connector(pem: &str) -> Result<TlsConnector, String> {
    let pinned = parse_certificates(pem)?.into_iter().next().ok_or("no certificate")?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pin { pinned, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct Pin {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.pinned.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeats_certificate_must_parse() {
        let one = rcgen::generate_simple_self_signed(vec!["10.0.0.5".into()]).unwrap().cert.pem();
        assert_eq!(parse_certificates(&one).unwrap().len(), 1);
        assert_eq!(parse_certificates(&one.repeat(4)).unwrap().len(), 4);
        for (bad, words) in [
            (String::new(), "0 certificates"),
            (one.repeat(5), "5 certificates"),
            ("x".repeat(17 << 10), "bytes long"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_string(), "not PEM"),
        ] {
            let error = parse_certificates(&bad).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
