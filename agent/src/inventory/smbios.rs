//! The structures of the SMBIOS tables (DMTF DSP0134, chapter 6), which the kernel shows as a file.

use super::bytes;
use std::path::Path;

const END: u8 = 127;
/// Structures read at most; large servers have some hundreds.
const STRUCTURES: usize = 65_536;

/// One structure; numbers by their offsets in the specification.
#[derive(Clone, Copy, Debug)]
pub struct Structure<'a> {
    pub kind: u8,
    formatted: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Structure<'a> {
    pub fn handle(&self) -> u16 {
        self.word(2).unwrap_or_default()
    }
    /// Bytes of the formatted part.
    pub fn length(&self) -> usize {
        self.formatted.len()
    }
    pub fn byte(&self, at: usize) -> Option<u8> {
        self.formatted.get(at).copied()
    }
    pub fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.formatted.get(at..)?.first_chunk()?))
    }
    pub fn double(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.formatted.get(at..)?.first_chunk()?))
    }
    pub fn quad(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.formatted.get(at..)?.first_chunk()?))
    }
    pub fn bytes(&self, from: usize, length: usize) -> Option<&'a [u8]> {
        self.formatted.get(from..from.checked_add(length)?)
    }
    /// The text whose number stands at an offset; `None` for number 0 and for empty texts.
    pub fn text(&self, at: usize) -> Option<String> {
        let number = usize::from(self.byte(at)?).checked_sub(1)?;
        let text = self.strings.split(|byte| *byte == 0).nth(number)?;
        let text = String::from_utf8_lossy(text).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// The tables; `None` on a machine without.
pub fn table(sys: &Path) -> Option<Vec<u8>> {
    bytes(&sys.join("firmware/dmi/tables/DMI"))
}

/// All structures up to the end marker, or up to what cannot be one.
pub fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let [kind, length, ..] = *rest else { return None };
        let length = usize::from(length);
        let formatted = rest.get(..length).filter(|formatted| kind != END && formatted.len() >= 4)?;
        let strings = rest.get(length..).unwrap_or_default();
        // Strings follow a structure, each ended by a zero, the last by two.
        let end = strings.windows(2).position(|pair| pair == [0, 0]);
        let (strings, next) = match end {
            Some(end) => (strings.get(..end), strings.get(end + 2..)),
            None => (Some(strings), None),
        };
        rest = next.unwrap_or_default();
        Some(Structure { kind, formatted, strings: strings.unwrap_or_default() })
    })
    .take(STRUCTURES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_and_numbers_are_found_and_the_end_is_the_end() {
        let table = [
            &[1, 8, 0x34, 0x12, 2, 0, 7, 0][..],
            b"first\0 second \0\0",
            &[127, 4, 0, 0, 0, 0],
            &[1, 4, 0, 0, 0, 0],
        ]
        .concat();
        let all: Vec<Structure<'_>> = structures(&table).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].handle(), all[0].length(), all[0].word(6)), (0x1234, 8, Some(7)));
        assert_eq!((all[0].text(4).as_deref(), all[0].text(5), all[0].text(6)), (Some("second"), None, None));
        assert_eq!((all[0].word(7), all[0].double(5), all[0].text(9)), (None, None, None));
    }

    proptest! {
        #[test]
        fn broken_tables_end(table in prop::collection::vec(any::<u8>(), 0..300)) {
            for one in structures(&table) {
                let _ = (one.text(4), one.quad(8), one.bytes(8, 8));
            }
        }
    }
}
