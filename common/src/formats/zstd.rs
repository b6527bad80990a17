//! The header of a zstd frame: how much of its past the decoder has to remember. Specification: RFC 8878, 3.1.1.1.

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The window of the frame that `bytes` begins with, in bytes; `None` where that is no frame, or its header is cut short.
pub fn window(bytes: &[u8]) -> Option<u64> {
    let header = bytes.strip_prefix(&MAGIC)?;
    let (&descriptor, fields) = header.split_first()?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (fields.first()? >> 3, u64::from(fields.first()? & 7));
        let base = 1_u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    // A single segment: the window is the content, whose size follows the dictionary's id.
    let skipped = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let size = fields.get(*skipped..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*size.first()?),
        1 => u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*size.first_chunk()?)),
        _ => u64::from_le_bytes(*size.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_what_the_header_says() {
        let with = |rest: &[u8]| window(&[&MAGIC, rest].concat());
        for (rest, expected) in [
            (&[0x00, 0x00][..], Some(1 << 10)),
            (&[0x04, 0x58], Some(2 << 20)),
            (&[0x00, 0x59], Some((2 << 20) + (2 << 17))),
            (&[0x00, 0x88], Some(128 << 20)),
            (&[0x00, 0xff], Some((1 << 41) + (1 << 38) * 7)),
            (&[0x20, 200], Some(200)),
            (&[0x60, 0x00, 0x01], Some(512)),
            (&[0xa0, 0x00, 0x00, 0x20, 0x00], Some(2 << 20)),
            (&[0xa1, 9, 0x00, 0x00, 0x20, 0x00], Some(2 << 20)),
            (&[0xe3, 9, 9, 9, 9, 1, 0, 0, 0, 0, 0, 0, 0x80], Some((1 << 63) | 1)),
            (&[0xe0, 1, 0, 0, 0, 0, 0, 0], None),
            (&[0x00], None),
            (&[], None),
        ] {
            assert_eq!(with(rest), expected, "{rest:x?}");
        }
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]), None);
    }
}
