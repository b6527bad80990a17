//! What an image's partition table becomes on the disk it lands on: backup GPT at the real end, a partition for the
//! config drive.
//!
//! Pure: bytes of the image's first MiB in, bytes to write out. The image pipeline writes them in its order (all that
//! is returned first, the head last). Tables themselves are read and rendered by `ferric_common::formats`.

use ferric_common::formats::gpt::{self, Gpt, GptError};
use ferric_common::formats::mbr;
use ferric_common::limits;
use ferric_common::units::{ByteCount, DiskOffset, MIB, SectorSize};
use sha2::{Digest, Sha256};

/// Name of the config drive's GPT partition. Readers look for the file system's label, the name is for people.
const NAME: &str = "config-2";
/// With an MBR and more than 2 TiB the partition ends 1 MiB before 2 TiB (ironic-python-agent's place).
const MBR_REACH: u64 = (2_097_152 - 1) * MIB;

/// The kind of table a whole-disk image carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    Gpt,
    Mbr,
}

/// Why an image's table cannot be used on this disk.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "the image has no partition table: a whole-disk image needs a GPT or an MBR with at least one entry"
    )]
    NoTable,
    #[error("the image's partition table")]
    Gpt(#[from] GptError),
    #[error("the image's MBR says that a GPT follows (type 0xee), but there is none for {0}-byte sectors")]
    ProtectiveWithoutGpt(u32),
    #[error("MBR partition {number} starts in sector {first}, the disk has {sectors} sectors")]
    Outside { number: u8, first: u32, sectors: u64 },
    #[error("config drive size exceeds maximum limit of 64MiB: it has {0}")]
    ConfigDriveSize(ByteCount),
    #[error(
        "no config drive can be placed: the disk uses MBR partitioning and already has {0} primary partitions"
    )]
    TooManyPrimaries(usize),
    #[error(
        "no room for a config drive of {need}: the image's partitions leave {free} at the end of the disk"
    )]
    NoRoom { need: ByteCount, free: ByteCount },
    #[error("the config drive has {need}, the partition labelled config-2 that the image brings has {room}")]
    TooSmall { need: ByteCount, room: ByteCount },
    #[error("the image has {0} partitions labelled config-2: one of them must be the config drive's")]
    SeveralConfigDrives(usize),
    #[error("a disk of {0} cannot hold this")]
    DiskSize(ByteCount),
}

impl LayoutError {
    /// The text a conductor knows from ironic-python-agent where there is one, else our own with its cause.
    pub fn for_node(&self, node: &str, disk: &str) -> String {
        match self {
            Self::TooManyPrimaries(count) => format!(
                "Config drive cannot be created for node {node}. Disk ({disk}) uses MBR partitioning and already has \
                 {count} primary partitions."
            ),
            Self::ConfigDriveSize(size) => format!(
                "Config drive size exceeds maximum limit of 64MiB. Size of the given config drive is {} MiB for node \
                 {node}.",
                size.0.div_ceil(MIB)
            ),
            Self::Gpt(cause) => format!("{disk}: {self}: {cause}"),
            other => format!("{disk}: {other}"),
        }
    }
}

/// Says which table the start of an image holds, after checking it against the disk.
///
/// # Errors
/// [`LayoutError`] when there is none, when a checksum is wrong, when it is a GPT for another sector size, or when a
/// partition lies outside the disk.
pub fn check_table(head: &[u8], disk_size: ByteCount, sector: SectorSize) -> Result<TableKind, LayoutError> {
    let sectors = sectors(disk_size, sector)?;
    let mut entries = mbr::parse(head).ok_or(LayoutError::NoTable)?.peekable();
    if entries.peek().is_none() {
        // A blank MBR before a GPT: firmware and kernel would see no table at all.
        return Err(LayoutError::NoTable);
    }
    if mbr::is_protective(head) {
        return match Gpt::parse(head, sector) {
            Ok(mut gpt) => Ok(gpt.fit(sectors).map(|()| TableKind::Gpt)?),
            Err(GptError::NoSignature { .. }) => Err(LayoutError::ProtectiveWithoutGpt(sector.0)),
            Err(other) => Err(other.into()),
        };
    }
    for e in entries {
        if u64::from(e.first) >= sectors {
            return Err(LayoutError::Outside { number: e.number, first: e.first, sectors });
        }
    }
    Ok(TableKind::Mbr)
}

/// [`check_table`] of the start of an image, as much of it as is at hand; `None` if it is too short to tell.
///
/// # Errors
/// As [`check_table`], where the rest of the image cannot change it.
pub fn foresee_table(
    head: &[u8],
    disk_size: ByteCount,
    sector: SectorSize,
) -> Result<Option<TableKind>, LayoutError> {
    match check_table(head, disk_size, sector) {
        Err(LayoutError::Gpt(GptError::Truncated { .. })) => Ok(None),
        Err(LayoutError::NoTable) if head.len() < mbr::SIZE => Ok(None),
        // Sector 1 says which kind of table follows a protective MBR.
        Err(LayoutError::ProtectiveWithoutGpt(_)) if head.len() < sector.0.saturating_mul(2) as usize => {
            Ok(None)
        }
        told => told.map(Some),
    }
}

