//! Raw whole-disk images with a partition table: GPT for a sector size, MBR, or one that was broken on purpose.

use super::content;

/// What a GPT says; a changed field is what is wrong with it.
#[derive(Clone, Debug)]
pub struct Gpt {
    pub sector: usize,
    pub header_size: u32,
    pub own_lba: u64,
    pub array_lba: u64,
    pub entries: u32,
    pub entry_size: u32,
    /// First and last sector of the one partition; `None`: as much as there is.
    pub partition: Option<(u64, u64)>,
}

impl Default for Gpt {
    fn default() -> Self {
        Gpt {
            sector: 512,
            header_size: 92,
            own_lba: 1,
            array_lba: 2,
            entries: 128,
            entry_size: 128,
            partition: None,
        }
    }
}

/// Bytes of a GPT's array of entries.
const ARRAY: usize = 16_384;
const MIB: usize = 1 << 20;

pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Gpt {
    /// A disk of `size` bytes with this table at both ends, and checksums that are right.
    pub fn disk(&self, seed: u64, size: usize) -> Vec<u8> {
        let mut disk = content::disk(seed, size);
        disk[..MIB].fill(0);
        disk[size - MIB..].fill(0);
        let sectors = (size / self.sector) as u64;
        let array_sectors = (ARRAY / self.sector) as u64;
        let mut array = vec![0; ARRAY];
        // Linux file system data, in on-disk byte order.
        let kind =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        array[..16].copy_from_slice(&kind);
        array[16..32].fill(7);
        let per_mib = (MIB / self.sector) as u64;
        let (first, last) = self.partition.unwrap_or((per_mib, sectors - per_mib - 1));
        array[32..40].copy_from_slice(&first.to_le_bytes());
        array[40..48].copy_from_slice(&last.to_le_bytes());
        let mut put = |lba: u64, bytes: &[u8]| {
            let at = lba as usize * self.sector;
            disk[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let last = sectors - 1;
        put(2, &array);
        put(last - array_sectors, &array);
        put(1, &self.header(sectors, (self.own_lba, last, self.array_lba), &array));
        put(last, &self.header(sectors, (last, 1, last - array_sectors), &array));
        let whole = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
        put(0, &mbr_sector(&[(0xee, 1, whole)]));
        disk
    }

    fn header(&self, sectors: u64, (own, other, table): (u64, u64, u64), array: &[u8]) -> Vec<u8> {
        let array_sectors = (ARRAY / self.sector) as u64;
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&self.header_size.to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&(2 + array_sectors).to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - array_sectors - 2).to_le_bytes());
        header[56..72].fill(9);
        header[72..80].copy_from_slice(&table.to_le_bytes());
        header[80..84].copy_from_slice(&self.entries.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(array).to_le_bytes());
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// A boot sector with these entries: type, first sector, count.
fn mbr_sector(entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    for (entry, (kind, first, count)) in sector[446..510].chunks_mut(16).zip(entries) {
        entry[..8].copy_from_slice(&[0, 0, 2, 0, *kind, 255, 255, 255]);
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A disk with an MBR of these entries.
pub fn mbr(seed: u64, size: usize, entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut disk = content::disk(seed, size);
    disk[..512].copy_from_slice(&mbr_sector(entries));
    disk
}
