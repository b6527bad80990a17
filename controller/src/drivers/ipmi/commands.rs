//! The IPMI commands that Ferric uses: what is sent, what the answers mean. Pure.
//!
//! Specification: IPMI v2.0 rev. 1.1, chapters 20 to 22 (application) and 28 (chassis); the boot option sequences
//! are those that ipmitool and Ironic send, because BMCs are tested against them.

use super::packet::{Reader, Refusal, Request};
use super::rakp::Privilege;
use crate::drivers::{BootDevice, BootMode, Persistence, PowerAction, PowerState};

const CHASSIS: u8 = 0x00;
const APPLICATION: u8 = 0x06;

/// A request with the name that errors give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub name: &'static str,
    pub request: Request,
    /// Completion codes that do not matter here.
    pub tolerated: &'static [u8],
}

fn command(name: &'static str, netfn: u8, command: u8, data: &[u8]) -> Command {
    Command { name, request: Request { netfn, command, data: data.to_vec() }, tolerated: &[] }
}

/// Asked before there is a session: does this BMC speak IPMI 2.0? Channel "this one", answer in the 2.0 form.
pub fn auth_capabilities(privilege: Privilege) -> Command {
    command("Get Channel Authentication Capabilities", APPLICATION, 0x38, &[0x8E, privilege as u8])
}

/// What the BMC says about logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthCapabilities {
    pub speaks_2_0: bool,
    /// The BMC has a key (Kg) of its own beside the passwords.
    pub bmc_key_set: bool,
}

impl AuthCapabilities {
    pub fn parse(data: &[u8]) -> Result<Self, Refusal> {
        let [_, types, status, extended] = Reader::new(data, "the authentication capabilities").array()?;
        let has_extended = types & 0x80 != 0;
        Ok(AuthCapabilities {
            speaks_2_0: has_extended && extended & 0x02 != 0,
            bmc_key_set: has_extended && status & 0x20 != 0,
        })
    }
}

pub fn set_privilege(privilege: Privilege) -> Command {
    command("Set Session Privilege Level", APPLICATION, 0x3B, &[privilege as u8])
}

pub fn close_session(id: u32) -> Command {
    command("Close Session", APPLICATION, 0x3C, &id.to_le_bytes())
}

pub fn chassis_status() -> Command {
    command("Get Chassis Status", CHASSIS, 0x01, &[])
}

pub fn parse_chassis_status(data: &[u8]) -> Result<PowerState, Refusal> {
    let power = Reader::new(data, "the chassis status").byte()?;
    Ok(if power & 1 == 1 { PowerState::On } else { PowerState::Off })
}

/// Chassis Control.
pub fn chassis_control(action: PowerAction) -> Command {
    let (name, byte) = match action {
        PowerAction::Off => ("Chassis Control: power off", 0),
        PowerAction::On => ("Chassis Control: power on", 1),
        PowerAction::Cycle => ("Chassis Control: power cycle", 2),
        PowerAction::Reset => ("Chassis Control: hard reset", 3),
        PowerAction::SoftOff => ("Chassis Control: soft power off", 5),
    };
    command(name, CHASSIS, 0x02, &[byte])
}

/// The selector of boot flags for a device, as it stands in the byte (bits 5 to 2).
fn selector(device: BootDevice) -> u8 {
    match device {
        BootDevice::Pxe => 0x04,
        BootDevice::Disk => 0x08,
        BootDevice::Safe => 0x0C,
        BootDevice::Cdrom => 0x14,
        BootDevice::Bios => 0x18,
    }
}

/// Supermicro's UEFI firmware wants its own number for "disk" (found by Ironic's users, kept in Ironic's driver).
const SELECTOR_SUPERMICRO_UEFI_DISK: u8 = 0x24;

/// How a boot device is to be set.
#[derive(Debug, Clone, Copy)]
pub struct BootRequest {
    pub device: BootDevice,
    pub persistence: Persistence,
    pub mode: BootMode,
    /// Send parameter 3 first, so that the flags live longer than 60 seconds.
    pub keep_beyond_60s: bool,
    pub supermicro: bool,
}

/// The requests, in order.
///
/// In UEFI mode Ironic sends the flags alone; in BIOS mode ipmitool wraps them in "set in progress" and an
/// acknowledgement. Parameters 0, 3 and 4 are optional for a BMC: "not supported" is fine there. Never for 5.
pub fn set_boot_device(wanted: BootRequest) -> Vec<Command> {
    let device = match (wanted.mode, wanted.device, wanted.supermicro) {
        (BootMode::Uefi, BootDevice::Disk, true) => SELECTOR_SUPERMICRO_UEFI_DISK,
        _ => selector(wanted.device),
    };
    // Bit 7 valid, bit 6 persistent, bit 5 UEFI.
    let flags = match (wanted.mode, wanted.persistence) {
        (BootMode::Bios, Persistence::Once) => 0x80,
        (BootMode::Bios, Persistence::Always) => 0xC0,
        (BootMode::Uefi, Persistence::Once) => 0xA0,
        (BootMode::Uefi, Persistence::Always) => 0xE0,
    };
    let mut out = Vec::new();
    if wanted.keep_beyond_60s {
        out.push(optional("Set System Boot Options: no 60 s timeout", &[0x03, 0x08]));
    }
    let set = command("Set System Boot Options: boot flags", CHASSIS, 0x08, &[0x05, flags, device, 0, 0, 0]);
    match wanted.mode {
        BootMode::Uefi => out.push(set),
        BootMode::Bios => out.extend([
            // 0x81: somebody is at it already; that was us, before a kill between this and "set complete".
            Command {
                tolerated: &[0x80, 0x81, 0xC1, 0xC9, 0xCC],
                ..optional("Set System Boot Options: set in progress", &[0x00, 0x01])
            },
            optional("Set System Boot Options: acknowledge", &[0x04, 0x01, 0x01]),
            set,
            optional("Set System Boot Options: set complete", &[0x00, 0x00]),
        ]),
    }
    out
}

