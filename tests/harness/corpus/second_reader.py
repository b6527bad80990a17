# Reads images with other people's code: lines `KIND <tab> PATH` in, `LENGTH SHA256` or `error WORDS` out.
import bz2, gzip, hashlib, io, lzma, sys

from backports import zstd
from dissect.hypervisor.disk import qcow2

# Release 3.21 counts runs of subclusters from the wrong half of an extended entry. One at a time needs no counting.
qcow2.count_contiguous_subclusters = lambda *_: 1


def open_qcow2(path):
    data = bytearray(open(path, "rb").read())
    if data[7] == 2:
        # It takes every header for one of version 3; one of version 2 ends at byte 72.
        data[72:112] = bytes(40)
    return qcow2.QCow2(io.BytesIO(data)).open()


def open_xz(path):
    # The module's own reader stops at the padding between two streams.
    data, out = open(path, "rb").read(), b""
    while data:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        out += unpacker.decompress(data)
        assert unpacker.eof, "cut short"
        data = unpacker.unused_data.lstrip(b"\0")
    return io.BytesIO(out)


OPEN = {
    "raw": lambda path: open(path, "rb"),
    "raw.gz": gzip.open,
    "raw.xz": open_xz,
    "raw.zst": zstd.open,
    "raw.bz2": bz2.open,
    "qcow2": open_qcow2,
}

for line in sys.stdin:
    kind, path = line.rstrip("\n").split("\t")
    try:
        seen, length = hashlib.sha256(), 0
        with OPEN[kind](path) as image:
            while piece := image.read(1 << 20):
                seen.update(piece)
                length += len(piece)
        print(length, seen.hexdigest(), flush=True)
    except Exception as error:
        print("error", f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
