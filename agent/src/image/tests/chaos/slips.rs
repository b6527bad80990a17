//! Everything that a server or a proxy of the chaos may do wrong, with the words of which one must stand in an error that it causes.

use super::super::proxy::Told;
use super::super::server::{Answer, End};
use super::super::*;
use super::images::Made;
use std::sync::LazyLock;

const CUT: &[&str] = &["reset", "ended after", "closed", "Broken pipe"];
const HEAD: &[&str] = &["no HTTP", "head of the answer", "cut short"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slip {
    Reset,
    EarlyClose,
    CloseAtOnce,
    Stall,
    Mute,
    Trickle,
    FlippedBit,
    LyingStart,
    LyingTotal,
    LongerLength,
    ShorterLength,
    NewEtag,
    NewDate,
    NewContent,
    OtherRanges,
    Busy,
    Refused,
    Redirect,
    RedirectLoop,
    RedirectElsewhere,
    RedirectToPlain,
    Garbage,
    EndlessHead,
    TwoLengths,
    Chunked,
    BytesBehind,
    ShorterFile,
}
use Slip::*;

/// Each with how often it comes. What makes a client wait is seldom: it costs the test as much.
pub const SLIPS: &[(Slip, u64)] = &[
    (Reset, 12),
    (EarlyClose, 12),
    (CloseAtOnce, 4),
    (Stall, 3),
    (Mute, 2),
    (Trickle, 4),
    (FlippedBit, 6),
    (LyingStart, 5),
    (LyingTotal, 5),
    (LongerLength, 5),
    (ShorterLength, 5),
    (NewEtag, 5),
    (NewDate, 5),
    (NewContent, 5),
    (OtherRanges, 6),
    (Busy, 10),
    (Refused, 4),
    (Redirect, 5),
    (RedirectLoop, 3),
    (RedirectElsewhere, 3),
    (RedirectToPlain, 5),
    (Garbage, 5),
    (EndlessHead, 3),
    (TwoLengths, 4),
    (Chunked, 5),
    (BytesBehind, 5),
    (ShorterFile, 4),
];

const GARBAGE: &[&[u8]] = &[
    b"",
    b"HTTP/1.1 2",
    b"\0\xff\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/1.1 999999 OK\r\n\r\n",
    b"HTTP/1.1 206 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
];
const TWO_LENGTHS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];
/// Longer than the head of an answer may be.
static ENDLESS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let field = format!("X-Padding: {}\r\n", "a".repeat(200));
    [b"HTTP/1.1 200 OK\r\n".to_vec(), field.repeat(400).into_bytes()].concat()
});

impl Slip {
    pub fn any(rng: &mut Rng) -> Slip {
        let mut at = rng.below(SLIPS.iter().map(|(_, weight)| weight).sum());
        let found = SLIPS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        found.map_or(Reset, |(slip, _)| *slip)
    }

    /// One after which the next answer may be good again.
    pub fn gentle(rng: &mut Rng) -> Slip {
        [Reset, Reset, EarlyClose, EarlyClose, CloseAtOnce, Busy, Redirect][rng.below(7) as usize]
    }

    /// The answer of a server that slips so; `base` is what it says else.
    pub fn answer(self, rng: &mut Rng, made: &Made, base: &Answer, plain: &str) -> Answer {
        let size = made.file.len() as u64;
        let base = base.clone();
        let some = |rng: &mut Rng| 1 + rng.below(4000) as i64;
        let raw = |raw: &'static [u8]| Answer { raw: Some(raw), ..Answer::default() };
        match self {
            Reset => Answer { end: End::Reset(rng.below(size)), ..base },
            EarlyClose => Answer { end: End::Close(rng.below(size)), ..base },
            CloseAtOnce => Answer { end: End::Close(0), ..base },
            Stall => Answer { end: End::Stall(rng.below(size)), ..base },
            Mute => Answer { end: End::Mute, ..base },
            Trickle => Answer { end: End::Trickle(100), ..base },
            FlippedBit => Answer { flip: Some(rng.below(size)), ..base },
            LyingStart => Answer { shift: (some(rng), 0), ..base },
            LyingTotal => Answer { shift: (0, [some(rng), -some(rng)][rng.below(2) as usize]), ..base },
            LongerLength => Answer { stated: some(rng), ..base },
            ShorterLength => Answer { stated: -some(rng), ..base },
            NewEtag => Answer { etag: Some("\"two\""), content: Some(made.other.clone()), ..base },
            NewDate => {
                let modified = Some("Thu, 01 Jan 2026 00:00:00 GMT");
                Answer { etag: None, modified, content: Some(made.other.clone()), ..base }
            }
            NewContent => Answer { content: Some(made.other.clone()), ..base },
            OtherRanges => Answer { ranges: !base.ranges, ..base },
            Busy => Answer::status([500, 502, 503, 504, 429, 408][rng.below(6) as usize]),
            Refused => Answer::status([400, 401, 403, 404, 410, 418][rng.below(6) as usize]),
            Redirect => Answer::redirect("/elsewhere/disk.img?signed=1"),
            RedirectLoop => Answer::redirect("/disk.img"),
            RedirectElsewhere => {
                let places = ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://["];
                Answer::redirect(places[rng.below(3) as usize])
            }
            RedirectToPlain => Answer::redirect(plain),
            Garbage => raw(GARBAGE[rng.below(GARBAGE.len() as u64) as usize]),
            EndlessHead => raw(&ENDLESS),
            TwoLengths => raw(TWO_LENGTHS[rng.below(2) as usize]),
            Chunked => Answer { chunked: true, extra: rng.below(3) as usize * 1000, ..base },
            BytesBehind => Answer { extra: some(rng) as usize, ..base },
            ShorterFile => {
                let short = made.file[..rng.below(size) as usize].to_vec();
                Answer { content: Some(Arc::new(short)), ..base }
            }
        }
    }

