//! `cargo xtask bench`: how fast we are, always beside others and beside what the machine allows.
//!
//! `image` writes images with our agent and with what people use today, `parts` measures what such a write is made of.
//! How to read the tables: `docs/performance.md`.

mod cases;
mod contenders;
mod disk;
mod image;
mod images;
mod machine;
mod measure;
mod options;
mod parts;
mod recipes;
mod roofline;
mod scatter;
mod server;
mod stage;
mod table;

use anyhow::{Result, bail};
use ferric_tests::host::{self, Consent, Package};
use options::Options;

pub const USAGE: &str = "usage: cargo xtask bench image [--only WORD[,WORD]] [--runs N] [--quick] [--json FILE] [--agent PATH] [--yes]
       cargo xtask bench parts [--json FILE] [--yes]";

/// What measuring needs, ours and the others' programs.
const PACKAGES: &[Package] = &[
    ("musl-tools", "/usr/bin/musl-gcc"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("mtools", "/usr/bin/mformat"),
    ("e2fsprogs", "/sbin/mke2fs"),
    ("fdisk", "/sbin/sfdisk"),
    ("iproute2", "/sbin/tc"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    ("qemu-block-extra", "/usr/lib/x86_64-linux-gnu/qemu/block-curl.so"),
    ("curl", "/usr/bin/curl"),
    ("zstd", "/usr/bin/zstd"),
    ("xz-utils", "/usr/bin/xz"),
    ("python3-requests", "/usr/lib/python3/dist-packages/requests/__init__.py"),
    // coreos-installer is compiled against these.
    ("pkg-config", "/usr/bin/pkg-config"),
    ("libssl-dev", "/usr/include/openssl/ssl.h"),
    ("libzstd-dev", "/usr/include/zstd.h"),
];

/// Runs the command named by `arguments`.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (command, words) = match arguments {
        ["image", words @ ..] => (image::run as fn(&Options) -> Result<()>, words),
        ["parts", words @ ..] => (parts::run as fn(&Options) -> Result<()>, words),
        _ => bail!("{USAGE}"),
    };
    let options = Options::parse(words)?;
    let consent = if options.yes { Consent::Given } else { host::consent() };
    host::prepare_for(PACKAGES, consent)?;
    command(&options)
}
