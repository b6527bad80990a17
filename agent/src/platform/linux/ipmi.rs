//! Messages to the BMC through the kernel's IPMI device (Linux, `Documentation/driver-api/ipmi.rst`, `linux/ipmi.h`).
#![allow(unsafe_code)]

use crate::init::devices;
use crate::inventory::bmc::Ipmi;
use crate::inventory::smbios;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where distributions have it.
const DEVICES: [&str; 3] = ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"];
/// The kernel itself gives up after five seconds and answers a completion code.
const PATIENCE: Duration = Duration::from_secs(10);
/// IPMI_MAX_MSG_LENGTH.
const LONGEST: usize = 272;

const SYSTEM_INTERFACE: i32 = 0x0c;
const THIS_BMC: i16 = 0x0f;

/// `struct ipmi_system_interface_addr`.
#[repr(C)]
struct Address {
    kind: i32,
    channel: i16,
    lun: u8,
}

/// `struct ipmi_msg`.
#[repr(C)]
struct Message {
    function: u8,
    command: u8,
    length: u16,
    data: *mut u8,
}

/// `struct ipmi_req`.
#[repr(C)]
pub struct Request {
    address: *mut Address,
    address_length: u32,
    number: libc::c_long,
    message: Message,
}

/// `struct ipmi_recv`.
#[repr(C)]
pub struct Received {
    kind: i32,
    address: *mut Address,
    address_length: u32,
    number: libc::c_long,
    message: Message,
}

mod raw {
    // #define IPMICTL_SEND_COMMAND _IOR('i', 13, struct ipmi_req)
    nix::ioctl_read!(send_command, b'i', 13, super::Request);
    // #define IPMICTL_RECEIVE_MSG_TRUNC _IOWR('i', 11, struct ipmi_recv)
    nix::ioctl_readwrite!(receive_cut, b'i', 11, super::Received);
}

/// An open device.
pub struct Device {
    file: File,
    number: libc::c_long,
}

/// Drivers of the way to the BMC, and the one that makes the device.
const MODULES: [&str; 3] = ["ipmi_si", "ipmi_ssif", "ipmi_devintf"];
/// How long a BMC that the firmware names may take to appear.
const APPEAR: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// IPMI Device Information of SMBIOS.
const IPMI_DEVICE: u8 = 38;

/// The way to the BMC. In the ramdisk its drivers are loaded first: no device of the kernel asks for the last of them.
pub fn find(load: bool, sys: &Path) -> Option<Device> {
    if load && !present() {
        for module in MODULES {
            // A machine without a BMC refuses them.
            let _ = devices::request(module);
        }
        let named = smbios::table(sys)
            .is_some_and(|table| smbios::structures(&table).any(|one| one.kind == IPMI_DEVICE));
        let began = Instant::now();
        while named && !present() && began.elapsed() < APPEAR {
            std::thread::sleep(LOOK);
        }
    }
    Device::open()
}

fn present() -> bool {
    DEVICES.iter().any(|path| Path::new(path).exists())
}

impl Device {
    /// `None` on a machine whose kernel found no BMC.
    pub fn open() -> Option<Device> {
        let path = DEVICES.iter().map(Path::new).find(|path| path.exists())?;
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(Device { file, number: 0 }),
            Err(error) => {
                tracing::warn!("opening {}: {error}", path.display());
                None
            }
        }
    }

    fn send(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        let mut address = Address { kind: SYSTEM_INTERFACE, channel: THIS_BMC, lun: 0 };
        let mut data = data.to_vec();
        let length = u16::try_from(data.len()).map_err(io::Error::other)?;
        let mut request = Request {
            address: &raw mut address,
            address_length: size_of::<Address>() as u32,
            number: self.number,
            message: Message { function, command, length, data: data.as_mut_ptr() },
        };
        // SAFETY: the descriptor is open; address and data live through the call, with the lengths given, and the kernel
        // copies both.
        unsafe { raw::send_command(self.file.as_raw_fd(), &raw mut request) }?;
        Ok(())
    }

    /// The answer that carries `self.number`; others are late ones to questions given up.
    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut address = Address { kind: 0, channel: 0, lun: 0 };
            let mut data = [0u8; LONGEST];
            let mut received = Received {
                kind: 0,
                address: &raw mut address,
                address_length: size_of::<Address>() as u32,
                number: 0,
                message: Message { function: 0, command: 0, length: LONGEST as u16, data: data.as_mut_ptr() },
            };
            // SAFETY: the descriptor is open; the kernel writes at most the lengths given into address and data, which
            // live through the call.
            unsafe { raw::receive_cut(self.file.as_raw_fd(), &raw mut received) }?;
            if received.number == self.number {
                return Ok(data.get(..usize::from(received.message.length)).unwrap_or_default().to_vec());
            }
        }
    }
}

impl Ipmi for Device {
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<Vec<u8>> {
        self.send(function, command, data)?;
        let answer = self.receive()?;
        match answer.split_first() {
            Some((0, data)) => Ok(data.to_vec()),
            // Node busy, time-out: the BMC did not speak.
            Some((code @ (0xc0 | 0xc3 | 0xff), _)) => {
                Err(io::Error::other(format!("the BMC answered code {code:#04x}")))
            }
            Some((code, _)) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("the BMC answered code {code:#04x}")))
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_laid_out_as_the_kernels_header_says() {
        assert_eq!((size_of::<Address>(), size_of::<Message>()), (8, 16));
        assert_eq!((size_of::<Request>(), size_of::<Received>()), (40, 48));
    }
}
