//! Reads small ISO 9660 images: the files of a config drive, with the long names of Rock Ridge, else of Joliet.
//!
//! For an image in memory. Every place and length is checked against it; records, depth and the sum of what the files hold are
//! bounded, so that extents that overlap or lead in a circle end in a refusal. Specifications as beside it.

use crate::formats::gpt::le32;
use crate::formats::tree::Entry;
use crate::units::ByteCount;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const SECTOR: usize = 2048;
/// Files and directories that are taken, and how deep they may lie.
const ENTRIES: usize = 4096;
const DEPTH: usize = 16;
/// Directory records and sectors that are looked at in all.
const RECORDS: usize = 64 * 1024;
/// Continuations of one record's names, and bytes of a name.
const CONTINUATIONS: usize = 16;
const NAME: usize = 255;
/// Volume descriptors that are looked at.
const DESCRIPTORS: usize = 32;

/// Why an image is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no ISO 9660 volume begins here")]
    NoVolume,
    #[error("{what} lies outside of the image")]
    Outside { what: String },
    #[error("the directory record at byte {at} is cut off")]
    Record { at: usize },
    #[error("{path} is {what}, which a config drive does not have")]
    Kind { path: String, what: &'static str },
    #[error("it has more than {0}")]
    TooMany(&'static str),
    #[error("its files hold more than {0}")]
    TooLarge(ByteCount),
}

/// Everything in the image, of files at most `most` in sum.
///
/// # Errors
/// [`ReadError`].
pub fn read(image: &[u8], most: ByteCount) -> Result<Vec<Entry<'_>>, ReadError> {
    let mut reader = Reader::new(image)?;
    let mut entries = alloc::vec![Entry::root()];
    let mut waiting = alloc::vec![(0, 0, reader.root)];
    let mut sum = 0_usize;
    while let Some((parent, depth, extent)) = waiting.pop() {
        if depth > DEPTH {
            return Err(ReadError::TooMany("16 levels of directories"));
        }
        for found in reader.directory(extent)? {
            if entries.len() >= ENTRIES {
                return Err(ReadError::TooMany("4096 files and directories"));
            }
            let bytes = match found.is_directory {
                true => {
                    waiting.push((entries.len(), depth.saturating_add(1), found.extent));
                    None
                }
                false => Some(reader.extent(found.extent, || format!("the file {}", shown(&found.name)))?),
            };
            sum = sum.saturating_add(bytes.map_or(0, <[u8]>::len));
            if u64::try_from(sum).unwrap_or(u64::MAX) > most.0 {
                return Err(ReadError::TooLarge(most));
            }
            let bytes = bytes.map(Cow::Borrowed);
            entries.push(Entry { name: found.name, parent, bytes, modified: found.modified });
        }
    }
    Ok(entries)
}

/// First sector and bytes.
type Extent = (usize, usize);

struct Found {
    name: String,
    is_directory: bool,
    extent: Extent,
    modified: [u16; 6],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// With so many bytes to skip before the fields of each record.
    RockRidge(usize),
    Joliet,
    Plain,
}

struct Reader<'a> {
    image: &'a [u8],
    names: Names,
    root: Extent,
    /// Of [`RECORDS`].
    looked_at: usize,
}

impl<'a> Reader<'a> {
    fn new(image: &'a [u8]) -> Result<Reader<'a>, ReadError> {
        let (mut primary, mut joliet) = (None, None);
        for number in 16..16 + DESCRIPTORS {
            let sector = number.checked_mul(SECTOR).and_then(|at| image.get(at..)?.get(..SECTOR));
            let Some(sector) = sector.filter(|sector| sector.get(1..6) == Some(b"CD001")) else { break };
            let root = sector.get(156..190).map(place).unwrap_or_default();
            match (sector.first(), sector.get(88..91)) {
                (Some(1), _) if primary.is_none() => primary = Some(root),
                (Some(2), Some(b"%/@" | b"%/C" | b"%/E")) if joliet.is_none() => joliet = Some(root),
                (Some(255), _) => break,
                _ => {}
            }
        }
        let root = primary.ok_or(ReadError::NoVolume)?;
        let mut reader = Reader { image, names: Names::Plain, root, looked_at: 0 };
        if let Some(skip) = reader.rock_ridge()? {
            reader.names = Names::RockRidge(skip);
        } else if let Some(root) = joliet {
            (reader.names, reader.root) = (Names::Joliet, root);
        }
        Ok(reader)
    }

    /// Bytes to skip, if the first record of the root says that its fields are used (SUSP, 5.3).
    fn rock_ridge(&self) -> Result<Option<usize>, ReadError> {
        let root = self.extent(self.root, || "the root directory".into())?;
        let record = root.first().and_then(|length| root.get(..usize::from(*length)));
        let field =
            record.and_then(|record| record.get(34..)).filter(|f| f.starts_with(b"SP\x07\x01\xbe\xef"));
        Ok(field.and_then(|field| field.get(6)).map(|skip| usize::from(*skip)))
    }

    fn extent(&self, (sector, length): Extent, what: impl Fn() -> String) -> Result<&'a [u8], ReadError> {
        if length == 0 {
            return Ok(&[]);
        }
        let bytes = sector.checked_mul(SECTOR).and_then(|at| self.image.get(at..)?.get(..length));
        bytes.ok_or_else(|| ReadError::Outside { what: what() })
    }

    fn look(&mut self) -> Result<(), ReadError> {
        self.looked_at = self.looked_at.saturating_add(1);
        if self.looked_at > RECORDS { Err(ReadError::TooMany("65536 directory records")) } else { Ok(()) }
    }

