//! What `driver_info` says about one BMC, checked once. Pure; keys and defaults are those of Ironic's `ipmi` driver.

use super::rakp::{Login, PASSWORD, Privilege, Secret, Suite, USER_NAME};
use crate::drivers::{DriverError, DriverInfo};
use serde_json::Value;

/// The port of IPMI over LAN.
pub const DEFAULT_PORT: u16 = 623;
/// What the API shows in place of a password. Sent back by a client, it must not become one.
const MASK: &str = "******";

/// One BMC, how to log in, and what it wants special.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: String,
    pub port: u16,
    pub login: Login,
    /// Suites in the order of trying; one only if the node names it.
    pub suites: Vec<Suite>,
    /// Send the request that lets boot flags live longer than 60 seconds.
    pub keep_boot_flags: bool,
}

/// Whether a BMC without a password may be used. Off by default: such a BMC is anybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyPassword {
    Refused,
    Allowed,
}

impl Target {
    /// Reads `driver_info`. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`DriverError::Config`] names the key and what it must be; never the password.
    pub fn parse(info: &DriverInfo, empty: EmptyPassword) -> Result<Self, DriverError> {
        refuse_unsupported(info)?;
        let address = text(info, "ipmi_address")?.unwrap_or_default().trim().to_string();
        if address.is_empty() {
            return Err(config("ipmi_address is missing: set it to the BMC's host name or IP address"));
        }
        // An IPv6 address may come in the brackets of a URL.
        let bare =
            address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(&address).to_string();
        if bare.len() > 253 || !bare.chars().all(|c| c.is_ascii_alphanumeric() || ".:-_%".contains(c)) {
            return Err(config(
                "ipmi_address is neither a host name nor an IP address (the port has its own key)",
            ));
        }
        Ok(Target {
            address: bare,
            port: port(info)?,
            login: Login {
                user: user(info)?,
                password: password(info, empty)?,
                bmc_key: bmc_key(info)?,
                privilege: privilege(info)?,
            },
            suites: suites(info)?,
            keep_boot_flags: flag(info, "ipmi_disable_boot_timeout")?.unwrap_or(true),
        })
    }
}

fn config(what: impl Into<String>) -> DriverError {
    DriverError::Config(what.into())
}

/// A value as text: a string, or a number written out. Null and absent are the same.
fn text(info: &DriverInfo, key: &'static str) -> Result<Option<String>, DriverError> {
    match info.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(Value::Number(n)) => Ok(Some(n.to_string())),
        Some(_) => Err(config(format!("{key} must be text"))),
    }
}

/// A setting that is left empty counts as not set, except where empty has a meaning.
fn set(info: &DriverInfo, key: &'static str) -> Result<Option<String>, DriverError> {
    Ok(text(info, key)?.map(|s| s.trim().to_string()).filter(|s| !s.is_empty()))
}

fn flag(info: &DriverInfo, key: &'static str) -> Result<Option<bool>, DriverError> {
    if let Some(Value::Bool(b)) = info.get(key) {
        return Ok(Some(*b));
    }
    match set(info, key)?.map(|s| s.to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(Some(true)),
        Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(Some(false)),
        Some(_) => Err(config(format!("{key} must be true or false"))),
    }
}

/// Settings that change who is talked to or how, and that we would silently not follow.
fn refuse_unsupported(info: &DriverInfo) -> Result<(), DriverError> {
    if set(info, "ipmi_protocol_version")?.is_some_and(|v| v != "2.0") {
        return Err(config(
            "ipmi_protocol_version must be 2.0: IPMI 1.5 sends passwords that can be read on the way",
        ));
    }
    if set(info, "ipmi_bridging")?.is_some_and(|v| v != "no") {
        return Err(config("ipmi_bridging must be 'no': requests over a second BMC are not supported"));
    }
    Ok(())
}

fn port(info: &DriverInfo) -> Result<u16, DriverError> {
    match set(info, "ipmi_port")? {
        None => Ok(DEFAULT_PORT),
        Some(s) => s.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            config(format!("ipmi_port is '{s}': it must be a number from 1 to 65535 (default 623)"))
        }),
    }
}

fn user(info: &DriverInfo) -> Result<String, DriverError> {
    let user = text(info, "ipmi_username")?.unwrap_or_default();
    if user.len() > USER_NAME {
        return Err(config(format!("ipmi_username is {} bytes long; IPMI allows {USER_NAME}", user.len())));
    }
    Ok(user)
}

fn password(info: &DriverInfo, empty: EmptyPassword) -> Result<Secret, DriverError> {
    let password = Secret::new(text(info, "ipmi_password")?.unwrap_or_default().into_bytes());
    let len = password.expose().len();
    if password.expose() == MASK.as_bytes() {
        return Err(config(
            "ipmi_password is '******', the mask that the API shows: set the real password again",
        ));
    }
    if len == 0 && empty == EmptyPassword::Refused {
        return Err(config(
            "ipmi_password is missing: a BMC without a password is anybody's; set one on the BMC and here",
        ));
    }
    if len > PASSWORD {
        return Err(config(format!("ipmi_password is {len} bytes long; IPMI 2.0 allows {PASSWORD}")));
    }
    Ok(password)
}

