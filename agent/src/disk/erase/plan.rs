//! Which ways of erasing a disk are tried, in which order. Pure: what the drive says of itself and the conductor's wishes
//! in, a list out.

use super::ata::AtaState;
use super::nvme::Abilities;
use super::settings::Settings;
use std::fmt;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    NvmeFormat(Format),
    NvmeSanitize(Sanitize),
    /// ATA security erase; enhanced first where the drive has it.
    Ata,
    Discard,
    Overwrite,
}

/// Secure Erase Settings of Format NVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    UserData,
    Crypto,
}

/// Sanitize actions, in the order in which they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanitize {
    Block,
    Crypto,
    Overwrite,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::NvmeFormat(Format::UserData) => "NVMe format (user data erase)",
            Method::NvmeFormat(Format::Crypto) => "NVMe format (cryptographic erase)",
            Method::NvmeSanitize(Sanitize::Block) => "NVMe sanitize (block erase)",
            Method::NvmeSanitize(Sanitize::Crypto) => "NVMe sanitize (cryptographic erase)",
            Method::NvmeSanitize(Sanitize::Overwrite) => "NVMe sanitize (overwrite)",
            Method::Ata => "ATA security erase",
            Method::Discard => "discard",
            Method::Overwrite => "overwriting",
        })
    }
}

/// What kind of disk it is, as far as erasing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the controller says that it can do, or why it does not say so; whether another namespace of it must stay as it is.
    Nvme {
        abilities: Result<Abilities, String>,
        neighbours_stay: bool,
    },
    Ata(AtaState),
    /// Virtual disks, arrays, SAS disks, memory cards: no erase command of their own that we know.
    Plain,
}

/// The ways, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// By the drive's own command.
    pub secure: Vec<Method>,
    /// Why there is none although the drive ought to have one.
    pub lacks: Option<String>,
    /// Tried after all of `secure` failed.
    pub fallbacks: Vec<Method>,
}

impl Plan {
    /// Whether there is no way at all.
    pub fn is_empty(&self) -> bool {
        self.secure.is_empty() && self.fallbacks.is_empty()
    }
}

/// Decides.
pub fn plan(kind: &Kind, settings: &Settings) -> Plan {
    match kind {
        Kind::Nvme { abilities, neighbours_stay } if settings.nvme => {
            let (secure, lacks) = match abilities {
                Ok(abilities) => nvme(*abilities, *neighbours_stay),
                Err(why) => (Vec::new(), Some(why.clone())),
            };
            Plan { secure, lacks, fallbacks: fallbacks(settings) }
        }
        // A drive without the feature set is overwritten, as upstream does: it promises nothing that could fail.
        Kind::Ata(state) if settings.ata && state.supported => {
            Plan { secure: vec![Method::Ata], lacks: None, fallbacks: fallbacks(settings) }
        }
        _ => Plan { secure: Vec::new(), lacks: None, fallbacks: vec![Method::Overwrite] },
    }
}

fn fallbacks(settings: &Settings) -> Vec<Method> {
    let wanted = [
        (settings.discard_after_failure, Method::Discard),
        (settings.overwrite_after_failure, Method::Overwrite),
    ];
    wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, method)| method).collect()
}

