//! A small qcow2 writer of our own, for what qemu-img reads but never writes: tables behind their data, shuffled and
//! shared clusters, compressed streams at odd bytes, every subcluster map, long headers, unknown bits.
//!
//! It shares no code with the reader under test. What it makes passes `qemu-img check`, save where a recipe strays on
//! purpose. Specification: QEMU's `docs/interop/qcow2`.

use super::content::Rng;
use std::io::Write;

const COPIED: u64 = 1 << 63;
pub const COMPRESSED: u64 = 1 << 62;
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// One cluster of the disk.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// No entry.
    Hole,
    /// The zero flag (or all subclusters zero), and no place in the file.
    Zero,
    /// The zero flag, and a place in the file that holds other bytes.
    ZeroPlaced,
    Data(Vec<u8>),
    /// The place of an earlier cluster, once more.
    Like(usize),
    /// Compressed: what comes out, and the stream as it stands in the file.
    Packed {
        plain: Vec<u8>,
        stream: Vec<u8>,
    },
    /// With extended entries: the subclusters of `allocated` are there, those of `zero` are zeros, the others are neither.
    Parts {
        data: Vec<u8>,
        allocated: u32,
        zero: u32,
    },
}

/// What stands in the file, in order. The header is first, refcount blocks are last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    RefcountTable,
    L1,
    L2,
    /// All clusters in the order of the disk; backwards; the first half of them; the second half.
    Data,
    Backwards,
    FirstHalf,
    SecondHalf,
    /// A cluster that nothing points to.
    Garbage,
}

/// How compressed clusters say how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// The sectors they touch.
    Sectors,
    /// As much as the field holds: past the stream, and past the end of the file.
    Most,
}

#[derive(Clone, Debug)]
pub struct Recipe {
    pub version: u32,
    pub bits: u32,
    /// Bytes of the disk; cut from the last cluster.
    pub size: u64,
    pub extended: bool,
    pub zstd: bool,
    /// Version 3; beyond the compression type the header is filled with what no reader knows.
    pub header_length: usize,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub extensions: Vec<(u32, Vec<u8>)>,
    /// L1 entries behind those that the disk needs; the filling of L2 entries behind the disk's end.
    pub l1_rest: Vec<u64>,
    pub l2_rest: u64,
    pub stated: Stated,
    /// Bytes that nothing uses between two compressed streams.
    pub gap: usize,
    /// The last cluster in the file is cut where the disk ends.
    pub is_cut: bool,
    /// Whether refcounts are right, or all 0.
    pub has_refcounts: bool,
    pub order: Vec<Part>,
    pub clusters: Vec<Cluster>,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            version: 3,
            bits: 12,
            size: 0,
            extended: false,
            zstd: false,
            header_length: 112,
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            extensions: Vec::new(),
            l1_rest: Vec::new(),
            l2_rest: 0,
            stated: Stated::Sectors,
            gap: 0,
            is_cut: false,
            has_refcounts: true,
            order: vec![Part::RefcountTable, Part::L1, Part::L2, Part::Data],
            clusters: Vec::new(),
        }
    }
}

/// An image, what it means, and where its parts are.
#[derive(Clone, Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    pub content: Vec<u8>,
    pub l1: usize,
    /// File byte of each L2 table.
    pub l2: Vec<usize>,
    /// File byte of each cluster of the disk; 0 where it has none.
    pub data: Vec<usize>,
}

impl Built {
    pub fn put64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
}

impl Recipe {
    /// A disk of these clusters, whole.
    pub fn of(bits: u32, clusters: Vec<Cluster>) -> Recipe {
        Recipe { bits, size: (clusters.len() as u64) << bits, clusters, ..Recipe::default() }
    }

    fn cluster(&self) -> usize {
        1 << self.bits
    }

    fn words(&self) -> usize {
        if self.extended { 2 } else { 1 }
    }

    fn per_l2(&self) -> usize {
        self.cluster() / 8 / self.words()
    }

    pub fn build(&self) -> Built {
        let tables = self.clusters.len().div_ceil(self.per_l2()).max(1);
        let mut draft = Draft {
            recipe: self,
            bytes: vec![0; self.cluster()],
            places: vec![(0, 0); self.clusters.len()],
            l1: 0,
            l2: 0,
            refcounts: 0,
            tables,
        };
        for part in &self.order {
            draft.place(*part);
        }
        draft.finish()
    }

