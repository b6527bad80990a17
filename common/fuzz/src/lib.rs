//! The pure files of both programs that meet bytes from elsewhere, compiled in by path: a target then builds in seconds, without
//! the programs' runtimes, and reaches what is private to them. The modules stand where these files look for them.
#![allow(dead_code, unused_imports)]

/// The agent's.
#[path = "."]
pub mod api {
    #[path = "../../../agent/src/api/json.rs"]
    pub mod json;
}
#[path = "."]
pub mod bootloader {
    #[path = "../../../agent/src/bootloader/entry.rs"]
    pub mod entry;
    #[path = "../../../agent/src/bootloader/plan.rs"]
    pub mod plan;
    #[path = "../../../agent/src/bootloader/table.rs"]
    pub mod table;
}
#[path = "."]
pub mod commands {
    #[path = "../../../agent/src/commands/checksum_file.rs"]
    pub mod checksum_file;
    #[path = "../../../agent/src/commands/failure.rs"]
    pub mod failure;
    #[path = "../../../agent/src/commands/image_info.rs"]
    pub mod image_info;
    #[path = "../../../agent/src/commands/rules.rs"]
    mod rules;
    pub use failure::{Class, Failure};
    pub use rules::Rules;
}
#[path = "."]
pub mod conductor {
    #[path = "../../../agent/src/conductor/clock.rs"]
    pub mod clock;
}
#[path = "../../../agent/src/config/mod.rs"]
pub mod config;
#[path = "."]
pub mod disk {
    // Its tests are not where rustfmt looks for them from here.
    #[rustfmt::skip]
    #[path = "../../../agent/src/disk/layout.rs"]
    pub mod layout;
    #[path = "../../../agent/src/disk/patience.rs"]
    pub mod patience;
}
#[path = "."]
pub mod fetch {
    #[path = "../../../agent/src/fetch/proxies.rs"]
    mod proxies;
    #[path = "../../../agent/src/fetch/shown.rs"]
    mod shown;
    pub use proxies::Proxies;
    pub use shown::printable;
}
#[path = "."]
pub mod image {
    #[path = "../../../agent/src/image/buffers.rs"]
    pub mod buffers;
    #[path = "../../../agent/src/image/decode.rs"]
    pub mod decode;
    #[path = "../../../agent/src/image/error.rs"]
    pub mod error;
    #[path = "../../../agent/src/image/formats.rs"]
    pub mod formats;
    #[path = "../../../agent/src/image/source/head.rs"]
    pub mod head;
    #[path = "../../../agent/src/image/source/message.rs"]
    pub mod message;
    #[path = "../../../agent/src/image/patience.rs"]
    mod patience;
    #[path = "../../../agent/src/image/progress.rs"]
    mod progress;
    #[path = "../../../agent/src/image/queue.rs"]
    pub mod queue;
    #[path = "../../../agent/src/image/unpack.rs"]
    pub mod unpack;
    #[path = "../../../agent/src/image/verify.rs"]
    mod verify;
    pub use error::ImageError;
    pub use ferric_common::images::{ImageFormat, Packing};
    pub use formats::permit;
    pub use patience::{Patience, Timeouts};
    pub use progress::CancelFlag;
    pub use verify::Verify;
}
#[path = "."]
pub mod inventory {
    #[path = "../../../agent/src/inventory/ident.rs"]
    pub mod ident;
}
#[path = "."]
pub mod network {
    #[path = "../../../agent/src/network/client.rs"]
    pub mod client;
    #[path = "../../../agent/src/network/frame.rs"]
    pub mod frame;
}

/// The controller's.
#[path = "."]
pub mod controller {
    #[path = "../../../controller/src/images/boot_file.rs"]
    pub mod boot_file;
    #[path = "../../../controller/src/api/json.rs"]
    pub mod json;
}
#[path = "."]
pub mod drivers {
    #[path = "."]
    pub mod ipmi {
        #[path = "../../../controller/src/drivers/ipmi/commands.rs"]
        pub mod commands;
        #[path = "../../../controller/src/drivers/ipmi/packet.rs"]
        pub mod packet;
        #[path = "../../../controller/src/drivers/ipmi/rakp.rs"]
        pub mod rakp;
        #[path = "../../../controller/src/drivers/ipmi/session.rs"]
        pub mod session;
    }
    #[path = "../../../controller/src/drivers/values.rs"]
    mod values;
    pub use values::{BootDevice, BootMode, Persistence, PowerAction, PowerState};
}

/// Takes input apart: what a target needs besides the bytes for its parser.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        self.number() as u8
    }
    /// A little-endian number of eight bytes, of as many as there are.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let (taken, rest) = self.0.split_at(self.0.len().min(8));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        u64::from_le_bytes(bytes)
    }
    /// What stands before the next byte 0 (of all, where there is none).
    pub fn part(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        part
    }
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.part()).into_owned()
    }
}

/// Lengths of pieces into which something is cut: from one byte to some hundreds, now and then more.
pub struct Cuts(pub u64);

impl Iterator for Cuts {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = [1, 7, 300, 10_000][(self.0 >> 33) as usize % 4];
        Some(1 + (self.0 >> 40) as usize % most)
    }
}

/// Makes the checksums of a GPT right, so that what lies behind them is reached.
pub fn right_gpt(head: &mut [u8], sector: usize) {
    use ferric_common::formats::gpt::crc32;
    let number = |head: &[u8], at: usize| {
        let bytes = head.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let (size, entries) = (number(head, sector + 12), number(head, sector + 80));
    let array = number(head, sector + 72).saturating_mul(sector);
    let bytes = entries.saturating_mul(128);
    let sum = head.get(array..array.saturating_add(bytes)).map(crc32);
    let (Some(sum), Some(header)) = (sum, head.get_mut(sector..sector.saturating_add(size))) else { return };
    if header.len() < 92 {
        return;
    }
    header[88..92].copy_from_slice(&sum.to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32(header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}