fn bmc_key(info: &DriverInfo) -> Result<Option<Secret>, DriverError> {
    let Some(hex) = set(info, "ipmi_hex_kg_key")? else { return Ok(None) };
    let wrong = || config("ipmi_hex_kg_key must be hexadecimal, two digits a byte, at most 20 bytes");
    let digits = hex.as_bytes();
    if digits.len() % 2 != 0 || digits.len() > 2 * PASSWORD {
        return Err(wrong());
    }
    let value = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |p: &[u8]| p.iter().try_fold(0u8, |sum, c| value(c).map(|d| sum << 4 | d));
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    let key = Secret::new(bytes.ok_or_else(wrong)?);
    // A key of zeros means "no key" to a BMC.
    Ok(Some(key).filter(|k| k.expose().iter().any(|b| *b != 0)))
}

fn privilege(info: &DriverInfo) -> Result<Privilege, DriverError> {
    match set(info, "ipmi_priv_level")?.map(|s| s.to_ascii_uppercase()).as_deref() {
        None | Some("ADMINISTRATOR") => Ok(Privilege::Administrator),
        Some("OPERATOR") => Ok(Privilege::Operator),
        Some("USER") => Ok(Privilege::User),
        Some("CALLBACK") => Ok(Privilege::Callback),
        Some(other) => Err(config(format!(
            "ipmi_priv_level is '{other}': it must be ADMINISTRATOR, OPERATOR, USER or CALLBACK"
        ))),
    }
}

fn suites(info: &DriverInfo) -> Result<Vec<Suite>, DriverError> {
    match set(info, "ipmi_cipher_suite")?.as_deref() {
        None => Ok(vec![Suite::Seventeen, Suite::Three]),
        Some("17") => Ok(vec![Suite::Seventeen]),
        Some("3") => Ok(vec![Suite::Three]),
        Some(other) => Err(config(format!(
            "ipmi_cipher_suite is '{other}': it must be 17 or 3, or left out to try both (suite 0 needs no password and is never used)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(extra: Value) -> Result<Target, String> {
        let mut info =
            json!({"ipmi_address": "10.0.0.9", "ipmi_username": "admin", "ipmi_password": "right"});
        for (key, value) in extra.as_object().unwrap() {
            info[key] = value.clone();
        }
        Target::parse(info.as_object().unwrap(), EmptyPassword::Refused).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_ironics_and_unknown_keys_are_ignored() {
        let target = parse(json!({"ipmi_verify_ca": "x", "redfish_address": 7})).unwrap();
        assert_eq!((target.address.as_str(), target.port), ("10.0.0.9", 623));
        assert_eq!(target.login.privilege, Privilege::Administrator);
        assert_eq!(target.suites, [Suite::Seventeen, Suite::Three]);
        assert!(target.keep_boot_flags);
    }

    #[test]
    fn a_port_may_be_a_number_or_text() {
        for (value, port) in
            [(json!(6230), 6230), (json!("6231"), 6231), (json!(null), 623), (json!(""), 623)]
        {
            assert_eq!(parse(json!({"ipmi_port": value})).unwrap().port, port);
        }
        for value in [json!(0), json!("70000"), json!("six"), json!(-1), json!(1.5), json!([1])] {
            assert!(parse(json!({"ipmi_port": value})).unwrap_err().contains("ipmi_port"), "{value}");
        }
    }

    #[test]
    fn each_wrong_value_is_named() {
        for (extra, words) in [
            (json!({"ipmi_address": ""}), "ipmi_address is missing"),
            (json!({"ipmi_address": "10.0.0.1:623 ; rm"}), "neither a host name nor"),
            (json!({"ipmi_password": ""}), "ipmi_password is missing"),
            (json!({"ipmi_password": "******"}), "the mask that the API shows"),
            (json!({"ipmi_password": "123456789012345678901"}), "21 bytes long; IPMI 2.0 allows 20"),
            (json!({"ipmi_username": "12345678901234567"}), "17 bytes long; IPMI allows 16"),
            (json!({"ipmi_cipher_suite": 0}), "must be 17 or 3"),
            (json!({"ipmi_cipher_suite": "1"}), "must be 17 or 3"),
            (json!({"ipmi_protocol_version": "1.5"}), "must be 2.0"),
            (json!({"ipmi_bridging": "single"}), "must be 'no'"),
            (json!({"ipmi_priv_level": "ROOT"}), "must be ADMINISTRATOR"),
            (json!({"ipmi_hex_kg_key": "abc"}), "two digits a byte"),
            (json!({"ipmi_hex_kg_key": "zz"}), "two digits a byte"),
        ] {
            let said = parse(extra.clone()).unwrap_err();
            assert!(said.contains(words), "{extra}: {said}");
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let target =
            parse(json!({"ipmi_cipher_suite": "3", "ipmi_priv_level": "operator", "ipmi_hex_kg_key": "0aFf",
            "ipmi_disable_boot_timeout": "False", "ipmi_address": "[fd00::7]"}))
            .unwrap();
        assert_eq!(target.suites, [Suite::Three]);
        assert_eq!(target.login.privilege, Privilege::Operator);
        assert_eq!(target.login.bmc_key.as_ref().unwrap().expose(), [0x0A, 0xFF]);
        assert!(!target.keep_boot_flags);
        assert_eq!(target.address, "fd00::7");
        assert!(!format!("{target:?}").contains("right"));
    }

    #[test]
    fn an_empty_password_needs_the_setting() {
        let info = json!({"ipmi_address": "10.0.0.9"});
        assert!(Target::parse(info.as_object().unwrap(), EmptyPassword::Allowed).is_ok());
        assert!(Target::parse(info.as_object().unwrap(), EmptyPassword::Refused).is_err());
    }
}