fn optional(name: &'static str, data: &[u8]) -> Command {
    // 0x80 parameter not supported, 0xC1 command, 0xC9 parameter out of range, 0xCC invalid field.
    Command { tolerated: &[0x80, 0xC1, 0xC9, 0xCC], ..command(name, CHASSIS, 0x08, data) }
}

pub fn boot_flags() -> Command {
    command("Get System Boot Options: boot flags", CHASSIS, 0x09, &[0x05, 0x00, 0x00])
}

/// Reads the boot flags.
///
/// The "valid" bit is not asked, as Ironic does not: many BMCs clear it at once and honour the device all the same.
pub fn parse_boot_flags(data: &[u8]) -> Result<(Option<BootDevice>, Persistence), Refusal> {
    let [_, _, flags, device] = Reader::new(data, "the boot flags").array()?;
    let device = match (device >> 2) & 0x0F {
        1 => Some(BootDevice::Pxe),
        2 | 9 => Some(BootDevice::Disk),
        3 => Some(BootDevice::Safe),
        5 => Some(BootDevice::Cdrom),
        6 => Some(BootDevice::Bios),
        _ => None,
    };
    Ok((device, if flags & 0x40 != 0 { Persistence::Always } else { Persistence::Once }))
}

pub fn device_id() -> Command {
    command("Get Device ID", APPLICATION, 0x01, &[])
}

/// Maker and firmware of a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId {
    /// IANA enterprise number, 20 bits.
    pub manufacturer: u32,
    pub product: u16,
    /// Major in binary, minor in BCD, as sent.
    pub firmware: (u8, u8),
    /// BCD with the digits swapped: 0x02 is 2.0, 0x51 is 1.5.
    pub ipmi: u8,
}

impl DeviceId {
    pub fn parse(data: &[u8]) -> Result<Self, Refusal> {
        let [_, _, major, minor, ipmi, _, m0, m1, m2, p0, p1] = Reader::new(data, "the device id").array()?;
        Ok(DeviceId {
            manufacturer: u32::from_le_bytes([m0, m1, m2 & 0x0F, 0]),
            product: u16::from_le_bytes([p0, p1]),
            firmware: (major & 0x7F, minor),
            ipmi,
        })
    }

    pub fn is_supermicro(&self) -> bool {
        vendor(self.manufacturer) == Some("Supermicro")
    }

    /// One line for the operator.
    pub fn describe(&self) -> String {
        let (major, minor) = self.firmware;
        let maker = match vendor(self.manufacturer) {
            Some(name) => format!("{name} (manufacturer {})", self.manufacturer),
            None => format!("manufacturer {} (IANA enterprise number)", self.manufacturer),
        };
        let (whole, tenth) = (self.ipmi & 0x0F, self.ipmi >> 4);
        format!(
            "{maker}, product {:#06x}, BMC firmware {major}.{minor:02x}, IPMI {whole}.{tenth}",
            self.product
        )
    }
}

/// Names for the enterprise numbers that BMCs in use carry (IANA's list; 47488 is what Supermicro's boards by ATEN
/// send although it is registered to somebody else).
fn vendor(number: u32) -> Option<&'static str> {
    Some(match number {
        2 => "IBM",
        11 => "HP",
        42 => "Sun",
        116 => "Hitachi",
        119 => "NEC",
        343 => "Intel",
        674 => "Dell",
        2011 => "Huawei",
        2623 => "ASUS",
        4753 => "MontaVista (OpenIPMI simulator)",
        5771 => "Cisco",
        6653 => "Tyan",
        7154 => "IPMI forum",
        7244 => "Quanta",
        10368 => "Fujitsu",
        10876 | 47488 => "Supermicro",
        15370 => "Gigabyte",
        19046 => "Lenovo",
        20301 => "IBM eServer",
        20974 => "American Megatrends",
        37945 => "Inspur",
        40092 => "Wiwynn",
        47196 => "HPE",
        49622 => "ASRock Rack",
        _ => return None,
    })
}

