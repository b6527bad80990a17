//! `cargo xtask bench`: how fast we are, always beside others and beside what the machine allows.
//!
//! `image` writes images with our agent and with what people use today, `parts` measures what such a write is made of,
//! `agent` boots our ramdisk and the Python agent's and deploys with them.
//! How to read the tables: `docs/performance.md`.

mod agent;
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

use anyhow::{Result, bail, ensure};
use ferric_tests::host::{self, Consent, Package};
use options::Options;

pub const USAGE: &str = "usage: cargo xtask bench image [--only WORD[,WORD]] [--runs N] [--quick] [--json FILE] [--agent PATH] [--yes]
       cargo xtask bench parts [--json FILE] [--yes]
       cargo xtask bench agent [--runs N] [--quick] [--json FILE] [--yes]";

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
    type Run = fn(&Options) -> Result<()>;
    let (command, words, packages, runs) = match arguments {
        ["image", words @ ..] => (image::run as Run, words, PACKAGES, options::RUNS),
        ["parts", words @ ..] => (parts::run as Run, words, PACKAGES, options::RUNS),
        ["agent", words @ ..] => (agent::run as Run, words, host::NEEDED, agent::RUNS),
        _ => bail!("{USAGE}"),
    };
    let options = Options::parse(words, runs)?;
    let is_image = arguments.first() == Some(&"image");
    ensure!(
        is_image || (options.only.is_empty() && options.agent.is_none()),
        "--only and --agent are for bench image\n{USAGE}"
    );
    let consent = if options.yes { Consent::Given } else { host::consent() };
    host::prepare_for(packages, consent)?;
    command(&options)
}