/// Refuses before the first write what [`plan`] would refuse after the last one.
///
/// `head` is the start of the image, as much of it as is at hand: what it is too short to tell is left to [`plan`]. Nothing
/// is asked of an image without a config drive but that its table, if it has one, fits the disk.
///
/// # Errors
/// As [`plan`].
pub fn foresee(
    head: &[u8],
    disk_size: ByteCount,
    sector: SectorSize,
    config_drive: Option<&[u8]>,
) -> Result<(), LayoutError> {
    check_drive_size(config_drive)?;
    let kind = match foresee_table(head, disk_size, sector) {
        Err(LayoutError::NoTable) if config_drive.is_none() => return Ok(()),
        other => other?,
    };
    let Some(kind) = kind else { return Ok(()) };
    let Some(drive) = config_drive else { return Ok(()) };
    match kind {
        TableKind::Gpt => {
            let mut gpt = Gpt::parse(head, sector)?;
            gpt.fit(sectors(disk_size, sector)?)?;
            let (first, end) = place_beside(&gpt, drive, sector)?;
            Ok(gpt.add(&config_partition([0; 16], first, end)).map(drop)?)
        }
        TableKind::Mbr => place_in_mbr(head, disk_size, sector, drive).map(drop),
    }
}

/// Fits the table in `head` (the image's first MiB) to the disk and places the config drive, if one is given.
///
/// Returns what is to be written outside the head, whole sectors each (not necessarily whole units of the device's
/// alignment: [`super::aligned::write`] takes care of that); `head` itself is edited and written last. Running it
/// again on its own result with the same input changes nothing but adds a second partition, so it is run once per
/// written image.
///
/// A config-drive partition that the image brings along is recognised by its *file system's* label, which lies outside
/// the head: reuse (which ironic-python-agent does) is for the caller, who has the body on the disk and can then write the
/// drive there and call this with `None`.
///
/// # Errors
/// [`LayoutError`]: no valid table, no room, more than 64 MiB. Without a config drive, a head without a table is not
/// an error here: nothing is to be done ([`check_table`] is what refuses it).
pub fn plan(
    head: &mut [u8],
    disk_size: ByteCount,
    sector: SectorSize,
    config_drive: Option<&[u8]>,
) -> Result<Vec<(DiskOffset, Vec<u8>)>, LayoutError> {
    check_drive_size(config_drive)?;
    match (check_table(head, disk_size, sector), config_drive) {
        (Ok(TableKind::Gpt), _) => plan_gpt(head, disk_size, sector, config_drive),
        (Ok(TableKind::Mbr), Some(drive)) => Ok(vec![plan_mbr(head, disk_size, sector, drive)?]),
        (Ok(TableKind::Mbr), None) | (Err(LayoutError::NoTable), None) => Ok(Vec::new()),
        (Err(e), _) => Err(e),
    }
}

/// Place and size of each partition in the table of `head`; none if there is no table.
pub fn partitions(head: &[u8], sector: SectorSize) -> Vec<(DiskOffset, ByteCount)> {
    let bytes = |first: u64, end: u64| {
        let unit = u64::from(sector.0);
        let (start, end) = (first.checked_mul(unit)?, end.checked_mul(unit)?);
        Some((DiskOffset(start), ByteCount(end.checked_sub(start)?)))
    };
    if let Ok(gpt) = Gpt::parse(head, sector) {
        return gpt.partitions().filter_map(|p| bytes(p.first, p.last.saturating_add(1))).collect();
    }
    let entries = mbr::parse(head).into_iter().flatten();
    entries.filter_map(|entry| bytes(u64::from(entry.first), entry.end())).collect()
}

fn check_drive_size(config_drive: Option<&[u8]>) -> Result<(), LayoutError> {
    match config_drive.map(|drive| drive.len() as u64) {
        Some(size) if size > limits::CONFIG_DRIVE => Err(LayoutError::ConfigDriveSize(ByteCount(size))),
        _ => Ok(()),
    }
}

fn plan_gpt(
    head: &mut [u8],
    disk_size: ByteCount,
    sector: SectorSize,
    config_drive: Option<&[u8]>,
) -> Result<Vec<(DiskOffset, Vec<u8>)>, LayoutError> {
    let sectors = sectors(disk_size, sector)?;
    let mut gpt = Gpt::parse(head, sector)?;
    gpt.fit(sectors)?;
    let mut writes = Vec::new();
    if let Some(drive) = config_drive {
        let (first, end) = place_beside(&gpt, drive, sector)?;
        gpt.add(&config_partition(partition_guid(&gpt.disk_guid(), drive), first, end))?;
        writes.push((byte(first, sector, disk_size)?, pad(drive, sector)));
    }
    gpt.render_primary(head);
    mbr::fit_protective(head, sectors);
    let (at, backup) = gpt.render_backup();
    writes.push((byte(at, sector, disk_size)?, backup));
    Ok(writes)
}