    fn directory(&mut self, extent: Extent) -> Result<Vec<Found>, ReadError> {
        let bytes = self.extent(extent, || format!("a directory in sector {}", extent.0))?;
        let mut found = Vec::new();
        for (sector, number) in bytes.chunks(SECTOR).zip(extent.0..) {
            self.look()?;
            let mut at = 0_usize;
            // A record never crosses from one sector to the next; a length of 0 ends the sector.
            while let Some(length) = sector.get(at).filter(|length| **length > 0) {
                self.look()?;
                let end = at.saturating_add(usize::from(*length));
                let place = number.saturating_mul(SECTOR).saturating_add(at);
                let record = sector.get(at..end).ok_or(ReadError::Record { at: place })?;
                found.extend(self.record(record).ok_or(ReadError::Record { at: place })??);
                at = end;
            }
        }
        Ok(found)
    }

    /// What a record stands for: nothing for `.`, `..` and what is no file's first part. None if it is cut off.
    fn record(&mut self, record: &'a [u8]) -> Option<Result<Option<Found>, ReadError>> {
        let flags = *record.get(25)?;
        let length = usize::from(*record.get(32)?);
        let identifier = record.get(33..)?.get(..length)?;
        if matches!(identifier, [0] | [1]) || identifier.is_empty() {
            return Some(Ok(None));
        }
        let fields = record.get(33_usize.checked_add(length)?.next_multiple_of(2)..).unwrap_or_default();
        Some(self.named(identifier, fields).and_then(|name| {
            let kind = |what| ReadError::Kind { path: shown(&name), what };
            // Associated files, parts of one, files in pieces with gaps.
            if flags & 0x84 != 0 || record.get(26..28) != Some(&[0, 0]) {
                return Err(kind("a file in several parts"));
            }
            let year = record.get(18).map_or(0, |year| u16::from(*year).saturating_add(1900));
            let mut modified = [year, 0, 0, 0, 0, 0];
            for (to, from) in modified.iter_mut().skip(1).zip(record.get(19..24).unwrap_or_default()) {
                *to = u16::from(*from);
            }
            Ok(Some(Found { is_directory: flags & 2 != 0, extent: place(record), modified, name }))
        }))
    }

    fn named(&mut self, identifier: &[u8], fields: &'a [u8]) -> Result<String, ReadError> {
        match self.names {
            Names::Joliet => {
                let units = identifier.chunks_exact(2).map(|pair| match pair {
                    [high, low] => u16::from_be_bytes([*high, *low]),
                    _ => 0,
                });
                let name: String =
                    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
                Ok(without_version(&name).to_string())
            }
            Names::Plain => Ok(plain(identifier)),
            Names::RockRidge(skip) => {
                let name = self.alternate(fields.get(skip..).unwrap_or_default())?;
                Ok(name.unwrap_or_else(|| plain(identifier)))
            }
        }
    }

    /// The name in the fields of Rock Ridge, wherever they go on.
    fn alternate(&mut self, mut fields: &'a [u8]) -> Result<Option<String>, ReadError> {
        let mut name: Option<Vec<u8>> = None;
        for _ in 0..CONTINUATIONS {
            let mut next = None;
            while let Some(length) = fields.get(2).map(|length| usize::from(*length)).filter(|l| *l >= 4) {
                self.look()?;
                let Some(field) = fields.get(..length) else { break };
                fields = fields.get(length..).unwrap_or_default();
                match field {
                    [b'N', b'M', _, _, flags, part @ ..] if flags & 6 == 0 => {
                        let name = name.get_or_insert_default();
                        name.extend_from_slice(part);
                        if name.len() > NAME {
                            return Err(ReadError::TooMany("255 bytes in a name"));
                        }
                    }
                    [b'S', b'L', ..] => return Err(special(name, "a link")),
                    [b'C' | b'P', b'L', ..] | [b'R', b'E', ..] => {
                        return Err(special(name, "a directory that was moved up"));
                    }
                    [b'P', b'X', _, _, mode @ ..]
                        if !matches!(le32(mode, 0) & 0o170_000, 0 | 0o040_000 | 0o100_000) =>
                    {
                        return Err(special(name, "a device, pipe, socket or link"));
                    }
                    [b'C', b'E', _, _, rest @ ..] => {
                        next = Some((le32(rest, 0), le32(rest, 8), le32(rest, 16)))
                    }
                    [b'S', b'T', ..] => break,
                    _ => {}
                }
            }
            let Some((sector, offset, length)) = next else { return Ok(name.map(text)) };
            fields = self.continuation(sector, offset, length)?;
        }
        Err(ReadError::TooMany("16 continuations of a record"))
    }

    fn continuation(&self, sector: u32, offset: u32, length: u32) -> Result<&'a [u8], ReadError> {
        let number = |value: u32| usize::try_from(value).ok();
        let bytes = || {
            let at = number(sector)?.checked_mul(SECTOR)?.checked_add(number(offset)?)?;
            self.image.get(at..)?.get(..number(length)?)
        };
        bytes().ok_or_else(|| ReadError::Outside { what: "a record's continuation".into() })
    }
}

/// Place of the extent that a directory record names.
fn place(record: &[u8]) -> Extent {
    let number = |at| usize::try_from(le32(record, at)).unwrap_or(usize::MAX);
    (number(2), number(10))
}

fn special(name: Option<Vec<u8>>, what: &'static str) -> ReadError {
    ReadError::Kind { path: shown(&name.map(text).unwrap_or_default()), what }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As Linux shows names without Rock Ridge and Joliet: in lower case.
fn plain(identifier: &[u8]) -> String {
    without_version(&String::from_utf8_lossy(identifier).to_ascii_lowercase()).to_string()
}

fn without_version(name: &str) -> &str {
    let name = name.rsplit_once(';').map_or(name, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

/// A name of an image for a line of a log.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
