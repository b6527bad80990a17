//! Every cap in one table. A request past one is refused in words before more of it is read.
//!
//! Each is a default that a setting may change where the setting exists; the reasons are with the numbers.

use crate::units::{GIB, MIB};
use core::time::Duration;

/// Bytes of a request line; of all headers together; number of headers.
pub const REQUEST_LINE: usize = 8 << 10;
pub const HEADERS_TOTAL: usize = 16 << 10;
pub const HEADERS_COUNT: usize = 100;
/// Time to finish the headers; idle time within a body; a whole small request; a TLS handshake.
pub const HEADERS_TIME: Duration = Duration::from_secs(10);
pub const BODY_IDLE: Duration = Duration::from_secs(30);
pub const SMALL_REQUEST_TIME: Duration = Duration::from_secs(60);
pub const TLS_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Depth of JSON (Ironic's own limit).
pub const JSON_DEPTH: usize = 25;
/// Bodies, in bytes: heartbeat; the API in general; inspection data; provision with a config drive.
pub const BODY_HEARTBEAT: usize = 64 << 10;
pub const BODY_API: usize = 1 << 20;
pub const BODY_INSPECTION: usize = 16 << 20;
pub const BODY_PROVISION: usize = 64 << 20;
/// The agent's command bodies, read only after the token in the query was checked: conductors send the largest config
/// drive in base64 twice, beside the node.
pub const BODY_COMMAND: usize = 192 << 20;
/// Connections to the agent: in all, and without a valid token.
pub const AGENT_CONNECTIONS: usize = 64;
pub const AGENT_CONNECTIONS_UNPROVEN: usize = 16;
/// Commands that the agent remembers.
pub const COMMANDS_KEPT: usize = 256;
/// MAC addresses in one lookup; bytes of a name, a URL, the kernel parameters of a node.
pub const LOOKUP_MACS: usize = 64;
pub const NAME: usize = 255;
pub const URL: usize = 2048;
pub const KERNEL_PARAMETERS: usize = 4096;
/// PEM of an agent's certificate in a heartbeat, in bytes.
pub const CERTIFICATE_PEM: usize = 16 << 10;
/// Connections to one controller from one address, and from all.
pub const CONTROLLER_CONNECTIONS_PER_ADDRESS: usize = 256;
pub const CONTROLLER_CONNECTIONS: usize = 20_000;
/// Downloads: redirects followed, DNS answers tried, tries in all.
pub const REDIRECTS: usize = 5;
pub const DNS_ANSWERS: usize = 8;
pub const DOWNLOAD_TRIES: u32 = 5;
/// Downloads: longest silence; the slowest rate kept for [`DOWNLOAD_SLOW_TIME`]. With the file's length they bound the whole.
pub const DOWNLOAD_SILENCE: Duration = Duration::from_secs(60);
pub const DOWNLOAD_SLOW_RATE: u64 = 64 << 10;
pub const DOWNLOAD_SLOW_TIME: Duration = Duration::from_secs(300);
/// A checksum file; the response headers of an image server, in bytes.
pub const CHECKSUM_FILE: usize = 1 << 20;
pub const IMAGE_SERVER_HEADERS: usize = 64 << 10;
/// Output kept of a spawned program, in bytes.
pub const PROGRAM_OUTPUT: usize = 1 << 20;
/// A config drive before compression, in bytes (Ironic's limit).
pub const CONFIG_DRIVE: u64 = 64 * MIB;
/// Smallest disk that is chosen without hints, in bytes (ironic-python-agent's rule).
pub const SMALLEST_ROOT_DISK: u64 = 4 * GIB;
/// A DHCP datagram in bytes; different options in one.
pub const DHCP_MESSAGE: usize = 4096;
pub const DHCP_OPTIONS: usize = 254;
/// Time servers that are asked, those of one name together.
pub const NTP_SERVERS: usize = 8;
/// A TFTP request in bytes (RFC 2347); its options; bytes a block that fit an Ethernet frame; blocks a window.
pub const TFTP_REQUEST: usize = 512;
pub const TFTP_OPTIONS: usize = 16;
pub const TFTP_BLOCK: usize = 1468;
pub const TFTP_WINDOW: u16 = 8;
/// TFTP transfers to one address, and to all; resends of one window; bytes of a boot file.
pub const TFTP_TRANSFERS_PER_ADDRESS: usize = 4;
pub const TFTP_TRANSFERS: usize = 256;
pub const TFTP_RESENDS: u32 = 5;
pub const BOOT_FILE: u64 = 16 * MIB;
/// DHCP answers a second; leases to machines that are not enrolled; addresses of a range.
pub const DHCP_ANSWERS_PER_SECOND: u32 = 200;
pub const DHCP_UNKNOWN_LEASES: usize = 1024;
pub const DHCP_RANGE: u32 = 65_536;
/// Connections to the boot server from one address, and from all; one chunk of a file it sends, in bytes.
pub const BOOT_CONNECTIONS_PER_ADDRESS: usize = 64;
pub const BOOT_CONNECTIONS: usize = 2048;
pub const BOOT_CHUNK: usize = 256 << 10;
/// The most that a zstd frame in an image may ask its decoder to remember, in bytes (what zstd itself needs up to level 19).
pub const ZSTD_WINDOW: u64 = 8 * MIB;
/// Bytes of an image that the controller reads to know its format and size.
pub const IMAGE_HEAD: usize = 64 << 10;