    /// What the disk reads as.
    fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for nth in 0..self.clusters.len() {
            content.extend(self.read(nth));
        }
        content.resize(self.size as usize, 0);
        content
    }

    fn read(&self, nth: usize) -> Vec<u8> {
        let mut bytes = match &self.clusters[nth] {
            Cluster::Hole | Cluster::Zero | Cluster::ZeroPlaced => Vec::new(),
            Cluster::Data(data) | Cluster::Packed { plain: data, .. } => data.clone(),
            Cluster::Like(other) => self.read(*other),
            Cluster::Parts { data, allocated, .. } => {
                let mut data = data.clone();
                let part = self.cluster() / 32;
                for (bit, bytes) in data.chunks_mut(part).enumerate() {
                    if allocated >> bit & 1 == 0 {
                        bytes.fill(0);
                    }
                }
                data
            }
        };
        bytes.resize(self.cluster(), 0);
        bytes
    }
}

struct Draft<'a> {
    recipe: &'a Recipe,
    bytes: Vec<u8>,
    /// File byte and length of each cluster's bytes; 0 where it has none.
    places: Vec<(usize, usize)>,
    l1: usize,
    l2: usize,
    refcounts: usize,
    tables: usize,
}

impl Draft<'_> {
    fn align(&mut self) -> usize {
        let end = self.bytes.len().next_multiple_of(self.recipe.cluster());
        self.bytes.resize(end, 0);
        end
    }

    fn reserve(&mut self, bytes: usize) -> usize {
        let at = self.align();
        self.bytes.resize(at + bytes, 0);
        self.align();
        at
    }

    fn place(&mut self, part: Part) {
        let count = self.places.len();
        let cluster = self.recipe.cluster();
        match part {
            Part::RefcountTable => self.refcounts = self.reserve(cluster),
            Part::L1 => self.l1 = self.reserve((self.tables + self.recipe.l1_rest.len()) * 8),
            Part::L2 => self.l2 = self.reserve(self.tables * cluster),
            Part::Data => (0..count).for_each(|nth| self.data(nth)),
            Part::Backwards => (0..count).rev().for_each(|nth| self.data(nth)),
            Part::FirstHalf => (0..count / 2).for_each(|nth| self.data(nth)),
            Part::SecondHalf => (count / 2..count).for_each(|nth| self.data(nth)),
            Part::Garbage => {
                let at = self.reserve(cluster);
                self.bytes[at..at + cluster].fill(0xee);
            }
        }
    }

    fn data(&mut self, nth: usize) {
        let cluster = self.recipe.cluster();
        let (at, length) = match &self.recipe.clusters[nth] {
            Cluster::Hole | Cluster::Zero | Cluster::Like(_) => (0, 0),
            Cluster::Parts { allocated: 0, zero, .. } if *zero == u32::MAX => (0, 0),
            Cluster::Packed { stream, .. } => {
                let at = self.bytes.len() + self.recipe.gap;
                self.bytes.resize(at, 0xdd);
                self.bytes.extend_from_slice(stream);
                (at, stream.len())
            }
            Cluster::ZeroPlaced => {
                let at = self.reserve(cluster);
                self.bytes[at..at + cluster].fill(0xcc);
                (at, cluster)
            }
            Cluster::Data(data) | Cluster::Parts { data, .. } => {
                let at = self.align();
                self.bytes.extend_from_slice(data);
                if !self.recipe.is_cut {
                    self.align();
                }
                (at, cluster)
            }
        };
        self.places[nth] = (at, length);
    }

    /// The entry and, with extended entries, its map.
    fn entry(&self, nth: usize) -> [u64; 2] {
        let extended = self.recipe.extended;
        let (at, length) = self.places[nth];
        let zero = if extended { [0, u64::from(u32::MAX) << 32] } else { [1, 0] };
        match &self.recipe.clusters[nth] {
            Cluster::Hole => [0, 0],
            Cluster::Zero => zero,
            Cluster::ZeroPlaced => [at as u64 | zero[0], zero[1]],
            Cluster::Like(other) => self.entry(*other),
            Cluster::Data(_) => [at as u64, u64::from(u32::MAX)],
            Cluster::Parts { allocated, zero, .. } => {
                [at as u64, u64::from(*zero) << 32 | u64::from(*allocated)]
            }
            Cluster::Packed { .. } => {
                let most = (1 << (self.recipe.bits - 8)) - 1;
                let sectors = match self.recipe.stated {
                    Stated::Sectors => (at + length - 1) / 512 - at / 512,
                    Stated::Most => most,
                };
                [COMPRESSED | (sectors.min(most) as u64) << (70 - self.recipe.bits) | at as u64, 0]
            }
        }
    }

    fn finish(mut self) -> Built {
        let recipe = self.recipe;
        let cluster = recipe.cluster();
        let mut used = Vec::new();
        for nth in 0..self.places.len() {
            let entry = self.entry(nth)[0];
            if entry & COMPRESSED != 0 {
                let sectors = (entry & !COMPRESSED) >> (70 - recipe.bits);
                let at = (entry & ((1 << (70 - recipe.bits)) - 1)) as usize / 512 * 512;
                used.extend(at / cluster..=(at + sectors as usize * 512) / cluster);
            } else if entry & OFFSET != 0 {
                used.push((entry & OFFSET) as usize / cluster);
            }
        }
        let l1_clusters = ((self.tables + recipe.l1_rest.len()) * 8).div_ceil(cluster);
        used.extend([0, self.refcounts / cluster]);
        used.extend(self.l1 / cluster..self.l1 / cluster + l1_clusters);
        used.extend(self.l2 / cluster..self.l2 / cluster + self.tables);
        let counts = self.count(used);
        let copied = |at: usize| if counts.get(at / cluster) == Some(&1) { COPIED } else { 0 };
        for nth in 0..self.tables * recipe.per_l2() {
            let entry = if nth < self.places.len() { self.entry(nth) } else { [recipe.l2_rest, 0] };
            let is_plain = nth < self.places.len() && entry[0] & COMPRESSED == 0 && entry[0] & OFFSET != 0;
            let mark = if is_plain { copied((entry[0] & OFFSET) as usize) } else { 0 };
            let at = self.l2 + nth * 8 * recipe.words();
            put64(&mut self.bytes, at, entry[0] | mark);
            if recipe.extended {
                put64(&mut self.bytes, at + 8, entry[1]);
            }
        }
        for table in 0..self.tables {
            let at = self.l2 + table * cluster;
            put64(&mut self.bytes, self.l1 + table * 8, at as u64 | copied(at));
        }
        for (nth, entry) in recipe.l1_rest.iter().enumerate() {
            put64(&mut self.bytes, self.l1 + (self.tables + nth) * 8, *entry);
        }
        self.header();
        let l2 = (0..self.tables).map(|table| self.l2 + table * cluster).collect();
        let data = self.places.iter().map(|(at, _)| *at).collect();
        Built { bytes: self.bytes, content: recipe.content(), l1: self.l1, l2, data }
    }

    /// Counts references, puts the blocks at the end and the table where it is; the count of each cluster.
    fn count(&mut self, used: Vec<usize>) -> Vec<u16> {
        let cluster = self.recipe.cluster();
        let before = self.bytes.len().div_ceil(cluster);
        let highest = used.iter().copied().max().unwrap_or(0).max(before);
        let per_block = cluster / 2;
        let mut blocks = 1;
        while blocks * per_block < before + blocks || blocks * per_block <= highest {
            blocks += 1;
        }
        // A cut file keeps its end: its blocks would hide that.
        if self.recipe.is_cut || !self.recipe.has_refcounts {
            return vec![0; before];
        }
        let first = self.reserve(blocks * cluster) / cluster;
        let mut counts = vec![0u16; blocks * per_block];
        for at in used.into_iter().chain(first..first + blocks) {
            counts[at] += 1;
        }
        for block in 0..blocks {
            let at = (first + block) * cluster;
            put64(&mut self.bytes, self.refcounts + block * 8, at as u64);
            for (nth, count) in counts[block * per_block..][..per_block].iter().enumerate() {
                self.bytes[at + nth * 2..][..2].copy_from_slice(&count.to_be_bytes());
            }
        }
        counts
    }

    fn header(&mut self) {
        let recipe = self.recipe;
        let bytes = &mut self.bytes;
        let mut put32 = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        put32(0, 0x5146_49fb);
        put32(4, recipe.version);
        put32(20, recipe.bits);
        put32(36, (self.tables + recipe.l1_rest.len()) as u32);
        put32(56, 1);
        if recipe.version > 2 {
            put32(96, 4);
            put32(100, recipe.header_length as u32);
        }
        put64(bytes, 24, recipe.size);
        put64(bytes, 40, self.l1 as u64);
        put64(bytes, 48, self.refcounts as u64);
        let mut at = 72;
        if recipe.version > 2 {
            let own = u64::from(recipe.extended) << 4 | u64::from(recipe.zstd) << 3;
            put64(bytes, 72, recipe.incompatible | own);
            put64(bytes, 80, recipe.compatible);
            put64(bytes, 88, recipe.autoclear);
            if recipe.header_length > 104 {
                bytes[104] = u8::from(recipe.zstd);
            }
            if recipe.header_length > 112 {
                bytes[112..recipe.header_length].fill(0x77);
            }
            at = recipe.header_length;
        }
        for (kind, data) in &recipe.extensions {
            bytes[at..at + 4].copy_from_slice(&kind.to_be_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&(data.len() as u32).to_be_bytes());
            bytes[at + 8..at + 8 + data.len()].copy_from_slice(data);
            at += 8 + data.len().next_multiple_of(8);
        }
    }
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// A raw deflate stream with a window of 4 KiB, which is all that QEMU's reader has.
pub fn deflate(plain: &[u8], level: u32) -> Vec<u8> {
    let mut packer = flate2::Compress::new_with_window_bits(flate2::Compression::new(level), false, 12);
    let mut stream = Vec::with_capacity(plain.len() + plain.len() / 8 + 256);
    packer
        .compress_vec(plain, &mut stream, flate2::FlushCompress::Finish)
        .expect("compressing into memory that is large enough");
    assert_eq!(packer.total_in(), plain.len() as u64);
    stream
}

