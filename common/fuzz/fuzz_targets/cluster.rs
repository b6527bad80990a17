//! Compressed clusters of a qcow2: what is taken for one is one, by another decoder's word and whatever was decoded before it.
#![no_main]

use ferric_common::formats::qcow2::Compression;
use ferric_fuzz::Input;
use ferric_fuzz::image::decode::Decoder;
use libfuzzer_sys::fuzz_target;
use std::io::Read;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (kind, split) = (input.byte(), input.number() as usize);
    let compression = if kind & 1 == 0 { Compression::Zlib } else { Compression::Zstd };
    let cluster = 512 << ((kind >> 1) % 8);
    let (one, other) = input.0.split_at(split.min(input.0.len()));

    let mut decoder = Decoder::new(compression, cluster);
    let first = decoder.decode(one, 0, cluster, 7).is_ok();
    assert!(!first || decoder.has_room_at(cluster as u64));
    // Only a part of the last cluster belongs to the disk.
    let last = cluster / 2 + 1;
    let guest = if first { cluster as u64 } else { 0 };
    let second = decoder.decode(other, guest, last, 8).is_ok();
    let both = decoder.take().map(|(_, bytes)| bytes.to_vec()).unwrap_or_default();
    assert_eq!(both.len(), cluster * usize::from(first) + last * usize::from(second));
    assert!(decoder.take().is_none());

    let (one, other) = (alone(compression, cluster, one), alone(compression, cluster, other));
    assert_eq!((one.is_some(), other.is_some()), (first, second));
    let other = other.map(|bytes| bytes[..last].to_vec());
    assert_eq!(both, [one.unwrap_or_default(), other.unwrap_or_default()].concat());
});

/// A cluster decoded by a fresh decoder, at a place that is nowhere aligned; another decoder agrees.
fn alone(compression: Compression, cluster: usize, packed: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(compression, cluster);
    decoder.decode(packed, 512 * 3, cluster, 9).ok()?;
    let (guest, bytes) = decoder.take()?;
    assert_eq!((guest, bytes.len()), (512 * 3, cluster));
    let mut again = vec![0; cluster + 1];
    let count = match compression {
        Compression::Zlib => {
            let mut inflate = flate2::Decompress::new(false);
            let end = inflate.decompress(packed, &mut again, flate2::FlushDecompress::Finish);
            // libdeflate reads codes to which RFC 1951 (3.2.6) gives no meaning; zlib refuses them.
            let Ok(end) = end else { return Some(bytes.to_vec()) };
            assert_eq!(end, flate2::Status::StreamEnd);
            inflate.total_out() as usize
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).unwrap().single_frame();
            decoder.take(cluster as u64 + 1).read(&mut again).unwrap()
        }
    };
    assert_eq!((count, &again[..cluster]), (cluster, bytes));
    Some(bytes.to_vec())
}
