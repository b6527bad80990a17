//! The cipher suites of TLS 1.2 that an operator names as OpenSSL does. Pure.

use super::{Reader, TlsMinimum, TlsRules, meaning};

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

/// Names that are said of a list; the others are counted.
const SAID: usize = 8;
/// Whose list it is.
const OPTION: &str = "option tls_cipher_suites";
const ANSWER: &str = "tls_cipher_suites of the controller's lookup answer";
/// What is spoken where a list means nothing here.
const ALL: &str = "all that are built in are spoken, ECDHE with AES-GCM or ChaCha20-Poly1305";
const OURS: &str = "those of the agent's own option are spoken";

/// Splits a list of suites into those that there are, in its order, and the words that name none.
fn named(text: &str) -> (Vec<Suite>, Vec<&str>) {
    let (mut suites, mut unknown) = (Vec::new(), Vec::new());
    for name in text.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        match NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, suite)) if suites.contains(suite) => {}
            Some((_, suite)) => suites.push(*suite),
            None => unknown.push(name),
        }
    }
    (suites, unknown)
}

/// The suites of a list, none if it names none, and what to tell of it. OpenSSL's words for groups (`HIGH`, `ECDHE+AESGCM`) and
/// against groups (`!aNULL`) name none. `instead`: what is spoken then.
fn meant(text: &str, whose: &str, instead: &str) -> (Option<Vec<Suite>>, Option<String>) {
    let (suites, unknown) = named(text);
    let told = match (suites.is_empty(), unknown.is_empty()) {
        (_, true) => None,
        (true, false) => Some(format!(
            "{whose} names no cipher suite of TLS 1.2 that is built in: {}; {instead}",
            listed(&unknown)
        )),
        (false, false) => Some(format!(
            "{whose}: what is no cipher suite of TLS 1.2 that is built in is left out: {}",
            listed(&unknown)
        )),
    };
    (Some(suites).filter(|suites| !suites.is_empty()), told)
}

fn listed(names: &[&str]) -> String {
    let printable = |name: &&str| name.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
    let said = names.iter().take(SAID).map(printable).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SAID) {
        None | Some(0) => said,
        Some(more) => format!("{said} and {more} more"),
    }
}

/// What the option asks for; none: all suites. What of it means nothing is told, but not where TLS 1.2 is not spoken.
pub(super) fn read(read: &Reader<'_>, minimum: TlsMinimum, told: &mut Vec<String>) -> Option<Vec<Suite>> {
    let (suites, line) = meant(&read.text("tls_cipher_suites")?, OPTION, ALL);
    told.extend(line.filter(|_| minimum == TlsMinimum::V12));
    suites
}

impl TlsRules {
    /// These rules, as far as the lookup answer has no word of its own that means something here; and what of its word does not.
    pub fn overruled(&self, minimum: Option<&str>, suites: Option<&str>) -> (TlsRules, Option<String>) {
        let minimum = minimum.and_then(meaning::tls_minimum).unwrap_or(self.minimum);
        let instead = if self.suites.is_some() { OURS } else { ALL };
        let (theirs, told) = suites.map(|text| meant(text, ANSWER, instead)).unwrap_or_default();
        let rules = TlsRules { minimum, suites: theirs.or_else(|| self.suites.clone()) };
        (rules, told.filter(|_| minimum == TlsMinimum::V12))
    }

