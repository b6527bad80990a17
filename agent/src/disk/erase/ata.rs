//! Erasing by the ATA security feature set: the walk through its states. Specification: ACS-4, 4.18 (states SEC0 to SEC6)
//! and 7.13 (IDENTIFY DEVICE).
//!
//! A drive must never be left locked: after a failure the password is taken off again, and a drive that a power cut left
//! locked by an earlier try is opened with the passwords that such a try sets.

use crate::platform::drive::{ATA_BLOCK, Ata, Security};
use std::io;
use std::time::Duration;

/// What the drive says in words 82, 89, 90 and 128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtaState {
    pub supported: bool,
    pub enabled: bool,
    pub locked: bool,
    pub frozen: bool,
    /// Too many wrong passwords: nothing is tried before the next power cycle.
    pub expired: bool,
    pub enhanced: bool,
    /// How long the drive says that the erase takes; none: it does not say.
    pub normal_time: Option<Duration>,
    pub enhanced_time: Option<Duration>,
}

impl AtaState {
    pub fn parse(identify: &[u8; ATA_BLOCK]) -> AtaState {
        let word = |number: usize| {
            let pair = identify.as_chunks::<2>().0.get(number);
            pair.map_or(0, |pair| u16::from_le_bytes(*pair))
        };
        let status = word(128);
        let has = |bit: u16| status & (1 << bit) != 0;
        AtaState {
            supported: has(0) && word(82) & 2 != 0,
            enabled: has(1),
            locked: has(2),
            frozen: has(3),
            expired: has(4),
            enhanced: has(5),
            normal_time: time(word(89)),
            enhanced_time: time(word(90)),
        }
    }
}

/// Units of two minutes, in 8 bits or, if bit 15 is set, in 15; the largest value stands for "longer".
fn time(word: u16) -> Option<Duration> {
    let (units, most) = if word & 0x8000 == 0 { (word & 0xff, 0xff) } else { (word & 0x7fff, 0x7fff) };
    (units != 0 && units != most).then(|| Duration::from_secs(u64::from(units) * 120))
}

/// Why a drive was not erased. Texts with "Block device" are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum AtaError {
    #[error(
        "Block device {0} is frozen and cannot be erased: its firmware locked the security commands at power-on. A power \
         cycle of the drive alone, or a setup option of the machine, lifts that"
    )]
    Frozen(String),
    #[error(
        "Block device {0} already has a security password set, and it is not one that an erase leaves behind; whoever set \
         it must take it off"
    )]
    Locked(String),
    #[error(
        "Block device {0} takes no more passwords: too many wrong ones were tried. It needs a power cycle first"
    )]
    Expired(String),
    #[error("{action} {device}")]
    Command {
        action: &'static str,
        device: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "An unknown error occurred erasing block device {0}: it took the erase command, but its security is still on"
    )]
    StillEnabled(String),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtaErase {
    Normal,
    Enhanced,
}

/// Passwords that an interrupted erase leaves behind: zeros (ours, and `NULL` of hdparm since 9.51), and the text that
/// older versions took it for.
const LEFT_BEHIND: [&[u8]; 2] = [b"", b"NULL"];
/// Every command but the erase.
const PATIENCE: Duration = Duration::from_secs(60);
/// For drives that do not say how long they take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Beyond twice what the drive says.
const MARGIN: Duration = Duration::from_secs(1800);

/// The block of a command with a password: the user's, not the master's; security level high.
fn block(password: &[u8], enhanced: bool) -> [u8; ATA_BLOCK] {
    let mut block = [0; ATA_BLOCK];
    block[0] = if enhanced { 2 } else { 0 };
    for (place, byte) in block.iter_mut().skip(2).take(32).zip(password) {
        *place = *byte;
    }
    block
}

/// A drive with its name, for the words of errors.
struct Walk<'a> {
    device: &'a str,
    drive: &'a dyn Ata,
}

