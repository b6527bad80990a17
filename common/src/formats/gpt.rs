//! GUID partition tables: read one, fit it to another disk, add a partition, render both copies.
//!
//! Pure bytes; which disk they go to and when is the caller's business. Protective MBRs are in [`super::mbr`].
//! Specification: UEFI 2.10, chapter 5.3 (GPT disk layout).

use crate::units::SectorSize;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of a partition entry. The specification allows larger ones; nobody writes them, so they are refused.
pub const ENTRY_SIZE: usize = 128;
/// Entries in a table: 128 is usual, 1,024 is the most that is read (128 KiB, inside the first MiB).
pub const MAX_ENTRIES: u32 = 1024;
/// Type GUID `0FC63DAF-8483-4772-8E79-3D69D8477DE4`, Linux file system data, in on-disk byte order.
pub const LINUX_DATA: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];

/// Type GUID `C12A7328-F81F-11D2-BA4B-00A0C93EC93B`, EFI system partition, in on-disk byte order.
pub const SYSTEM_PARTITION: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// Entries of a table that is made anew.
const NEW_ENTRIES: u32 = 128;
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of a header up to and including the array's CRC.
const HEADER_SIZE: usize = 92;
/// UTF-16 units in a partition's name.
const NAME_UNITS: usize = 36;

/// Why a table is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    #[error("no GPT header at byte {at}")]
    NoSignature { at: u64 },
    #[error(
        "the GPT was made for {found}-byte sectors, the disk has {disk}-byte sectors: build the image for this sector size"
    )]
    OtherSectorSize { found: u32, disk: u32 },
    #[error("the GPT is cut off: {what} ends past the {have} bytes at hand")]
    Truncated { what: &'static str, have: usize },
    #[error("GPT header: {field} is {value}, {rule}")]
    Field { field: &'static str, value: u64, rule: &'static str },
    #[error("GPT header CRC is {actual:#010x}, the header says {stated:#010x}")]
    HeaderCrc { actual: u32, stated: u32 },
    #[error("GPT partition array CRC is {actual:#010x}, the header says {stated:#010x}")]
    ArrayCrc { actual: u32, stated: u32 },
    #[error("GPT partition {number} ends in sector {last}, the last usable sector of this disk is {limit}")]
    Outside { number: u32, last: u64, limit: u64 },
    #[error("GPT partition {number} goes from sector {first} to {last}: not a range past the primary table")]
    Range { number: u32, first: u64, last: u64 },
    #[error("a disk of {sectors} sectors is too small for a GPT")]
    DiskTooSmall { sectors: u64 },
    #[error("all {0} entries of the GPT are in use")]
    Full(u32),
}

/// One used entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1, as in `/dev/sda1`.
    pub number: u32,
    /// On-disk byte order (first three fields little-endian).
    pub type_guid: [u8; 16],
    pub guid: [u8; 16],
    /// First and last sector, both part of it.
    pub first: u64,
    pub last: u64,
    pub name: String,
}

/// A table whose checksums were right.
#[derive(Clone, Debug)]
pub struct Gpt {
    sector: u64,
    /// As read, `header size` bytes: reserved bytes of a later revision survive.
    header: Vec<u8>,
    array: Vec<u8>,
    entries: u32,
    array_lba: u64,
    alternate: u64,
    last_usable: u64,
    disk_guid: [u8; 16],
}

impl Gpt {
    /// An empty table of 128 entries for a disk of `sectors` sectors.
    ///
    /// # Errors
    /// The disk is too small for it.
    pub fn new(sectors: u64, sector: SectorSize, disk_guid: [u8; 16]) -> Result<Gpt, GptError> {
        let mut header = vec![0; HEADER_SIZE];
        let array = vec![0; NEW_ENTRIES as usize * ENTRY_SIZE];
        put(&mut header, 0, SIGNATURE);
        // Revision 1.0, and the header's length.
        put(&mut header, 8, &[0, 0, 1, 0, HEADER_SIZE as u8, 0, 0, 0]);
        let mut table = Gpt {
            sector: u64::from(sector.0.max(1)),
            header,
            array,
            entries: NEW_ENTRIES,
            array_lba: 2,
            alternate: 0,
            last_usable: 0,
            disk_guid,
        };
        let first_usable = table.array_lba + table.array_sectors();
        put(&mut table.header, 40, &first_usable.to_le_bytes());
        put(&mut table.header, 56, &disk_guid);
        put(&mut table.header, 80, &NEW_ENTRIES.to_le_bytes());
        put(&mut table.header, 84, &(ENTRY_SIZE as u32).to_le_bytes());
        table.fit(sectors)?;
        Ok(table)
    }

