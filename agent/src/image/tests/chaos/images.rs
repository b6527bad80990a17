//! The images of the chaos: small ones of every kind that takes another way through the pipeline, each with the disk that
//! is right when all goes well.

use super::super::server::Server;
use super::super::*;

pub const DISK: u64 = 6 << 20;
const IMAGE: usize = 3 << 20;

pub struct Made {
    pub name: &'static str,
    pub format: ImageFormat,
    pub file: Arc<Vec<u8>>,
    /// Another image, of the same kind.
    pub other: Arc<Vec<u8>>,
    pub table: bool,
    pub drive: Option<Vec<u8>>,
    /// The disk as it was before, with a system that boots.
    pub old: Arc<Vec<u8>>,
    /// The disk when all went well.
    pub right: Vec<u8>,
}

type Make = fn(&[u8]) -> Vec<u8>;

/// Name, what makes the file of the raw bytes, its format, and whether it has a GPT and gets a config drive.
const KINDS: &[(&str, Make, ImageFormat, bool)] = &[
    ("raw", <[u8]>::to_vec, ImageFormat::Raw, false),
    ("raw, GPT, config drive", <[u8]>::to_vec, ImageFormat::Raw, true),
    ("raw.zst", zst, ImageFormat::Packed(Packing::Zst), false),
    ("raw.gz, GPT, config drive", gz, ImageFormat::Packed(Packing::Gz), true),
    ("qcow2", |raw| qcow2(raw, &[]), ImageFormat::Qcow2, false),
    ("qcow2, zlib, GPT, config drive", |raw| qcow2(raw, &["-c"]), ImageFormat::Qcow2, true),
    ("qcow2, zstd, 4 KiB", zstd_4k, ImageFormat::Qcow2, false),
    ("qcow2, L1 last", |raw| l1_last(raw, "cluster_size=64k"), ImageFormat::Qcow2, false),
    ("qcow2, 512 B, L1 last", |raw| l1_last(raw, "cluster_size=512"), ImageFormat::Qcow2, false),
];

fn zst(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 1).unwrap()
}

fn gz(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, raw).unwrap();
    encoder.finish().unwrap()
}

fn zstd_4k(raw: &[u8]) -> Vec<u8> {
    qcow2(raw, &["-c", "-o", "compression_type=zstd,cluster_size=4k"])
}

/// An image whose L1 table is the last thing in its file, as growing leaves it; moved by hand.
fn l1_last(raw: &[u8], options: &str) -> Vec<u8> {
    let mut file = qcow2(raw, &["-o", options]);
    let (at, entries) = (number(&file, 40, 8), number(&file, 36, 4));
    let table = file[at..at + entries * 8].to_vec();
    file.resize(file.len().next_multiple_of(64 << 10), 0);
    let end = file.len() as u64;
    file[40..48].copy_from_slice(&end.to_be_bytes());
    file.extend(table);
    file.resize(file.len().next_multiple_of(64 << 10), 0);
    file
}

/// A big-endian number of a qcow2 header.
fn number(file: &[u8], at: usize, bytes: usize) -> usize {
    file[at..at + bytes].iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

pub fn make() -> Vec<Made> {
    let old = Arc::new(gpt_image(99, DISK as usize, 512));
    let image = |seed, table| if table { gpt_image(seed, IMAGE, 512) } else { mbr_image(seed, IMAGE) };
    let made = KINDS.iter().map(|(name, make, format, table)| {
        let (raw, other) = (image(61, *table), image(62, *table));
        let mut made = Made {
            name,
            format: *format,
            file: Arc::new(make(&raw)),
            other: Arc::new(make(&other)),
            table: *table,
            drive: table.then(|| Rng::new(5).bytes(200_000)),
            old: old.clone(),
            right: Vec::new(),
        };
        made.right = honest(&made);
        // What lies between the ends is the image as it was made; what is at the ends has its own tests.
        let (from, to) = (MIB as usize, IMAGE - MIB as usize);
        assert!(made.right[from..to] == raw[from..to], "{name}");
        assert!(*table || made.right.starts_with(&raw), "{name}");
        made
    });
    made.collect()
}

impl Made {
    pub fn request(&self, url: &str) -> WriteRequest {
        let mut request = ask(url, self.format, &self.file);
        request.image.require_partition_table = self.table;
        request.config_drive = self.drive.clone();
        request
    }
}

/// The disk after a write in which nothing goes wrong.
fn honest(made: &Made) -> Vec<u8> {
    let server = Server::of(made.file.clone(), [], Default::default());
    let disk = MemDisk::new(DISK).holding(&made.old);
    let (result, disk) = write(&made.request(&server.url()), disk);
    assert_eq!(words(&result), "complete", "{}", made.name);
    disk.content()
}
