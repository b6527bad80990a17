//! ATA commands through the kernel's SCSI layer: SG_IO with ATA PASS-THROUGH (16) (SAT-4, 12.2.2), as it works behind AHCI
//! and behind SAS adapters.
#![allow(unsafe_code)]

use crate::platform::drive::{ATA_BLOCK, Ata, Security};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const IDENTIFY_DEVICE: u8 = 0xec;
const SENSE: usize = 64;

/// `struct sg_io_hdr` (scsi/sg.h).
#[repr(C)]
pub struct SgHeader {
    interface: libc::c_int,
    direction: libc::c_int,
    command_length: u8,
    sense_length: u8,
    vectors: u16,
    data_length: u32,
    data: *mut libc::c_void,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack: libc::c_int,
    user: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residual: libc::c_int,
    duration_ms: u32,
    info: u32,
}

// scsi/sg.h: #define SG_IO 0x2285
nix::ioctl_readwrite_bad!(sg_io, 0x2285, SgHeader);

const NONE: libc::c_int = -1;
const TO_DRIVE: libc::c_int = -2;
const FROM_DRIVE: libc::c_int = -3;

/// Which way the data of a command goes.
enum Data<'a> {
    None,
    In(&'a mut [u8; ATA_BLOCK]),
    Out(&'a [u8; ATA_BLOCK]),
}

/// An open disk.
pub struct LinuxAta {
    file: File,
}

impl LinuxAta {
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<LinuxAta> {
        Ok(LinuxAta { file: File::open(path)? })
    }

    fn send(&self, code: u8, data: Data<'_>, patience: Duration) -> io::Result<()> {
        let command = command(code, &data);
        let mut sense = [0u8; SENSE];
        let (direction, pointer, length) = match data {
            Data::None => (NONE, std::ptr::null_mut(), 0),
            Data::In(block) => (FROM_DRIVE, block.as_mut_ptr().cast(), ATA_BLOCK as u32),
            // The kernel only reads from it.
            Data::Out(block) => (TO_DRIVE, block.as_ptr().cast_mut().cast(), ATA_BLOCK as u32),
        };
        let mut header = SgHeader {
            interface: libc::c_int::from(b'S'),
            direction,
            command_length: command.len() as u8,
            sense_length: SENSE as u8,
            vectors: 0,
            data_length: length,
            data: pointer,
            command: command.as_ptr(),
            sense: sense.as_mut_ptr(),
            timeout_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            flags: 0,
            pack: 0,
            user: std::ptr::null_mut(),
            status: 0,
            masked_status: 0,
            message_status: 0,
            sense_written: 0,
            host_status: 0,
            driver_status: 0,
            residual: 0,
            duration_ms: 0,
            info: 0,
        };
        // SAFETY: the header is laid out as the kernel's struct; command, sense and data live until the call returns and are as
        // long as the header says; data is written by the kernel only in the direction from the drive, where it is borrowed mutably.
        unsafe { sg_io(self.file.as_raw_fd(), &mut header) }?;
        let written = usize::from(header.sense_written).min(SENSE);
        outcome(
            header.status,
            header.host_status,
            header.driver_status,
            sense.get(..written).unwrap_or_default(),
        )
    }
}

/// The 16 bytes: protocol, where the length stands, and the command's code. Asks for the drive's registers in any case.
fn command(code: u8, data: &Data<'_>) -> [u8; 16] {
    const REGISTERS: u8 = 0x20;
    // Length in the sector count, in blocks; the second with the direction from the drive.
    let (protocol, flags, count) = match data {
        Data::None => (3, REGISTERS, 0),
        Data::In(_) => (4, REGISTERS | 0x0e, 1),
        Data::Out(_) => (5, REGISTERS | 0x06, 1),
    };
    let mut command = [0u8; 16];
    (command[0], command[1], command[2]) = (0x85, protocol << 1, flags);
    (command[6], command[14]) = (count, code);
    command
}

/// ATA status and error register of a sense buffer: descriptor format with the ATA status return descriptor, or fixed
/// format (SAT-4, 12.2.2.7).
fn registers(sense: &[u8]) -> Option<(u8, u8)> {
    match sense.first()? & 0x7f {
        0x72 if *sense.get(8)? == 0x09 => Some((*sense.get(21)?, *sense.get(11)?)),
        0x70 => Some((*sense.get(4)?, *sense.get(3)?)),
        _ => None,
    }
}

fn outcome(status: u8, host: u16, driver: u16, sense: &[u8]) -> io::Result<()> {
    const CHECK_CONDITION: u8 = 2;
    const BUSY: u8 = 8;
    if host != 0 {
        let words = if host == 3 { "it took longer than it said" } else { "the adapter failed" };
        return Err(io::Error::other(format!("no answer from the drive: {words} (host status {host:#x})")));
    }
    match (status, registers(sense)) {
        (0, _) => Ok(()),
        // Bits of the status register: error 0x01, device fault 0x20. Of the error register: abort 0x04.
        (CHECK_CONDITION, Some((ata, _))) if ata & 0x21 == 0 && ata != 0 => Ok(()),
        (CHECK_CONDITION, Some((ata, error))) if error & 0x04 != 0 => Err(io::Error::other(format!(
            "the drive refused the command (status {ata:#x}, error {error:#x})"
        ))),
        (CHECK_CONDITION, Some((ata, error))) => {
            Err(io::Error::other(format!("the drive failed (status {ata:#x}, error {error:#x})")))
        }
        (CHECK_CONDITION, None) => {
            let key = sense.get(1).or(sense.get(2)).copied().unwrap_or(0) & 0x0f;
            Err(io::Error::other(format!("the adapter refused the command (sense key {key:#x})")))
        }
        (BUSY, _) => Err(io::Error::other("the drive is busy")),
        (other, _) => Err(io::Error::other(format!("SCSI status {other:#x}, driver status {driver:#x}"))),
    }
}

impl Ata for LinuxAta {
    fn identify(&self) -> io::Result<[u8; ATA_BLOCK]> {
        let mut block = [0; ATA_BLOCK];
        self.send(IDENTIFY_DEVICE, Data::In(&mut block), PATIENCE)?;
        Ok(block)
    }
    fn security(
        &self,
        command: Security,
        data: Option<&[u8; ATA_BLOCK]>,
        patience: Duration,
    ) -> io::Result<()> {
        self.send(command.code(), data.map_or(Data::None, Data::Out), patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_block_is_as_sat_has_it() {
        let mut block = [0; ATA_BLOCK];
        let identify = command(IDENTIFY_DEVICE, &Data::In(&mut block));
        assert_eq!(identify, [0x85, 0x08, 0x2e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0]);
        let erase = command(Security::EraseUnit.code(), &Data::Out(&block));
        assert_eq!(erase, [0x85, 0x0a, 0x26, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xf4, 0]);
        let prepare = command(Security::ErasePrepare.code(), &Data::None);
        assert_eq!(prepare, [0x85, 0x06, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf3, 0]);
        assert_eq!(size_of::<SgHeader>(), 88);
    }

    #[test]
    fn answers_are_read_in_both_formats() {
        let descriptor = |status: u8, error: u8| {
            let mut sense = [0u8; 22];
            (sense[0], sense[1], sense[7], sense[8], sense[9]) = (0x72, 1, 14, 9, 12);
            (sense[11], sense[21]) = (error, status);
            sense
        };
        let fixed = |status: u8, error: u8| [0x70, 0, 1, error, status, 0, 0, 10];
        assert!(outcome(0, 0, 0, &[]).is_ok());
        assert!(outcome(2, 0, 8, &descriptor(0x50, 0)).is_ok());
        assert!(outcome(2, 0, 8, &fixed(0x50, 0)).is_ok());
        for (status, host, sense, words) in [
            (2, 0, descriptor(0x51, 4).to_vec(), "the drive refused the command (status 0x51, error 0x4)"),
            (2, 0, fixed(0x51, 4).to_vec(), "the drive refused the command"),
            (2, 0, descriptor(0x71, 0x10).to_vec(), "the drive failed (status 0x71, error 0x10)"),
            (2, 0, vec![0x72, 5, 0x20, 0], "the adapter refused the command (sense key 0x5)"),
            (2, 0, vec![], "the adapter refused the command"),
            (0, 3, vec![], "it took longer than it said"),
            (8, 0, vec![], "busy"),
        ] {
            let error = outcome(status, host, 0, &sense).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