    /// Whether a GPT header's signature stands in sector 1 for this sector size.
    pub fn is_present(head: &[u8], sector: SectorSize) -> bool {
        slice(head, u64::from(sector.0), SIGNATURE.len()) == Some(SIGNATURE)
    }

    /// Reads the primary table from the start of a disk or image.
    ///
    /// # Errors
    /// [`GptError`]: a wrong checksum, a table for another sector size, an odd geometry.
    pub fn parse(head: &[u8], sector: SectorSize) -> Result<Gpt, GptError> {
        if !Self::is_present(head, sector) {
            let other = [512, 4096, 1024, 2048].into_iter().find(|&s| Self::is_present(head, SectorSize(s)));
            return Err(match other {
                Some(found) => GptError::OtherSectorSize { found, disk: sector.0 },
                None => GptError::NoSignature { at: u64::from(sector.0) },
            });
        }
        let at = u64::from(sector.0);
        let cut = |what| GptError::Truncated { what, have: head.len() };
        let fixed = slice(head, at, HEADER_SIZE).ok_or(cut("the header"))?;
        let size = le32(fixed, 12);
        if (size as usize) < HEADER_SIZE || size > sector.0 {
            return Err(field("its size", u64::from(size), "must be 92 to one sector"));
        }
        let header = slice(head, at, size as usize).ok_or(cut("the header"))?.to_vec();
        let (stated, actual) = (le32(&header, 16), header_crc(&header));
        if stated != actual {
            return Err(GptError::HeaderCrc { actual, stated });
        }
        let my_lba = le64(&header, 24);
        if my_lba != 1 {
            return Err(field("its own sector", my_lba, "must be 1"));
        }
        let (entries, entry_size) = (le32(&header, 80), le32(&header, 84));
        if entry_size as usize != ENTRY_SIZE {
            return Err(field("the entry size", u64::from(entry_size), "must be 128"));
        }
        if entries == 0 || entries > MAX_ENTRIES {
            return Err(field("the number of entries", u64::from(entries), "must be 1 to 1024"));
        }
        let array_lba = le64(&header, 72);
        if array_lba < 2 {
            return Err(field("the sector of the partition array", array_lba, "must be 2 or more"));
        }
        let array_at = array_lba.checked_mul(at).ok_or(cut("the partition array"))?;
        let array =
            slice(head, array_at, entries as usize * ENTRY_SIZE).ok_or(cut("the partition array"))?.to_vec();
        let (stated, actual) = (le32(&header, 88), crc32(&array));
        if stated != actual {
            return Err(GptError::ArrayCrc { actual, stated });
        }
        let mut disk_guid = [0; 16];
        disk_guid.copy_from_slice(slice(&header, 56, 16).unwrap_or(&[0; 16]));
        let (alternate, last_usable) = (le64(&header, 32), le64(&header, 48));
        Ok(Gpt { sector: at, header, array, entries, array_lba, alternate, last_usable, disk_guid })
    }

    /// The disk's GUID, in on-disk byte order.
    pub fn disk_guid(&self) -> [u8; 16] {
        self.disk_guid
    }

    /// Last sector a partition may use.
    pub fn last_usable(&self) -> u64 {
        self.last_usable
    }

    /// Sector of the backup header.
    pub fn backup_lba(&self) -> u64 {
        self.alternate
    }