    /// What to tell where the certificate is the one that the agent made, whose key is of ECDSA.
    pub fn told_of_own_certificate(&self) -> Option<&'static str> {
        let for_ecdsa = [Suite::EcdsaAes256, Suite::EcdsaAes128, Suite::EcdsaChaCha20];
        let suites = self.suites.as_ref().filter(|_| self.minimum == TlsMinimum::V12)?;
        (!suites.iter().any(|suite| for_ecdsa.contains(suite))).then_some(
            "tls_cipher_suites names suites for RSA alone, and the agent's own certificate is of ECDSA: a controller that speaks \
             no TLS 1.3 cannot connect; name ECDHE-ECDSA-AES256-GCM-SHA384, too",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn with(words: &str) -> Config {
        parse(&format!("ipa-api-url=http://a {words}"), &[], &[]).unwrap()
    }

    fn rules(suites: Option<&[Suite]>) -> TlsRules {
        TlsRules { minimum: TlsMinimum::V12, suites: suites.map(<[Suite]>::to_vec) }
    }

    #[test]
    fn suites_keep_their_order_and_strangers_are_told() {
        let config = with(
            "ipa-tls-cipher-suites=ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA:ecdhe-ecdsa-aes256-gcm-sha384:!aNULL:ECDHE-RSA-AES128-GCM-SHA256",
        );
        assert_eq!(config.tls.suites, Some(vec![Suite::RsaAes128, Suite::EcdsaAes256]));
        assert_eq!(
            config.told,
            [
                "option tls_cipher_suites: what is no cipher suite of TLS 1.2 that is built in is left out: AES256-SHA, !aNULL"
            ]
        );
    }

    #[test]
    fn a_list_that_names_no_suite_leaves_all_and_is_told_where_tls_12_is_spoken() {
        for list in ["HIGH:!aNULL", "ECDHE+AESGCM"] {
            let config = with(&format!("ipa-tls-cipher-suites={list}"));
            let said = format!(
                "option tls_cipher_suites names no cipher suite of TLS 1.2 that is built in: {}; all that are built in are \
                 spoken, ECDHE with AES-GCM or ChaCha20-Poly1305",
                list.replace(':', ", ")
            );
            assert_eq!((config.tls, config.told), (rules(None), vec![said]));
            let config = with(&format!("ipa-tls-min-version=1.3 ipa-tls-cipher-suites={list}"));
            assert_eq!((config.tls, config.told), (TlsMinimum::V13.into(), vec![]));
        }
    }

    #[test]
    fn the_word_of_the_conductor_counts_where_it_means_something_and_is_told_where_not() {
        let (ours, all) = (rules(Some(&[Suite::RsaAes256])), rules(None));
        assert_eq!(ours.overruled(None, None), (ours.clone(), None));
        assert_eq!(ours.overruled(None, Some("")), (ours.clone(), None));
        let told = |instead| {
            Some(format!(
                "tls_cipher_suites of the controller's lookup answer names no cipher suite of TLS 1.2 that is built in: RC4; {instead}"
            ))
        };
        assert_eq!(ours.overruled(Some("1.1"), Some("RC4")), (ours.clone(), told(OURS)));
        assert_eq!(all.overruled(None, Some("RC4")), (all.clone(), told(ALL)));
        let mixed = "RC4:ECDHE-ECDSA-CHACHA20-POLY1305";
        let (theirs, told) = ours.overruled(None, Some(mixed));
        assert_eq!(theirs, rules(Some(&[Suite::EcdsaChaCha20])));
        assert!(told.is_some_and(|told| told.ends_with(" is left out: RC4")));
        let (theirs, told) = ours.overruled(Some("1.3"), Some(mixed));
        assert_eq!(
            (theirs.minimum, theirs.suites, told),
            (TlsMinimum::V13, Some(vec![Suite::EcdsaChaCha20]), None)
        );
    }

    #[test]
    fn of_a_long_list_few_names_are_said_and_without_control_characters() {
        let (_, told) = rules(None).overruled(None, Some("a\u{1b}b:2:3:4:5:6:7:8:9:10"));
        assert!(told.is_some_and(|told| told.contains(": ab, 2, 3, 4, 5, 6, 7, 8 and 2 more; ")));
    }

    #[test]
    fn suites_for_rsa_alone_are_told_with_a_certificate_of_our_own() {
        assert!(rules(Some(&[Suite::RsaAes256, Suite::RsaChaCha20])).told_of_own_certificate().is_some());
        assert_eq!(rules(Some(&[Suite::RsaAes256, Suite::EcdsaAes128])).told_of_own_certificate(), None);
        assert_eq!(rules(None).told_of_own_certificate(), None);
        let newer = TlsRules { minimum: TlsMinimum::V13, ..rules(Some(&[Suite::RsaAes256])) };
        assert_eq!(newer.told_of_own_certificate(), None);
    }
}