/// Words for a completion code (table 5-2; 0x80 and 0x81 by their meaning for the commands above).
pub fn completion_text(code: u8) -> &'static str {
    match code {
        0x80 => "parameter not supported",
        0x81 => "another one is setting this parameter",
        0x82 => "parameter is read only",
        0xC0 => "the BMC is busy; ask again",
        0xC1 => "the BMC does not know this command",
        0xC2 => "the BMC does not know this command for this LUN",
        0xC3 => "timed out inside the BMC",
        0xC4 => "the BMC is out of space",
        0xC7 => "request length is wrong for this BMC",
        0xC9 => "a parameter is out of range",
        0xCC => "a field of the request is not valid for this BMC",
        0xCE => "the BMC could not answer",
        0xD2 => "the BMC is still starting; ask again",
        0xD3 => "destination unavailable",
        0xD4 => "insufficient privilege level",
        0xD5 => "not possible in the present state of the machine",
        0xD6 => "this part of the BMC is disabled",
        0xFF => "unspecified error",
        _ => "no standard meaning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boot(device: BootDevice, persistence: Persistence, mode: BootMode, supermicro: bool) -> Vec<Vec<u8>> {
        let wanted = BootRequest { device, persistence, mode, keep_beyond_60s: true, supermicro };
        set_boot_device(wanted).into_iter().map(|c| c.request.data).collect()
    }

    #[test]
    fn bios_boot_devices_go_out_as_ipmitool_sends_them() {
        for (device, persistence, flags, byte) in [
            (BootDevice::Pxe, Persistence::Once, 0x80, 0x04),
            (BootDevice::Disk, Persistence::Always, 0xC0, 0x08),
            (BootDevice::Cdrom, Persistence::Once, 0x80, 0x14),
            (BootDevice::Bios, Persistence::Once, 0x80, 0x18),
            (BootDevice::Safe, Persistence::Always, 0xC0, 0x0C),
        ] {
            let expected: Vec<Vec<u8>> =
                vec![vec![3, 8], vec![0, 1], vec![4, 1, 1], vec![5, flags, byte, 0, 0, 0], vec![0, 0]];
            assert_eq!(boot(device, persistence, BootMode::Bios, false), expected, "{device:?}");
        }
    }

    #[test]
    fn uefi_boot_devices_go_out_as_ironic_sends_them() {
        for (device, persistence, supermicro, flags, byte) in [
            (BootDevice::Pxe, Persistence::Once, false, 0xA0, 0x04),
            (BootDevice::Disk, Persistence::Always, false, 0xE0, 0x08),
            (BootDevice::Disk, Persistence::Always, true, 0xE0, 0x24),
            (BootDevice::Pxe, Persistence::Once, true, 0xA0, 0x04),
        ] {
            let expected: Vec<Vec<u8>> = vec![vec![3, 8], vec![5, flags, byte, 0, 0, 0]];
            assert_eq!(boot(device, persistence, BootMode::Uefi, supermicro), expected);
        }
        let plain = BootRequest {
            device: BootDevice::Pxe,
            persistence: Persistence::Once,
            mode: BootMode::Uefi,
            keep_beyond_60s: false,
            supermicro: false,
        };
        assert_eq!(set_boot_device(plain).len(), 1, "parameter 3 only when wanted");
    }

    #[test]
    fn the_flags_themselves_must_be_accepted() {
        let wanted = BootRequest {
            device: BootDevice::Pxe,
            persistence: Persistence::Once,
            mode: BootMode::Bios,
            keep_beyond_60s: true,
            supermicro: false,
        };
        for c in set_boot_device(wanted) {
            assert_eq!(c.tolerated.contains(&0x80), c.request.data.first() != Some(&5), "{}", c.name);
        }
    }

    #[test]
    fn boot_flags_read_back() {
        for (data, expected) in [
            ([1, 5, 0x80, 0x04], (Some(BootDevice::Pxe), Persistence::Once)),
            ([1, 5, 0xE0, 0x24], (Some(BootDevice::Disk), Persistence::Always)),
            ([1, 5, 0x00, 0x00], (None, Persistence::Once)),
            ([1, 5, 0xC0, 0x18], (Some(BootDevice::Bios), Persistence::Always)),
        ] {
            assert_eq!(parse_boot_flags(&data), Ok(expected));
        }
        assert!(parse_boot_flags(&[1, 5, 0x80]).is_err());
    }

    #[test]
    fn a_bmc_is_described_in_one_line() {
        let data = [0, 3, 9, 0x08, 2, 0x9F, 0x91, 0x12, 0, 0x02, 0x0F, 0, 0, 0, 0];
        let id = DeviceId::parse(&data).unwrap();
        assert_eq!(
            id.describe(),
            "MontaVista (OpenIPMI simulator) (manufacturer 4753), product 0x0f02, BMC firmware 9.08, IPMI 2.0"
        );
        let other = DeviceId { manufacturer: 99_999, ..id };
        assert!(other.describe().starts_with("manufacturer 99999 (IANA enterprise number)"));
        assert!(DeviceId { manufacturer: 10876, ..id }.is_supermicro() && !id.is_supermicro());
    }

    proptest! {
        #[test]
        fn no_answer_panics(data in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = (parse_boot_flags(&data), parse_chassis_status(&data), AuthCapabilities::parse(&data));
            if let Ok(id) = DeviceId::parse(&data) {
                let _ = id.describe();
            }
        }
    }
}