/// Stored blocks only: deflate that is longer than what it holds.
pub fn stored(plain: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let count = plain.len().div_ceil(1000);
    for (nth, piece) in plain.chunks(1000).enumerate() {
        stream.push(u8::from(nth + 1 == count));
        let length = piece.len() as u16;
        stream.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
        stream.extend_from_slice(piece);
    }
    stream
}

/// What a zstd frame carries beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Content size and checksum.
    Full,
    /// Neither.
    Bare,
    /// A block every 100 bytes, neither size nor checksum.
    Blocks,
}

/// One zstd frame.
pub fn zstd_frame(plain: &[u8], frame: Frame, level: i32) -> Vec<u8> {
    let mut packer = zstd::stream::Encoder::new(Vec::new(), level).expect("a level that zstd has");
    let is_full = frame == Frame::Full;
    packer
        .include_checksum(is_full)
        .and_then(|()| packer.include_contentsize(is_full))
        .expect("zstd's options");
    if is_full {
        packer.set_pledged_src_size(Some(plain.len() as u64)).expect("a size");
    }
    let pieces = if frame == Frame::Blocks { 100 } else { plain.len().max(1) };
    for piece in plain.chunks(pieces) {
        packer.write_all(piece).expect("writing into memory");
        if frame == Frame::Blocks {
            packer.flush().expect("writing into memory");
        }
    }
    packer.finish().expect("writing into memory")
}

/// `count` clusters of every plain kind, by a seed.
pub fn mixed(seed: u64, bits: u32, count: usize) -> Vec<Cluster> {
    let mut rng = Rng::new(seed);
    let kinds = (0..count).map(|nth| match rng.below(8) {
        0 => Cluster::Hole,
        1 => Cluster::Zero,
        2 => Cluster::ZeroPlaced,
        _ => Cluster::Data(super::content::text(seed << 20 | nth as u64, 1 << bits)),
    });
    kinds.collect()
}

/// `count` clusters of which most are compressed, some plain, some absent.
pub fn packed(seed: u64, bits: u32, count: usize, pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Cluster> {
    let mut rng = Rng::new(seed);
    let kinds = (0..count).map(|nth| {
        let plain = super::content::text(seed << 20 | nth as u64, 1 << bits);
        match rng.below(8) {
            0 => Cluster::Hole,
            1 => Cluster::Data(plain),
            _ => Cluster::Packed { stream: pack(&plain), plain },
        }
    });
    kinds.collect()
}
