//! NVMe admin commands by ioctl (linux/nvme_ioctl.h). Numbers are those of the NVMe Base Specification 2.0.
#![allow(unsafe_code)]

use crate::platform::drive::{NVME_IDENTIFY, NVME_SANITIZE_LOG, Nvme};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Formatting touches every block of some drives.
const FORMAT_PATIENCE: Duration = Duration::from_secs(12 * 3600);
const PATIENCE: Duration = Duration::from_secs(60);

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
pub struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dword2: u32,
    dword3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    dwords: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

mod raw {
    // linux/nvme_ioctl.h: NVME_IOCTL_ID _IO('N', 0x40), NVME_IOCTL_ADMIN_CMD _IOWR('N', 0x41, struct nvme_admin_cmd)
    nix::ioctl_none!(namespace_id, b'N', 0x40);
    nix::ioctl_readwrite!(admin, b'N', 0x41, super::AdminCommand);
}

/// An open namespace.
pub struct LinuxNvme {
    file: File,
    namespace: u32,
}

impl LinuxNvme {
    /// # Errors
    /// As open(2); `ENOTTY` if it is no NVMe device.
    pub fn open(path: &Path) -> io::Result<LinuxNvme> {
        let file = File::open(path)?;
        // SAFETY: the descriptor is open for the whole call and the request takes no argument.
        let namespace = unsafe { raw::namespace_id(file.as_raw_fd()) }?;
        let namespace = u32::try_from(namespace).map_err(io::Error::other)?;
        Ok(LinuxNvme { file, namespace })
    }

    fn send(&self, mut command: AdminCommand, data: &mut [u8], patience: Duration) -> io::Result<()> {
        if !data.is_empty() {
            command.address = data.as_mut_ptr() as u64;
            command.data_length = u32::try_from(data.len()).map_err(io::Error::other)?;
        }
        command.timeout_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: `command` is laid out as the kernel's struct; it points at `data`, which is borrowed for the whole call and as
        // long as `data_length` says, or at nothing with a length of 0.
        match unsafe { raw::admin(self.file.as_raw_fd(), &mut command) }? {
            0 => Ok(()),
            status => Err(refused(status)),
        }
    }

    fn identify(&self, what: u32, namespace: u32) -> io::Result<Vec<u8>> {
        let mut data = vec![0; NVME_IDENTIFY];
        let command = AdminCommand {
            opcode: 0x06,
            namespace,
            dwords: [what, 0, 0, 0, 0, 0],
            ..AdminCommand::default()
        };
        self.send(command, &mut data, PATIENCE)?;
        Ok(data)
    }
}

/// A status in words where an operator can do something about it (figure 97 and following).
fn refused(status: i32) -> io::Error {
    let words = match status & 0x7ff {
        0x001 => "invalid opcode: the drive does not know the command",
        0x002 => "invalid field in the command",
        0x006 => "internal error of the drive",
        0x01c => "sanitize failed before and must be repeated",
        0x01d => "a sanitize operation is in progress",
        0x020 => "the namespace is write protected",
        0x10a => "invalid format",
        0x10b => "firmware activation needs a reset first",
        _ => "refused",
    };
    io::Error::other(format!("the drive answered with NVMe status {:#x} ({words})", status & 0x7ff))
}

impl Nvme for LinuxNvme {
    fn identify_controller(&self) -> io::Result<Vec<u8>> {
        self.identify(1, 0)
    }
    fn identify_namespace(&self) -> io::Result<Vec<u8>> {
        self.identify(0, self.namespace)
    }
    fn format(&self, settings: u32) -> io::Result<()> {
        let command = AdminCommand {
            opcode: 0x80,
            namespace: self.namespace,
            dwords: [settings, 0, 0, 0, 0, 0],
            ..AdminCommand::default()
        };
        self.send(command, &mut [], FORMAT_PATIENCE)
    }
    fn sanitize(&self, action: u32) -> io::Result<()> {
        let command =
            AdminCommand { opcode: 0x84, dwords: [action, 0, 0, 0, 0, 0], ..AdminCommand::default() };
        self.send(command, &mut [], PATIENCE)
    }
    fn sanitize_log(&self) -> io::Result<Vec<u8>> {
        let mut data = vec![0; NVME_SANITIZE_LOG];
        // Number of dwords less one in the upper half, log page 0x81.
        let dword10 = ((NVME_SANITIZE_LOG as u32 / 4 - 1) << 16) | 0x81;
        let command = AdminCommand {
            opcode: 0x02,
            namespace: u32::MAX,
            dwords: [dword10, 0, 0, 0, 0, 0],
            ..AdminCommand::default()
        };
        self.send(command, &mut data, PATIENCE)?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_as_long_as_the_kernel_says() {
        assert_eq!(size_of::<AdminCommand>(), 72);
        assert_eq!(core::mem::offset_of!(AdminCommand, address), 24);
        assert_eq!(core::mem::offset_of!(AdminCommand, dwords), 40);
        assert_eq!(core::mem::offset_of!(AdminCommand, timeout_ms), 64);
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(LinuxNvme::open(file.path()).is_err());
        assert!(
            refused(0x410a).to_string().contains("0x10a (invalid format)"),
            "without the bit 'do not retry'"
        );
    }
}