fn nvme(abilities: Abilities, neighbours_stay: bool) -> (Vec<Method>, Option<String>) {
    let mut ways = Vec::new();
    if abilities.format && !(neighbours_stay && abilities.format_takes_all) {
        if abilities.crypto_format {
            ways.push(Method::NvmeFormat(Format::Crypto));
        }
        ways.push(Method::NvmeFormat(Format::UserData));
    }
    if !neighbours_stay {
        let actions = [
            (abilities.sanitize_block, Sanitize::Block),
            (abilities.sanitize_crypto, Sanitize::Crypto),
            (abilities.sanitize_overwrite, Sanitize::Overwrite),
        ];
        ways.extend(
            actions.into_iter().filter(|(has, _)| *has).map(|(_, action)| Method::NvmeSanitize(action)),
        );
    }
    let lacks = match ways.is_empty() {
        false => None,
        true if abilities.format || abilities.sanitizes() => Some(
            "its erase commands take all namespaces of the drive, and one of them is to be left alone"
                .to_owned(),
        ),
        true => Some("the drive offers neither Format NVM nor Sanitize".to_owned()),
    };
    (ways, lacks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: serde_json::Value) -> Settings {
        Settings::read(value.as_object().unwrap())
    }

    /// The ways as words, those after `|` being fallbacks, and what is lacking.
    fn check(kind: &Kind, wishes: serde_json::Value, expected: &str) {
        let plan = plan(kind, &settings(wishes));
        let words = |ways: &[Method]| ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let lacks = plan.lacks.as_deref().map(|why| format!(" !{why}")).unwrap_or_default();
        assert_eq!(format!("{} | {}{lacks}", words(&plan.secure), words(&plan.fallbacks)), expected);
    }

    fn nvme(abilities: Abilities, neighbours_stay: bool) -> Kind {
        Kind::Nvme { abilities: Ok(abilities), neighbours_stay }
    }

    #[test]
    fn a_drive_that_does_not_say_what_it_can_falls_back_as_one_that_can_nothing() {
        let mute = Kind::Nvme { abilities: Err("no answer".into()), neighbours_stay: false };
        check(&mute, json!({}), " |  !no answer");
        let wishes =
            json!({"agent_continue_if_secure_erase_failed": true, "agent_enable_discard_erase": true});
        check(&mute, wishes, " | discard, overwriting !no answer");
        check(&mute, json!({"agent_enable_nvme_secure_erase": false}), " | overwriting");
    }

    #[test]
    fn an_nvme_drive_forgets_its_key_before_it_erases_blocks() {
        let none = Abilities::default();
        let format = Abilities { format: true, ..none };
        let crypto = Abilities { crypto_format: true, ..format };
        check(&nvme(format, false), json!({}), "NVMe format (user data erase) | ");
        check(
            &nvme(crypto, false),
            json!({}),
            "NVMe format (cryptographic erase), NVMe format (user data erase) | ",
        );
        let sanitizes = Abilities { sanitize_block: true, sanitize_overwrite: true, ..none };
        check(
            &nvme(sanitizes, false),
            json!({}),
            "NVMe sanitize (block erase), NVMe sanitize (overwrite) | ",
        );
        check(&nvme(none, false), json!({}), " |  !the drive offers neither Format NVM nor Sanitize");
        check(&nvme(format, false), json!({"agent_enable_nvme_secure_erase": false}), " | overwriting");
    }

    #[test]
    fn a_namespace_that_must_stay_is_never_taken_along() {
        let all =
            Abilities { format: true, format_takes_all: true, sanitize_block: true, ..Abilities::default() };
        check(
            &nvme(all, true),
            json!({"agent_continue_if_secure_erase_failed": true}),
            " | overwriting !its erase commands take all namespaces of the drive, and one of them is to be left alone",
        );
        let one = Abilities { format_takes_all: false, ..all };
        check(&nvme(one, true), json!({}), "NVMe format (user data erase) | ");
    }

    #[test]
    fn fallbacks_are_the_operators_choice() {
        let ata = Kind::Ata(AtaState { supported: true, ..AtaState::default() });
        check(&ata, json!({}), "ATA security erase | ");
        check(
            &ata,
            json!({"agent_continue_if_secure_erase_failed": true, "agent_enable_discard_erase": true}),
            "ATA security erase | discard, overwriting",
        );
        check(&ata, json!({"agent_enable_ata_secure_erase": false}), " | overwriting");
        check(&Kind::Ata(AtaState::default()), json!({}), " | overwriting");
        check(&Kind::Plain, json!({"agent_enable_discard_erase": true}), " | overwriting");
    }
}