fn plan_mbr(
    head: &mut [u8],
    disk_size: ByteCount,
    sector: SectorSize,
    drive: &[u8],
) -> Result<(DiskOffset, Vec<u8>), LayoutError> {
    let (number, (first, end)) = place_in_mbr(head, disk_size, sector, drive)?;
    let too_far = |_| LayoutError::DiskSize(disk_size);
    mbr::add(
        head,
        &mbr::Entry {
            number,
            kind: mbr::FAT32_LBA,
            first: u32::try_from(first).map_err(too_far)?,
            count: u32::try_from(end - first).map_err(too_far)?,
        },
    );
    Ok((byte(first, sector, disk_size)?, pad(drive, sector)))
}

fn config_partition(guid: [u8; 16], first: u64, end: u64) -> gpt::Partition {
    let last = end.saturating_sub(1);
    gpt::Partition { number: 0, type_guid: gpt::LINUX_DATA, guid, first, last, name: NAME.into() }
}

/// Where the config drive goes on a disk with this GPT.
fn place_beside(gpt: &Gpt, drive: &[u8], sector: SectorSize) -> Result<(u64, u64), LayoutError> {
    let used = gpt.partitions().map(|p| (p.first, p.last.saturating_add(1))).collect::<Vec<_>>();
    place(&used, gpt.last_usable().saturating_add(1), drive, sector)
}

/// Number and place of the config drive in the MBR of `head`.
fn place_in_mbr(
    head: &[u8],
    disk_size: ByteCount,
    sector: SectorSize,
    drive: &[u8],
) -> Result<(u8, (u64, u64)), LayoutError> {
    let entries = mbr::parse(head).ok_or(LayoutError::NoTable)?.collect::<Vec<_>>();
    let number = (1..=4)
        .find(|n| entries.iter().all(|e| e.number != *n))
        .ok_or(LayoutError::TooManyPrimaries(entries.len()))?;
    let end = ByteCount(disk_size.0.min(MBR_REACH));
    let used = entries.iter().map(|e| (u64::from(e.first), e.end())).collect::<Vec<_>>();
    Ok((number, place(&used, sectors(end, sector)?, drive, sector)?))
}

/// Sectors `[first, end)` for the config drive below `limit`: the last 64 MiB, so that a later, larger drive fits too;
/// where the image reaches into them, as little as holds this one. Starts on a whole MiB.
fn place(
    used: &[(u64, u64)],
    limit: u64,
    drive: &[u8],
    sector: SectorSize,
) -> Result<(u64, u64), LayoutError> {
    let per_mib = MIB / u64::from(sector.0);
    // The first MiB belongs to tables and boot code.
    let taken = used.iter().map(|&(_, end)| end).max().unwrap_or(0).max(per_mib);
    let need = (drive.len() as u64).div_ceil(MIB).max(1);
    for mib in [limits::CONFIG_DRIVE / MIB, need] {
        let Some(first) = limit.checked_sub(mib * per_mib).map(|first| first - first % per_mib) else {
            continue;
        };
        if first >= taken {
            return Ok((first, first + mib * per_mib));
        }
    }
    let free = limit.saturating_sub(taken) * u64::from(sector.0);
    Err(LayoutError::NoRoom { need: ByteCount(need * MIB), free: ByteCount(free) })
}

/// A GUID that depends on disk and content only, so that the plan is pure and a repeated deployment is the same.
/// Version 8 of RFC 9562: "custom".
fn partition_guid(disk_guid: &[u8; 16], drive: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(NAME).chain_update(disk_guid).chain_update(drive).finalize();
    let mut guid = [0; 16];
    guid.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    // The third field is little-endian on disk, so the version sits in byte 7.
    guid[7] = (guid[7] & 0x0f) | 0x80;
    guid[8] = (guid[8] & 0x3f) | 0x80;
    guid
}

fn sectors(size: ByteCount, sector: SectorSize) -> Result<u64, LayoutError> {
    let sectors = size.0.checked_div(u64::from(sector.0)).unwrap_or(0);
    // 4 GiB images and 512-byte disks alike have more than this; less than a few MiB holds no operating system.
    if sectors * u64::from(sector.0) < 2 * MIB || !MIB.is_multiple_of(u64::from(sector.0)) {
        return Err(LayoutError::DiskSize(size));
    }
    Ok(sectors)
}

fn byte(lba: u64, sector: SectorSize, disk_size: ByteCount) -> Result<DiskOffset, LayoutError> {
    lba.checked_mul(u64::from(sector.0)).map(DiskOffset).ok_or(LayoutError::DiskSize(disk_size))
}

/// The drive in whole sectors.
pub fn pad(drive: &[u8], sector: SectorSize) -> Vec<u8> {
    let mut bytes = drive.to_vec();
    bytes.resize(drive.len().next_multiple_of(sector.0 as usize).max(sector.0 as usize), 0);
    bytes
}

#[cfg(test)]
mod tests;
