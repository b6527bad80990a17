//! The cipher suites of TLS 1.2 that an operator names as OpenSSL does. Pure.

use super::{ConfigError, Reader};

/// A suite of TLS 1.2 that our library has; all are ECDHE with an AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    EcdsaAes256,
    EcdsaAes128,
    EcdsaChaCha20,
    RsaAes256,
    RsaAes128,
    RsaChaCha20,
}

/// OpenSSL's names, as `openssl ciphers` prints them.
const NAMES: [(&str, Suite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", Suite::EcdsaAes256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", Suite::EcdsaAes128),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", Suite::EcdsaChaCha20),
    ("ECDHE-RSA-AES256-GCM-SHA384", Suite::RsaAes256),
    ("ECDHE-RSA-AES128-GCM-SHA256", Suite::RsaAes128),
    ("ECDHE-RSA-CHACHA20-POLY1305", Suite::RsaChaCha20),
];

/// Splits a list of suites into those that there are, in its order, and the names that mean nothing here.
pub(super) fn named(text: &str) -> (Vec<Suite>, Vec<String>) {
    let (mut suites, mut unknown) = (Vec::new(), Vec::new());
    for name in text.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        match NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, suite)) if suites.contains(suite) => {}
            Some((_, suite)) => suites.push(*suite),
            None => unknown.push(name.chars().take(80).collect()),
        }
    }
    (suites, unknown)
}

/// What the option asks for; names without a meaning are told.
///
/// # Errors
/// Nothing that was named is there: as little as the operator asked for is not what anybody would speak.
pub(super) fn read(read: &Reader<'_>, told: &mut Vec<String>) -> Result<Option<Vec<Suite>>, ConfigError> {
    let wanted = "a list, with colons, that names at least one suite of TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305 \
                  as OpenSSL does, such as ECDHE-ECDSA-AES256-GCM-SHA384";
    let found = read.read("tls_cipher_suites", wanted, |text| {
        Some(named(text)).filter(|(suites, _)| !suites.is_empty())
    })?;
    let Some((suites, unknown)) = found else { return Ok(None) };
    told.extend(unknown.iter().map(|name| {
        format!("the TLS cipher suite {name} is not built in and is left out: option tls_cipher_suites")
    }));
    Ok(Some(suites))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TlsMinimum, TlsRules, parse};

    #[test]
    fn suites_keep_their_order_and_strangers_are_told() {
        let line = "ipa-api-url=http://a ipa-tls-cipher-suites=ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA:ecdhe-ecdsa-aes256-gcm-sha384:ECDHE-RSA-AES128-GCM-SHA256";
        let config = parse(line, &[], &[]).unwrap();
        assert_eq!(config.tls.suites, Some(vec![Suite::RsaAes128, Suite::EcdsaAes256]));
        assert_eq!(
            config.told,
            ["the TLS cipher suite AES256-SHA is not built in and is left out: option tls_cipher_suites"]
        );
    }

    #[test]
    fn the_word_of_the_conductor_counts_where_it_means_something() {
        let ours = TlsRules { minimum: TlsMinimum::V12, suites: Some(vec![Suite::RsaAes256]) };
        assert_eq!(ours.overruled(None, None), ours);
        assert_eq!(ours.overruled(Some("1.1"), Some("RC4")), ours);
        let theirs = ours.overruled(Some("1.3"), Some("RC4:ECDHE-ECDSA-CHACHA20-POLY1305"));
        assert_eq!((theirs.minimum, theirs.suites), (TlsMinimum::V13, Some(vec![Suite::EcdsaChaCha20])));
    }

    #[test]
    fn suites_that_are_all_unknown_are_refused() {
        let said = parse("ipa-api-url=http://a ipa-tls-cipher-suites=HIGH:!aNULL", &[], &[]).unwrap_err();
        assert!(
            said.to_string().starts_with("setting 'tls_cipher_suites' has the value 'HIGH:!aNULL'"),
            "{said}"
        );
    }
}