impl Walk<'_> {
    fn name(&self) -> String {
        self.device.to_owned()
    }

    fn command(
        &self,
        action: &'static str,
        command: Security,
        data: Option<&[u8; ATA_BLOCK]>,
        patience: Duration,
    ) -> Result<(), AtaError> {
        self.drive.security(command, data, patience).map_err(|source| AtaError::Command {
            action,
            device: self.name(),
            source,
        })
    }

    fn state(&self) -> Result<AtaState, AtaError> {
        let block = self.drive.identify().map_err(|source| AtaError::Command {
            action: "asking the state of",
            device: self.name(),
            source,
        })?;
        Ok(AtaState::parse(&block))
    }

    /// Opens a locked drive. The state then, and the password that is set if it was found.
    fn unlock(&self, state: AtaState) -> Result<(AtaState, &'static [u8]), AtaError> {
        if !state.locked {
            return Ok((state, LEFT_BEHIND[0]));
        }
        for password in LEFT_BEHIND {
            if self.state()?.expired {
                return Err(AtaError::Expired(self.name()));
            }
            let tried = self.command("unlocking", Security::Unlock, Some(&block(password, false)), PATIENCE);
            let state = self.state()?;
            if !state.locked {
                return Ok((state, password));
            }
            if let Err(error) = tried {
                tracing::info!("{}", super::chain(&error));
            }
        }
        Err(AtaError::Locked(self.name()))
    }

    fn erase(&self, password: &[u8], state: AtaState, how: AtaErase) -> Result<(), AtaError> {
        let said = match how {
            AtaErase::Enhanced => state.enhanced_time.or(state.normal_time),
            AtaErase::Normal => state.normal_time,
        };
        let patience = said.map_or(LONGEST, |said| said * 2 + MARGIN);
        self.command("preparing the erase of", Security::ErasePrepare, None, PATIENCE)?;
        let block = block(password, how == AtaErase::Enhanced);
        self.command("erasing", Security::EraseUnit, Some(&block), patience)?;
        match self.state()?.enabled {
            true => Err(AtaError::StillEnabled(self.name())),
            false => Ok(()),
        }
    }

    /// After a failed erase: the drive must not stay locked, or become so at the next power cycle.
    fn take_password_off(&self, password: &[u8]) {
        let undo = || {
            let state = self.state()?;
            if state.locked {
                self.command("unlocking", Security::Unlock, Some(&block(password, false)), PATIENCE)?;
            }
            if state.enabled {
                let block = block(password, false);
                self.command("taking the password off", Security::DisablePassword, Some(&block), PATIENCE)?;
            }
            Ok::<(), AtaError>(())
        };
        if let Err(error) = undo() {
            tracing::error!("{} may stay locked: {}", self.device, super::chain(&error));
        }
    }
}

/// Opens a drive that an interrupted erase left locked; nothing for others. Needed before anything can be read from it.
///
/// # Errors
/// [`AtaError`]: locked by somebody else, frozen while locked, or it does not answer.
pub fn open(device: &str, drive: &dyn Ata) -> Result<(), AtaError> {
    let walk = Walk { device, drive };
    let state = walk.state()?;
    match (state.supported && state.locked, state.frozen) {
        (false, _) => Ok(()),
        (true, true) => Err(AtaError::Frozen(walk.name())),
        (true, false) => walk.unlock(state).map(drop),
    }
}

/// Erases a drive that has the feature set: enhanced where it can, else (or if that fails) normal.
///
/// # Errors
/// [`AtaError`]. The drive is as usable as before then, unless it refuses that too (the log says so).
pub fn erase(device: &str, drive: &dyn Ata) -> Result<AtaErase, AtaError> {
    let walk = Walk { device, drive };
    let state = walk.state()?;
    if state.frozen {
        return Err(AtaError::Frozen(walk.name()));
    }
    let (state, password) = walk.unlock(state)?;
    if state.expired {
        return Err(AtaError::Expired(walk.name()));
    }
    if !state.enabled {
        walk.command(
            "setting a password on",
            Security::SetPassword,
            Some(&block(password, false)),
            PATIENCE,
        )?;
    }
    let ways: &[AtaErase] =
        if state.enhanced { &[AtaErase::Enhanced, AtaErase::Normal] } else { &[AtaErase::Normal] };
    let mut failure = AtaError::StillEnabled(walk.name());
    for how in ways {
        match walk.erase(password, state, *how) {
            Ok(()) => return Ok(*how),
            Err(error) => {
                tracing::warn!("{how:?} erase: {}", super::chain(&error));
                failure = error;
            }
        }
    }
    walk.take_password_off(password);
    Err(failure)
}

#[cfg(test)]
mod tests;
