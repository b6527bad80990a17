//! Erasing by an NVMe drive's own commands. Specification: NVM Express Base 2.0, 5.14 (Format NVM), 5.17 (Identify),
//! 5.24 (Sanitize).

use super::plan::{Format, Sanitize};
use crate::platform::drive::Nvme;
use std::io;
use std::time::Duration;

/// Between two looks at a sanitize operation.
const PAUSE: Duration = Duration::from_secs(1);

/// What a controller says that it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub format: bool,
    pub crypto_format: bool,
    /// Formatting or erasing one namespace takes them all.
    pub format_takes_all: bool,
    pub sanitize_block: bool,
    pub sanitize_crypto: bool,
    pub sanitize_overwrite: bool,
}

impl Abilities {
    /// Reads the answer to Identify Controller (figure 275). `None` if it is too short.
    pub fn parse(identify: &[u8]) -> Option<Abilities> {
        let [low, high] = *identify.get(256..258)?.as_array()?;
        let oacs = u16::from_le_bytes([low, high]);
        let sanicap = *identify.get(328)?;
        let fna = *identify.get(524)?;
        Some(Abilities {
            format: oacs & 2 != 0,
            crypto_format: fna & 4 != 0,
            format_takes_all: fna & 3 != 0,
            sanitize_crypto: sanicap & 1 != 0,
            sanitize_block: sanicap & 2 != 0,
            sanitize_overwrite: sanicap & 4 != 0,
        })
    }

    pub fn sanitizes(&self) -> bool {
        self.sanitize_block || self.sanitize_crypto || self.sanitize_overwrite
    }
}

/// Namespaces of one drive have this part of the name in common: `nvme0` of `/dev/nvme0n1`.
pub fn drive_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("/dev/")?;
    let number = rest.strip_prefix("nvme")?.split_once('n')?.0;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| rest.get(..4 + number.len())).flatten()
}

/// Command dword 10 of Format NVM (figure 331): the namespace keeps its LBA format, metadata and protection.
fn format_settings(namespace: &[u8], erase: Format) -> Option<u32> {
    let flbas = u32::from(*namespace.get(26)?);
    let protection = u32::from(*namespace.get(29)?);
    let secure = match erase {
        Format::UserData => 1,
        Format::Crypto => 2,
    };
    let lba_format = (flbas & 0x0f) | ((flbas & 0x60) >> 5) << 12;
    let metadata = (flbas & 0x10) >> 4 << 4;
    let protection = (protection & 7) << 5 | (protection >> 3 & 1) << 8;
    Some(lba_format | metadata | protection | secure << 9)
}

/// Formats the namespace; blocks until it is done.
///
/// # Errors
/// The drive's answer.
pub fn format(drive: &dyn Nvme, erase: Format) -> io::Result<()> {
    let namespace = drive.identify_namespace()?;
    let settings = format_settings(&namespace, erase)
        .ok_or_else(|| io::Error::other("the drive's answer to Identify Namespace is cut off"))?;
    drive.format(settings)
}

/// Sanitizes the whole drive. `wait` sleeps and says whether to go on; `told` hears how far it is, in parts of 65,536.
///
/// # Errors
/// The drive's answer, a failed operation, or that nobody waits any more.
pub fn sanitize(
    drive: &dyn Nvme,
    action: Sanitize,
    wait: &dyn Fn(Duration) -> bool,
    told: &dyn Fn(u16),
) -> io::Result<()> {
    // Bits 0 to 2: the action. Bits 4 to 7: passes of an overwrite, one.
    let settings = match action {
        Sanitize::Block => 2,
        Sanitize::Overwrite => 3 | 1 << 4,
        Sanitize::Crypto => 4,
    };
    drive.sanitize(settings)?;
    loop {
        let log = drive.sanitize_log()?;
        let cut = || io::Error::other("the drive's sanitize log is cut off");
        let word = |at: usize| {
            let pair = log.get(at..at + 2).and_then(|pair| pair.as_array()).ok_or_else(cut)?;
            Ok::<u16, io::Error>(u16::from_le_bytes(*pair))
        };
        match word(2)? & 7 {
            1 | 4 => return Ok(()),
            2 => told(word(0)?),
            3 => return Err(io::Error::other("the drive says that the sanitize operation failed")),
            other => return Err(io::Error::other(format!("the drive says sanitize status {other}"))),
        }
        if !wait(PAUSE) {
            return Err(io::Error::other("not waited for any longer; the drive goes on by itself"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::drive::FakeNvme;
    use std::cell::RefCell;

    #[test]
    fn abilities_stand_where_the_specification_puts_them() {
        let mut bytes = vec![0; 4096];
        assert_eq!(Abilities::parse(&bytes), Some(Abilities::default()));
        (bytes[256], bytes[524], bytes[328]) = (2, 5, 6);
        let found = Abilities::parse(&bytes).unwrap();
        let expected = Abilities {
            format: true,
            crypto_format: true,
            format_takes_all: true,
            sanitize_block: true,
            sanitize_overwrite: true,
            sanitize_crypto: false,
        };
        assert_eq!(found, expected);
        assert!(found.sanitizes());
        assert_eq!(Abilities::parse(&bytes[..524]), None);
    }

    #[test]
    fn a_namespace_keeps_its_format() {
        let mut bytes = vec![0; 4096];
        assert_eq!(format_settings(&bytes, Format::UserData), Some(1 << 9));
        // LBA format 18 (0b10010: low 2, high 1), metadata at the end of the block, protection type 1 in the first bytes.
        (bytes[26], bytes[29]) = (0x32, 0x09);
        assert_eq!(
            format_settings(&bytes, Format::Crypto),
            Some(2 | 1 << 12 | 1 << 4 | 1 << 5 | 1 << 8 | 2 << 9)
        );
        assert_eq!(format_settings(&bytes[..26], Format::Crypto), None);
    }

    #[test]
    fn namespaces_of_one_drive_are_known_by_name() {
        for (name, drive) in [
            ("/dev/nvme0n1", Some("nvme0")),
            ("/dev/nvme12n3p1", Some("nvme12")),
            ("/dev/sda", None),
            ("/dev/nvmen1", None),
            ("nvme0n1", None),
        ] {
            assert_eq!(drive_of(name), drive, "{name}");
        }
    }

    #[test]
    fn a_sanitize_operation_is_waited_for() {
        let drive = FakeNvme::new().sanitizing(&[(0x8000, 2), (0xc000, 2), (0xffff, 1)]);
        let heard = RefCell::new(Vec::new());
        sanitize(&drive, Sanitize::Overwrite, &|_| true, &|part| heard.borrow_mut().push(part)).unwrap();
        assert_eq!(heard.into_inner(), [0x8000, 0xc000]);
        assert_eq!(drive.orders(), ["sanitize 0x13"]);
    }

    #[test]
    fn a_sanitize_operation_that_fails_or_is_given_up_is_told() {
        for (status, wait, words) in [
            (3, true, "the sanitize operation failed"),
            (0, true, "sanitize status 0"),
            (2, false, "not waited for"),
        ] {
            let drive = FakeNvme::new().sanitizing(&[(0, status)]);
            let error = sanitize(&drive, Sanitize::Block, &|_| wait, &|_| {}).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
