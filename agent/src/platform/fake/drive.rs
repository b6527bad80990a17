//! Drives that exist in memory: an ATA drive with the security states of ACS-4, 4.18.11, and an NVMe drive that answers as told.

use crate::platform::drive::{ATA_BLOCK, Ata, NVME_IDENTIFY, NVME_SANITIZE_LOG, Nvme, Security};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Called when the drive erases itself.
pub type Wipe = Arc<dyn Fn() + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the ATA drive is and does.
#[derive(Clone, Debug)]
pub struct AtaDrive {
    pub supported: bool,
    pub enhanced: bool,
    pub locked: bool,
    pub frozen: bool,
    /// None: security is not enabled.
    pub password: Option<[u8; 32]>,
    /// Wrong passwords that it still takes.
    pub tries: u8,
    pub enhanced_fails: bool,
    pub normal_fails: bool,
    pub refuses_password: bool,
    /// Takes the erase command and does nothing.
    pub pretends: bool,
    /// Does not answer IDENTIFY DEVICE: a disk that is no ATA drive.
    pub mute: bool,
    prepared: bool,
    erased: usize,
    commands: Vec<&'static str>,
}

/// An ATA drive.
#[derive(Clone)]
pub struct FakeAta {
    drive: Arc<Mutex<AtaDrive>>,
    wipe: Wipe,
}

/// The security state as one looks at it in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub enabled: bool,
    pub locked: bool,
}

impl Default for FakeAta {
    fn default() -> FakeAta {
        FakeAta::new()
    }
}

impl FakeAta {
    pub fn new() -> FakeAta {
        FakeAta::wiping(Arc::new(|| {}))
    }

    /// A drive that calls `wipe` when it erases itself.
    pub fn wiping(wipe: Wipe) -> FakeAta {
        let drive = AtaDrive {
            supported: true,
            enhanced: true,
            locked: false,
            frozen: false,
            password: None,
            tries: 5,
            enhanced_fails: false,
            normal_fails: false,
            refuses_password: false,
            pretends: false,
            mute: false,
            prepared: false,
            erased: 0,
            commands: Vec::new(),
        };
        FakeAta { drive: Arc::new(Mutex::new(drive)), wipe }
    }

    pub fn change(&self, change: impl FnOnce(&mut AtaDrive)) {
        change(&mut lock(&self.drive));
    }

    /// As after a power cycle with a password set.
    pub fn lock(&self, password: &[u8]) {
        let mut padded = [0; 32];
        for (place, byte) in padded.iter_mut().zip(password) {
            *place = *byte;
        }
        self.change(|drive| (drive.password, drive.locked) = (Some(padded), true));
    }

    pub fn power_cycle(&self) {
        self.change(|d| (d.locked, d.frozen, d.tries, d.prepared) = (d.password.is_some(), false, 5, false));
    }

    pub fn state(&self) -> Seen {
        let drive = lock(&self.drive);
        Seen { enabled: drive.password.is_some(), locked: drive.locked }
    }

    pub fn erased(&self) -> usize {
        lock(&self.drive).erased
    }

    /// Security commands so far.
    pub fn commands(&self) -> Vec<&'static str> {
        lock(&self.drive).commands.clone()
    }
}

impl AtaDrive {
    fn take(&mut self, command: Security, data: Option<&[u8; ATA_BLOCK]>) -> Result<bool, ()> {
        let prepared = std::mem::take(&mut self.prepared);
        let given: Option<[u8; 32]> = data.and_then(|block| block.get(2..34)?.try_into().ok());
        let enhanced = data.and_then(|block| block.first()).is_some_and(|first| first & 2 != 0);
        if !self.supported || self.frozen {
            return Err(());
        }
        match command {
            Security::SetPassword if !self.locked && !self.refuses_password => self.password = given,
            Security::Unlock if self.tries > 0 && self.password.is_some() => {
                if given != self.password {
                    self.tries -= 1;
                    return Err(());
                }
                self.locked = false;
            }
            Security::ErasePrepare => self.prepared = true,
            Security::EraseUnit
                if prepared && self.tries > 0 && given == self.password && given.is_some() =>
            {
                if enhanced && (self.enhanced_fails || !self.enhanced) || !enhanced && self.normal_fails {
                    return Err(());
                }
                if !self.pretends {
                    (self.password, self.locked) = (None, false);
                    self.erased += 1;
                    return Ok(true);
                }
            }
            Security::DisablePassword if !self.locked && given == self.password => self.password = None,
            _ => return Err(()),
        }
        Ok(false)
    }
}