    /// The used entries, in the table's order.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        self.array.chunks_exact(ENTRY_SIZE).zip(1u32..).filter_map(|(entry, number)| {
            let mut type_guid = [0; 16];
            type_guid.copy_from_slice(entry.get(..16)?);
            if type_guid == [0; 16] {
                return None;
            }
            let mut guid = [0; 16];
            guid.copy_from_slice(entry.get(16..32)?);
            let units = entry.get(56..)?.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair));
            let name = char::decode_utf16(units.take_while(|&u| u != 0))
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect();
            Some(Partition { number, type_guid, guid, first: le64(entry, 32), last: le64(entry, 40), name })
        })
    }

    /// Moves the backup to the end of a disk of `sectors` sectors and widens (or narrows) the usable range to match.
    ///
    /// # Errors
    /// A partition that would not lie inside the usable range.
    pub fn fit(&mut self, sectors: u64) -> Result<(), GptError> {
        let small = GptError::DiskTooSmall { sectors };
        let alternate = sectors.checked_sub(1).ok_or(small.clone())?;
        let limit = alternate.checked_sub(self.array_sectors() + 1).ok_or(small.clone())?;
        let metadata_end = self.array_lba.checked_add(self.array_sectors()).ok_or(small.clone())?;
        if limit < metadata_end {
            return Err(small);
        }
        for p in self.partitions() {
            // Old layouts put a partition between the header and a far array, so only the header is out of bounds.
            if p.first < 2 || p.first > p.last {
                return Err(GptError::Range { number: p.number, first: p.first, last: p.last });
            }
            if p.last > limit {
                return Err(GptError::Outside { number: p.number, last: p.last, limit });
            }
        }
        self.alternate = alternate;
        self.last_usable = limit;
        Ok(())
    }

    /// Puts a partition into the first free entry and returns its number; `partition.number` is not read. The name is
    /// cut to 36 UTF-16 units. The caller has checked the range against [`Gpt::partitions`].
    pub fn add(&mut self, partition: &Partition) -> Result<u32, GptError> {
        let full = GptError::Full(self.entries);
        let (entry, number) = self
            .array
            .chunks_exact_mut(ENTRY_SIZE)
            .zip(1u32..)
            .find(|(entry, _)| entry.iter().take(16).all(|&b| b == 0))
            .ok_or(full)?;
        entry.fill(0);
        put(entry, 0, &partition.type_guid);
        put(entry, 16, &partition.guid);
        put(entry, 32, &partition.first.to_le_bytes());
        put(entry, 40, &partition.last.to_le_bytes());
        for (i, unit) in partition.name.encode_utf16().take(NAME_UNITS).enumerate() {
            put(entry, 56 + 2 * i, &unit.to_le_bytes());
        }
        Ok(number)
    }

    /// Writes header and array back into the start of the disk that [`Gpt::parse`] read them from.
    pub fn render_primary(&self, head: &mut [u8]) {
        let header = self.render_header(1, self.alternate, self.array_lba);
        put(head, self.sector as usize, &header);
        put(head, (self.array_lba * self.sector) as usize, &self.array);
    }

    /// The backup: the sector where it starts, and array and header as whole sectors up to the end of the disk.
    pub fn render_backup(&self) -> (u64, Vec<u8>) {
        let first = self.alternate.saturating_sub(self.array_sectors());
        let mut bytes = vec![0; ((self.array_sectors() + 1) * self.sector) as usize];
        put(&mut bytes, 0, &self.array);
        let header = self.render_header(self.alternate, 1, first);
        put(&mut bytes, (self.array_sectors() * self.sector) as usize, &header);
        (first, bytes)
    }

    fn array_sectors(&self) -> u64 {
        (self.array.len() as u64).div_ceil(self.sector)
    }

    fn render_header(&self, my_lba: u64, alternate: u64, array_lba: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        put(&mut header, 24, &my_lba.to_le_bytes());
        put(&mut header, 32, &alternate.to_le_bytes());
        put(&mut header, 48, &self.last_usable.to_le_bytes());
        put(&mut header, 72, &array_lba.to_le_bytes());
        put(&mut header, 88, &crc32(&self.array).to_le_bytes());
        let crc = header_crc(&header);
        put(&mut header, 16, &crc.to_le_bytes());
        header
    }
}

