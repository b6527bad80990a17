//! Formats of disk images as operators declare them: `raw`, `qcow2`, and raw in one compressed stream.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// What the bytes of an image are. Declared by the operator, checked against the content, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    Raw,
    /// A raw image in one compressed stream.
    Packed(Packing),
    Qcow2,
}

/// How a raw image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gz,
    Xz,
    Zst,
    Bz2,
}

/// A declared format that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format '{0}' is not known; use raw, raw.gz, raw.xz, raw.zst, raw.bz2 or qcow2")]
pub struct UnknownFormat(String);

impl Packing {
    const ALL: [Packing; 4] = [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2];

    /// The ending of such a file's name.
    pub fn ending(self) -> &'static str {
        match self {
            Packing::Gz => "gz",
            Packing::Xz => "xz",
            Packing::Zst => "zst",
            Packing::Bz2 => "bz2",
        }
    }
    /// The name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Gz => "gzip",
            Packing::Xz => "xz",
            Packing::Zst => "zstd",
            Packing::Bz2 => "bzip2",
        }
    }
    /// What a file is that begins with these bytes, by its magic.
    pub fn found(start: &[u8]) -> Option<Packing> {
        let magics: [(&[u8], Packing); 5] = [
            (&[0x1f, 0x8b], Packing::Gz),
            (b"\xfd7zXZ\0", Packing::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zst),
            // A skippable frame, as pzstd writes it before the first frame (RFC 8878, 3.1.2).
            (&[0x50, 0x2a, 0x4d, 0x18], Packing::Zst),
            (b"BZh", Packing::Bz2),
        ];
        magics.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, packing)| packing)
    }
    fn of_ending(ending: &str) -> Option<Packing> {
        Self::ALL.into_iter().find(|packing| ending.eq_ignore_ascii_case(packing.ending()))
    }
}

impl ImageFormat {
    /// What an image is by its declaration and its name: `raw` and a name that ends in `.gz`, `.xz`, `.zst` or `.bz2` declare
    /// a compressed raw image together. `url` may be a URL or a path.
    pub fn named(self, url: &str) -> ImageFormat {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let packing = path.rsplit_once('.').and_then(|(_, ending)| Packing::of_ending(ending));
        match (self, packing) {
            (ImageFormat::Raw, Some(packing)) => ImageFormat::Packed(packing),
            _ => self,
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageFormat::Raw => f.write_str("raw"),
            ImageFormat::Packed(packing) => write!(f, "raw.{}", packing.ending()),
            ImageFormat::Qcow2 => f.write_str("qcow2"),
        }
    }
}

impl FromStr for ImageFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<ImageFormat, UnknownFormat> {
        match text {
            "raw" => Ok(ImageFormat::Raw),
            "qcow2" => Ok(ImageFormat::Qcow2),
            other => other
                .strip_prefix("raw.")
                .and_then(Packing::of_ending)
                .map(ImageFormat::Packed)
                .ok_or_else(|| UnknownFormat(other.chars().take(32).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_name_that_ends_in_a_compression_declares_it() {
        let of = |url| ImageFormat::Raw.named(url).to_string();
        assert_eq!(of("http://host/a.raw.gz"), "raw.gz");
        assert_eq!(of("file:///images/a.ZST"), "raw.zst");
        assert_eq!(of("http://host/a.img?name=b.gz"), "raw");
        assert_eq!(of("http://host/a.xz?token=1"), "raw.xz");
        assert_eq!(ImageFormat::Qcow2.named("a.gz"), ImageFormat::Qcow2);
    }

    #[test]
    fn formats_are_read_as_they_are_written() {
        for text in ["raw", "raw.gz", "raw.xz", "raw.zst", "raw.bz2", "qcow2"] {
            assert_eq!(text.parse::<ImageFormat>().unwrap().to_string(), text);
        }
        assert!("vmdk".parse::<ImageFormat>().is_err() && "raw.lz4".parse::<ImageFormat>().is_err());
    }
}
