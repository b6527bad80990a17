//! Decodes compressed clusters into an aligned buffer, neighbours behind each other, to be written in one piece. Pure.

use super::ImageError;
use super::buffers::{ALIGN, AlignedBuf};
use ferric_common::formats::qcow2::Compression;
use ferric_common::formats::zstd as zstd_header;
use ferric_common::limits;
use ferric_common::units::ByteCount;

/// Small clusters are gathered into writes of this size.
pub const SMALLEST: usize = 1 << 20;

pub struct Decoder {
    compression: Compression,
    cluster: usize,
    zlib: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    out: AlignedBuf,
    /// Where the output begins in `out`: as far from an aligned address as `guest` is from an aligned place on the disk.
    shift: usize,
    filled: usize,
    guest: u64,
}

impl Decoder {
    pub fn new(compression: Compression, cluster: usize) -> Decoder {
        Decoder {
            compression,
            cluster,
            zlib: libdeflater::Decompressor::new(),
            zstd: None,
            out: AlignedBuf::new(cluster.max(SMALLEST) + ALIGN),
            shift: 0,
            filled: 0,
            guest: 0,
        }
    }

    /// Whether a cluster for this place of the disk can follow what is in the buffer.
    pub fn has_room_at(&self, guest: u64) -> bool {
        self.filled == 0
            || self.guest + self.filled as u64 == guest
                && self.filled.is_multiple_of(self.cluster)
                && self.shift + self.filled + self.cluster <= self.out.bytes().len()
    }

    /// Decodes one cluster, of which the first `length` bytes belong to the disk at `guest`.
    ///
    /// # Errors
    /// [`ImageError::Decode`] with `host`, the cluster's place in the file.
    pub fn decode(&mut self, packed: &[u8], guest: u64, length: usize, host: u64) -> Result<(), ImageError> {
        let fault = |what: String| ImageError::Decode { host, what };
        if self.filled == 0 {
            self.guest = guest;
            self.shift = (guest % ALIGN as u64) as usize;
        }
        let (from, cluster) = (self.shift + self.filled, self.cluster);
        let room = self.out.bytes_mut().get_mut(from..from + cluster);
        let room = room.ok_or_else(|| fault("no room".into()))?;
        let count = match self.compression {
            Compression::Zlib => self
                .zlib
                .deflate_decompress(packed, room)
                .map_err(|e| fault(format!("not valid deflate data ({e})")))?,
            Compression::Zstd => {
                // One frame; what follows it in the sector is the next cluster's or garbage.
                let frame = zstd::zstd_safe::find_frame_compressed_size(packed).map_err(|code| {
                    fault(format!("not a zstd frame ({})", zstd::zstd_safe::get_error_name(code)))
                })?;
                let frame = packed.get(..frame).unwrap_or_default();
                let most = limits::ZSTD_WINDOW.max(cluster as u64);
                if let Some(window) = zstd_header::window(frame).filter(|window| *window > most) {
                    let (window, most) = (ByteCount(window), ByteCount(most));
                    return Err(fault(format!(
                        "it asks for a zstd window of {window}, at most {most} is given"
                    )));
                }
                let decoder = match &mut self.zstd {
                    Some(decoder) => decoder,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| fault(e.to_string()))?),
                };
                decoder
                    .decompress_to_buffer(frame, room)
                    .map_err(|e| fault(format!("not valid zstd data ({e})")))?
            }
        };
        if count != cluster {
            return Err(fault(format!("{count} bytes come out, a cluster has {cluster}")));
        }
        self.filled += length;
        Ok(())
    }

    /// What is in the buffer.
    pub fn bytes(&self) -> &[u8] {
        self.out.bytes().get(self.shift..self.shift + self.filled).unwrap_or_default()
    }

    /// Empties the buffer: what was in it, and its place on the disk; `None` where there is nothing.
    pub fn take(&mut self) -> Option<(u64, &[u8])> {
        let filled = std::mem::take(&mut self.filled);
        let bytes = self.out.bytes().get(self.shift..self.shift + filled)?;
        (filled > 0).then_some((self.guest, bytes))
    }
}