    /// What an error may say that comes of this; one of them must stand in it.
    pub fn words(self) -> Vec<&'static str> {
        // Other bytes than those of the image show where they are first looked at.
        const BYTES: &[&str] = &[
            "digest is",
            "qcow2 structure",
            "compressed cluster",
            "stream at byte",
            "its content is",
            "partition table",
            "is not the one read before",
        ];
        const LENGTH: &[&str] = &["longer than the range", "delivers more than", "does not say how long"];
        const CHANGED: &[&str] = &["changed while it was being read"];
        let several: &[&[&str]] = match self {
            Reset | EarlyClose | CloseAtOnce => &[CUT],
            Stall | Mute => &[&["no byte for"]],
            Trickle => &[&["bytes a second"]],
            FlippedBit => &[BYTES],
            LyingStart => &[&["another range than was asked for"]],
            LyingTotal => {
                &[&["another range than was asked for", "no usable Content-Range"], CHANGED, CUT, BYTES]
            }
            // Of a length that nobody says the end is the end.
            Chunked => &[CUT, LENGTH, CHANGED, HEAD, BYTES, &["the image needs"]],
            LongerLength | ShorterLength | BytesBehind => &[CUT, LENGTH, CHANGED, HEAD, BYTES],
            NewEtag | NewDate | NewContent => &[CHANGED, BYTES],
            OtherRanges => &[&["no longer answers range requests"]],
            Busy | Refused => &[&["answered "]],
            Redirect | RedirectLoop => &[&["redirects"]],
            RedirectElsewhere => &[&["redirects to something"]],
            RedirectToPlain => &[&["redirects from https to http", "Connection refused"]],
            Garbage => &[HEAD, CUT, CHANGED, &["no usable size", "no number"]],
            EndlessHead => &[HEAD, CUT],
            TwoLengths => &[&["several Content-Lengths", "Transfer-Encoding"]],
            ShorterFile => &[CUT, CHANGED, BYTES, &["is empty"]],
        };
        several.concat()
    }
}

/// What a proxy may do instead of carrying a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxySlip {
    Refuses,
    IsBusy,
    TalksNonsense,
    HangsUp,
    SaysNothing,
}
pub const PROXY_SLIPS: [ProxySlip; 5] = {
    use ProxySlip::*;
    [Refuses, IsBusy, TalksNonsense, HangsUp, SaysNothing]
};

impl ProxySlip {
    pub fn told(self) -> Told {
        match self {
            ProxySlip::Refuses => Told::Say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            ProxySlip::IsBusy => Told::Say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            ProxySlip::TalksNonsense => Told::Say("SOCKS, if you please\r\n\r\n"),
            ProxySlip::HangsUp => Told::Say(""),
            ProxySlip::SaysNothing => Told::Mute,
        }
    }

    /// As [`Slip::words`].
    pub fn words(self) -> Vec<&'static str> {
        match self {
            ProxySlip::Refuses => vec!["the proxy refused a tunnel", "answered 403"],
            ProxySlip::IsBusy => vec!["the proxy refused a tunnel", "answered 503"],
            ProxySlip::TalksNonsense => HEAD.to_vec(),
            ProxySlip::HangsUp => CUT.to_vec(),
            ProxySlip::SaysNothing => vec!["no byte for"],
        }
    }
}