/// CRC of a header with its own CRC field as zero.
fn header_crc(header: &[u8]) -> u32 {
    let mut copy = header.to_vec();
    put(&mut copy, 16, &[0; 4]);
    crc32(&copy)
}

/// CRC-32 as in Ethernet, zip and GPT (reflected polynomial 0xEDB88320).
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        #[allow(clippy::indexing_slicing)] // checked by the compiler: a constant
        while i < 16 {
            let mut c = i as u32;
            let mut k = 0;
            while k < 4 {
                c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
                k += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    let step = |crc: u32| TABLE.get((crc & 15) as usize).copied().unwrap_or(0) ^ (crc >> 4);
    !bytes.iter().fold(!0, |crc, &b| step(step(crc ^ u32::from(b))))
}

fn field(field: &'static str, value: u64, rule: &'static str) -> GptError {
    GptError::Field { field, value, rule }
}

pub(super) fn slice(bytes: &[u8], at: u64, len: usize) -> Option<&[u8]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at.checked_add(len)?)
}

/// Little-endian number at `at`; 0 past the end (callers have checked the length).
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// Copies `value` to `at`; nothing if it would not fit (callers have checked the length).
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(target) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        target.copy_from_slice(value);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::string::ToString;

    /// A disk's head with an empty table of `entries` entries.
    pub(crate) fn blank(sector: u32, sectors: u64, entries: u32) -> Vec<u8> {
        let mut head = vec![0; 1 << 20];
        let mut header = vec![0; HEADER_SIZE];
        put(&mut header, 0, SIGNATURE);
        put(&mut header, 8, &[0, 0, 1, 0, 92, 0, 0, 0]);
        put(&mut header, 40, &34u64.to_le_bytes());
        put(&mut header, 56, &[7; 16]);
        put(&mut header, 80, &entries.to_le_bytes());
        put(&mut header, 84, &128u32.to_le_bytes());
        let gpt = Gpt {
            sector: u64::from(sector),
            header,
            array: vec![0; entries as usize * ENTRY_SIZE],
            entries,
            array_lba: 2,
            alternate: sectors - 1,
            last_usable: sectors - 34,
            disk_guid: [7; 16],
        };
        gpt.render_primary(&mut head);
        head
    }

    fn part(first: u64, last: u64) -> Partition {
        Partition { number: 0, type_guid: LINUX_DATA, guid: [3; 16], first, last, name: "config-2 ä".into() }
    }

    #[test]
    fn the_crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn what_is_added_is_read_again_from_both_copies() {
        for (sector, entries) in [(512, 128), (4096, 128), (512, 4), (4096, 1024)] {
            let sectors = 64 << 20 >> 9;
            let mut head = blank(sector, 20_000, entries);
            let mut gpt = Gpt::parse(&head, SectorSize(sector)).unwrap();
            assert_eq!(gpt.add(&part(2048, 4095)), Ok(1));
            assert_eq!(gpt.add(&part(4096, 4096)), Ok(2));
            gpt.fit(sectors).unwrap();
            gpt.render_primary(&mut head);
            let again = Gpt::parse(&head, SectorSize(sector)).unwrap();
            assert_eq!(again.backup_lba(), sectors - 1);
            let found: Vec<_> = again.partitions().collect();
            assert_eq!(found[0], Partition { number: 1, ..part(2048, 4095) });
            assert_eq!(found[1].number, 2);
            let (at, backup) = gpt.render_backup();
            assert_eq!((at * u64::from(sector)) as usize + backup.len(), sectors as usize * sector as usize);
            let header = &backup[backup.len() - sector as usize..];
            assert_eq!(le32(header, 16), header_crc(&header[..92]));
            assert_eq!((le64(header, 24), le64(header, 32), le64(header, 72)), (sectors - 1, 1, at));
            assert!(backup.starts_with(&gpt.array));
        }
    }

    /// Breaks a good table in one place, with the header's CRC made right again unless that is what is broken.
    #[track_caller]
    fn broken(at: usize, bytes: &[u8], want: &str) {
        let mut head = blank(512, 20_000, 128);
        put(&mut head, 512 + at, bytes);
        if at != 16 {
            let crc = header_crc(&head[512..512 + 92]);
            put(&mut head, 512 + 16, &crc.to_le_bytes());
        }
        assert_eq!(Gpt::parse(&head, SectorSize(512)).unwrap_err().to_string(), want);
    }

    #[test]
    fn odd_tables_are_refused_by_name() {
        broken(0, b"EFI BART", "no GPT header at byte 512");
        broken(12, &91u32.to_le_bytes(), "GPT header: its size is 91, must be 92 to one sector");
        broken(12, &513u32.to_le_bytes(), "GPT header: its size is 513, must be 92 to one sector");
        broken(24, &[2], "GPT header: its own sector is 2, must be 1");
        broken(72, &[1], "GPT header: the sector of the partition array is 1, must be 2 or more");
        broken(72, &[0xff; 8], "the GPT is cut off: the partition array ends past the 1048576 bytes at hand");
        broken(80, &1025u32.to_le_bytes(), "GPT header: the number of entries is 1025, must be 1 to 1024");
        broken(80, &0u32.to_le_bytes(), "GPT header: the number of entries is 0, must be 1 to 1024");
        broken(84, &256u32.to_le_bytes(), "GPT header: the entry size is 256, must be 128");
        broken(88, &[1, 2, 3, 4], "GPT partition array CRC is 0xab54d286, the header says 0x04030201");
        let mut head = blank(512, 20_000, 128);
        head[512 + 16] ^= 1;
        assert!(matches!(Gpt::parse(&head, SectorSize(512)), Err(GptError::HeaderCrc { .. })));
        assert!(matches!(Gpt::parse(&head[..600], SectorSize(512)), Err(GptError::Truncated { .. })));
        let head = blank(4096, 20_000, 128);
        assert_eq!(
            Gpt::parse(&head, SectorSize(512)).unwrap_err().to_string(),
            "the GPT was made for 4096-byte sectors, the disk has 512-byte sectors: build the image for this sector size"
        );
    }

    #[test]
    fn partitions_must_lie_inside_the_disk() {
        let table = |first, last| {
            let mut gpt = Gpt::parse(&blank(512, 20_000, 128), SectorSize(512)).unwrap();
            gpt.add(&part(first, last)).unwrap();
            gpt
        };
        assert_eq!(table(2048, 9966).fit(10_000), Ok(()));
        assert_eq!(
            table(2048, 9967).fit(10_000).unwrap_err().to_string(),
            "GPT partition 1 ends in sector 9967, the last usable sector of this disk is 9966"
        );
        assert!(matches!(table(1, 5).fit(10_000), Err(GptError::Range { .. })));
        assert!(matches!(table(50, 49).fit(10_000), Err(GptError::Range { .. })));
        assert!(matches!(table(50, u64::MAX).fit(10_000), Err(GptError::Outside { .. })));
        for sectors in [0, 1, 33, 60] {
            assert_eq!(table(50, 51).fit(sectors), Err(GptError::DiskTooSmall { sectors }));
        }
    }

    #[test]
    fn a_full_table_is_an_error() {
        let mut gpt = Gpt::parse(&blank(512, 20_000, 1), SectorSize(512)).unwrap();
        assert_eq!(gpt.add(&part(50, 51)), Ok(1));
        assert_eq!(gpt.add(&part(52, 53)), Err(GptError::Full(1)));
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(noise in proptest::collection::vec((0usize..92, 0u8..), 0..6), sectors in 0u64..) {
            let mut head = blank(512, 20_000, 128);
            for (at, byte) in noise {
                head[512 + at] = byte;
            }
            let crc = header_crc(&head[512..604]);
            put(&mut head, 528, &crc.to_le_bytes());
            if let Ok(mut gpt) = Gpt::parse(&head, SectorSize(512)) {
                let _ = gpt.add(&part(sectors / 2, sectors));
                if gpt.fit(sectors).is_ok() {
                    gpt.render_primary(&mut head);
                    assert!(gpt.render_backup().0 < sectors);
                    assert!(Gpt::parse(&head, SectorSize(512)).is_ok());
                }
            }
        }
    }
}
