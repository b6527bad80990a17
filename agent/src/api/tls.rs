//! The certificate of the command API: made once per boot, sent to the conductor in each heartbeat, pinned by it.

use crate::conductor::tls::{TlsError, certificates, provider, versions};
use crate::config::{Curve, TlsMinimum, TlsRules};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Begins this long ago: a clock that is a little ahead would otherwise lock the machine out of its own deploy.
const BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Longer than any machine stays in its ramdisk.
const AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("making the agent's certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the agent's own certificate cannot be used: {0}")]
    Use(String),
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// Makes a self-signed certificate for one address (or name), subject `CN=<hostname>`.
///
/// # Errors
/// [`CertificateError`].
pub fn make(host: &str, hostname: &str, curve: Curve, now: SystemTime) -> Result<Pair, CertificateError> {
    let algorithm = match curve {
        Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let key = KeyPair::generate_for(algorithm)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let hostname = if hostname.is_empty() { "ferric-agent" } else { hostname };
    name.push(DnType::CommonName, hostname.chars().take(64).collect::<String>());
    params.distinguished_name = name;
    params.not_before = now.checked_sub(BEFORE).unwrap_or(SystemTime::UNIX_EPOCH).into();
    params.not_after = (now + AFTER).into();
    let mut san = CustomExtension::from_oid_content(&[2, 5, 29, 17], subject_alt_name(host));
    san.set_criticality(true);
    params.custom_extensions = vec![san];
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem().replace("\r\n", "\n"),
        key: key.serialize_pem().replace("\r\n", "\n"),
    })
}

/// `SEQUENCE { [7] address }` or `SEQUENCE { [2] name }`: rcgen marks the extension critical only for an empty subject,
/// the reference agent always does. Lengths are below 128, so each is one byte.
fn subject_alt_name(host: &str) -> Vec<u8> {
    let (tag, value) = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => (0x87, ip.octets().to_vec()),
        Ok(IpAddr::V6(ip)) => (0x87, ip.octets().to_vec()),
        Err(_) => (0x82, host.bytes().take(120).collect()),
    };
    let length = |bytes: usize| u8::try_from(bytes).unwrap_or(0);
    let mut out = vec![0x30, length(value.len().saturating_add(2)), tag, length(value.len())];
    out.extend_from_slice(&value);
    out
}

/// Server settings for a pair that was made here.
///
/// # Errors
/// [`CertificateError::Use`].
pub fn server_config(pair: &Pair, rules: &TlsRules) -> Result<Arc<ServerConfig>, CertificateError> {
    let used = |error: String| CertificateError::Use(error);
    let chain =
        vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|e| used(e.to_string()))?];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|e| used(e.to_string()))?;
    configure(chain, key, rules)
}

/// Server settings for the operator's own certificate and key.
///
/// # Errors
/// [`CertificateError`] naming the file.
pub fn server_config_from(
    files: &(PathBuf, PathBuf),
    rules: &TlsRules,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let key = PrivateKeyDer::from_pem_file(&files.1)
        .map_err(|e| TlsError::File { path: files.1.clone(), cause: e.to_string() })?;
    configure(certificates(&files.0)?, key, rules)
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    rules: &TlsRules,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut config = ServerConfig::builder_with_provider(provider(rules))
        .with_protocol_versions(versions(rules.minimum))
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| CertificateError::Use(error.to_string()))?;
    // The operator's order counts, not the client's.
    config.ignore_client_order = rules.suites.is_some() && rules.minimum == TlsMinimum::V12;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Suite, Trust};

    /// Shakes hands in memory, as a server by `rules` with a client of TLS 1.2 that would take any suite; which they settled on.
    fn settled(rules: &TlsRules) -> Result<rustls::CipherSuite, rustls::Error> {
        let pair = make("192.0.2.1", "", Curve::P256, SystemTime::now()).unwrap();
        let mut server = rustls::ServerConnection::new(server_config(&pair, rules).unwrap()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()).unwrap();
        let any = rustls::ClientConfig::builder_with_provider(provider(&TlsMinimum::V12.into()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(Arc::new(any), "192.0.2.1".try_into().unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(server.negotiated_cipher_suite().unwrap().suite())
    }

    #[test]
    fn only_the_suites_that_were_named_are_spoken_and_in_their_order() {
        let only = |suites: &[Suite]| TlsRules { minimum: TlsMinimum::V12, suites: Some(suites.to_vec()) };
        for (suites, settled_on) in [
            (&[Suite::EcdsaAes128][..], rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
            (
                &[Suite::RsaAes256, Suite::EcdsaChaCha20, Suite::EcdsaAes128],
                rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ),
        ] {
            assert_eq!(settled(&only(suites)).unwrap(), settled_on);
        }
        // Our key is of ECDSA, so nobody can settle on these.
        assert!(settled(&only(&[Suite::RsaAes256])).is_err());
    }

    #[test]
    fn the_address_is_the_only_name() {
        assert_eq!(subject_alt_name("10.77.0.159"), [0x30, 6, 0x87, 4, 10, 77, 0, 159]);
        assert_eq!(subject_alt_name("::1").len(), 20);
        assert_eq!(subject_alt_name("ab"), [0x30, 4, 0x82, 2, b'a', b'b']);
    }

    /// A conductor whose clock is up to a day behind the machine's still takes the certificate, for a month.
    #[test]
    fn a_certificate_begins_a_day_ago_and_lasts_thirty() {
        // 2026-11-26 12:00:00 UTC
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_694_400);
        let pair = make("10.0.0.1", "node", Curve::P384, now).unwrap();
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        // SEQUENCE of two UTCTime values.
        let validity = b"\x30\x1e\x17\x0d261125120000Z\x17\x0d261226120000Z";
        assert!(der.windows(validity.len()).any(|bytes| bytes == validity), "{:02x?}", der.as_ref());
    }

    /// The wire form of the recorded certificate: critical extension 2.5.29.17.
    const CRITICAL_SAN: [u8; 8] = [0x06, 0x03, 0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];

    #[test]
    fn a_certificate_is_accepted_as_its_own_authority_for_its_address_alone() {
        for (curve, name) in [(Curve::P256, "p256"), (Curve::P384, "p384")] {
            let pair = make("127.0.0.1", "node", curve, SystemTime::now()).unwrap();
            assert!(server_config(&pair, &TlsMinimum::V13.into()).is_ok(), "{name}");
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            assert!(der.windows(8).any(|bytes| bytes == CRITICAL_SAN), "{name}");
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("agent.crt");
            std::fs::write(&file, &pair.certificate).unwrap();
            assert!(crate::conductor::tls::client_config(&Trust::CaFile(file)).is_ok());
        }
    }
}