impl Ata for FakeAta {
    fn identify(&self) -> io::Result<[u8; ATA_BLOCK]> {
        let drive = lock(&self.drive);
        if drive.mute {
            return Err(io::Error::other("the adapter refused the command"));
        }
        let mut block = [0; ATA_BLOCK];
        let mut put = |word: usize, value: u16| {
            if let Some(place) = block.get_mut(word * 2..word * 2 + 2) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        };
        let bits = [
            drive.supported,
            drive.password.is_some(),
            drive.locked,
            drive.frozen,
            drive.tries == 0,
            drive.enhanced,
        ];
        let status = bits.iter().enumerate().map(|(bit, set)| u16::from(*set) << bit).sum();
        put(82, if drive.supported { 2 } else { 0 });
        put(89, 1);
        put(128, status);
        Ok(block)
    }

    fn security(
        &self,
        command: Security,
        data: Option<&[u8; ATA_BLOCK]>,
        _patience: Duration,
    ) -> io::Result<()> {
        let mut drive = lock(&self.drive);
        drive.commands.push(match command {
            Security::SetPassword => "SetPassword",
            Security::Unlock => "Unlock",
            Security::ErasePrepare => "ErasePrepare",
            Security::EraseUnit => "EraseUnit",
            Security::DisablePassword => "DisablePassword",
        });
        let taken = drive.take(command, data);
        drop(drive);
        match taken {
            Ok(erases) => {
                if erases {
                    (self.wipe)();
                }
                Ok(())
            }
            Err(()) => Err(io::Error::other("the drive refused the command")),
        }
    }
}

/// An NVMe drive with one namespace.
#[derive(Clone)]
pub struct FakeNvme {
    state: Arc<Mutex<NvmeState>>,
    wipe: Wipe,
}

#[derive(Clone, Debug, Default)]
struct NvmeState {
    controller: Vec<u8>,
    /// Progress and status of each look at the log, the last one again and again.
    log: Vec<(u16, u16)>,
    format_fails: bool,
    orders: Vec<String>,
}

impl Default for FakeNvme {
    fn default() -> FakeNvme {
        FakeNvme::new()
    }
}

impl FakeNvme {
    /// Offers Format NVM, without a cryptographic erase.
    pub fn new() -> FakeNvme {
        FakeNvme::wiping(Arc::new(|| {}))
    }

    pub fn wiping(wipe: Wipe) -> FakeNvme {
        let mut controller = vec![0; NVME_IDENTIFY];
        if let Some(oacs) = controller.get_mut(256) {
            *oacs = 2;
        }
        FakeNvme { state: Arc::new(Mutex::new(NvmeState { controller, ..NvmeState::default() })), wipe }
    }

    /// Sets a byte of what the controller says of itself.
    #[must_use]
    pub fn saying(self, at: usize, byte: u8) -> FakeNvme {
        if let Some(place) = lock(&self.state).controller.get_mut(at) {
            *place = byte;
        }
        self
    }

    #[must_use]
    pub fn sanitizing(self, log: &[(u16, u16)]) -> FakeNvme {
        lock(&self.state).log = log.to_vec();
        self
    }

    #[must_use]
    pub fn failing(self) -> FakeNvme {
        lock(&self.state).format_fails = true;
        self
    }

    /// What was asked so far, with command dword 10.
    pub fn orders(&self) -> Vec<String> {
        lock(&self.state).orders.clone()
    }
}

impl Nvme for FakeNvme {
    fn identify_controller(&self) -> io::Result<Vec<u8>> {
        Ok(lock(&self.state).controller.clone())
    }
    fn identify_namespace(&self) -> io::Result<Vec<u8>> {
        Ok(vec![0; NVME_IDENTIFY])
    }
    fn format(&self, settings: u32) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.orders.push(format!("format {settings:#x}"));
        if state.format_fails {
            return Err(io::Error::other("the drive answered with NVMe status 0x10a (invalid format)"));
        }
        drop(state);
        (self.wipe)();
        Ok(())
    }
    fn sanitize(&self, action: u32) -> io::Result<()> {
        lock(&self.state).orders.push(format!("sanitize {action:#x}"));
        (self.wipe)();
        Ok(())
    }
    fn sanitize_log(&self) -> io::Result<Vec<u8>> {
        let mut state = lock(&self.state);
        let (progress, status) = match state.log.len() {
            0 => (u16::MAX, 1),
            1 => state.log.first().copied().unwrap_or_default(),
            _ => state.log.remove(0),
        };
        let mut bytes = vec![0; NVME_SANITIZE_LOG];
        if let Some(place) = bytes.get_mut(..4) {
            place.copy_from_slice(&[progress.to_le_bytes(), status.to_le_bytes()].concat());
        }
        Ok(bytes)
    }
}
