//! What went wrong in a talk with a BMC, in words for the operator. Pure.
//!
//! The stage decides the words: no answer, session refused, wrong password, privilege. No secret gets in here.

use super::packet::Refusal;
use super::rakp::{self, SetupError, Suite};
use super::target::{DEFAULT_PORT, Target};
use crate::drivers::DriverError;
use std::io;
use std::time::Duration;

/// Name of the first stage of a login.
pub const OPEN: &str = "Open Session";

/// Why a question has no answer.
pub enum LinkError {
    Silent(Silence),
    Refused(SetupError),
    Local(String),
}

/// How long was waited for what, and what was noticed meanwhile.
pub struct Silence {
    pub stage: &'static str,
    pub tries: u32,
    pub waited: Duration,
    /// The host says that nothing listens on the port.
    pub port_closed: bool,
    /// What the network says otherwise.
    pub unreachable: Option<String>,
    /// Why the last datagram that came was not taken.
    pub dropped: Option<Refusal>,
}

impl Silence {
    pub fn at(stage: &'static str) -> Silence {
        let waited = Duration::ZERO;
        Silence { stage, tries: 0, waited, port_closed: false, unreachable: None, dropped: None }
    }

    pub fn note(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => self.port_closed = true,
            _ => self.unreachable = Some(error.to_string()),
        }
    }
}

/// Where in the talk something went wrong; it decides the words.
pub enum Stage {
    First,
    Login { stage: &'static str, suite: Suite, more: bool, key_set: bool },
    InSession(&'static str),
}

impl Target {
    pub fn explain(&self, error: LinkError, stage: Stage) -> DriverError {
        match error {
            LinkError::Local(what) => local(self, what),
            LinkError::Silent(silence) => self.explain_silence(silence, &stage),
            LinkError::Refused(error) => self.explain_refusal(error, &stage),
        }
    }

    fn explain_silence(&self, silence: Silence, stage: &Stage) -> DriverError {
        if let Some(refusal) = silence.dropped
            && !matches!(refusal, Refusal::NotAsked | Refusal::Duplicate | Refusal::OtherSession)
        {
            return protocol(
                self,
                format!("waiting for the answer to '{}' only {refusal} came", silence.stage),
            );
        }
        let mut hint = String::new();
        if self.port != DEFAULT_PORT {
            hint.push_str(&format!("; ipmi_port is set to {}, BMCs listen on {DEFAULT_PORT}", self.port));
        }
        if silence.port_closed {
            hint.push_str("; the host is there but says that nothing listens on this port");
        }
        if let Some(error) = silence.unreachable {
            hint.push_str(&format!("; the network says: {error}"));
        }
        match stage {
            Stage::First => hint.push_str("; check ipmi_address, the network to it, and that IPMI over LAN is enabled"),
            Stage::Login { stage, suite: Suite::Seventeen, more, .. } if *stage == OPEN && *more => hint.push_str(
                "; it answered before and fell silent when offered cipher suite 17: set ipmi_cipher_suite to 3",
            ),
            Stage::Login { stage, .. } | Stage::InSession(stage) => {
                hint.push_str(&format!("; it answered before and fell silent at '{stage}'"));
            }
        }
        DriverError::NoAnswer {
            address: self.address.clone(),
            port: self.port,
            tries: silence.tries,
            waited: Duration::from_millis(u64::try_from(silence.waited.as_millis()).unwrap_or(u64::MAX)),
            hint,
        }
    }

    fn explain_refusal(&self, error: SetupError, stage: &Stage) -> DriverError {
        let key_set = matches!(stage, Stage::Login { key_set: true, .. });
        match error {
            SetupError::Password => self.wrong_password("; the password here and the one on the BMC differ"),
            SetupError::BmcKey if key_set && self.login.bmc_key.is_none() => self.wrong_password(
                "; the password is right, but the BMC also wants its own key: set ipmi_hex_kg_key",
            ),
            SetupError::BmcKey => {
                self.wrong_password("; the password is right, but the BMC's key (ipmi_hex_kg_key) differs")
            }
            SetupError::Status(0x0D | 0x0C) => self.wrong_password(
                "; it does not know this user, or the user may not log in over LAN with this privilege",
            ),
            SetupError::Status(0x0F) => self.wrong_password("; it says: invalid integrity check value"),
            SetupError::Status(status @ (0x09 | 0x0A)) => no_privilege(self, rakp::status_text(status)),
            SetupError::Status(status) => {
                let at = match stage {
                    Stage::Login { stage, .. } => stage,
                    _ => OPEN,
                };
                let said = rakp::status_text(status);
                session_refused(self, &format!("'{at}' was answered with status {status:#04x} ({said})"))
            }
            SetupError::Downgrade([auth, integrity, secrecy]) => session_refused(
                self,
                &format!(
                    "it answered with algorithms that were not offered (authentication {auth}, integrity {integrity}, encryption {secrecy})"
                ),
            ),
            SetupError::Ignored(refusal) => protocol(self, refusal.to_string()),
        }
    }

    fn wrong_password(&self, detail: &str) -> DriverError {
        let (address, user) = (self.address.clone(), self.login.user.clone());
        DriverError::Credentials { address, user, detail: detail.into() }
    }
}

pub fn no_privilege(target: &Target, reason: &str) -> DriverError {
    DriverError::Privilege {
        address: target.address.clone(),
        user: target.login.user.clone(),
        privilege: target.login.privilege.name().into(),
        reason: format!(
            "{reason}; raise the user's right on the BMC, or set ipmi_priv_level (power needs OPERATOR)"
        ),
    }
}

pub fn session_refused(target: &Target, reason: &str) -> DriverError {
    DriverError::SessionRefused { address: target.address.clone(), reason: reason.into() }
}

pub fn protocol(target: &Target, what: String) -> DriverError {
    DriverError::Protocol { address: target.address.clone(), what }
}

pub fn local(target: &Target, what: impl Into<String>) -> DriverError {
    DriverError::Local { address: target.address.clone(), what: what.into() }
}
