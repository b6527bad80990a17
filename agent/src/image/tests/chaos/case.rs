//! One case of the chaos: which image, which servers and proxy with which slips, which disk with which faults. All from a seed.

use super::super::proxy::{Proxy, Told};
use super::super::secure::{Authority, Front};
use super::super::server::{Answer, Server};
use super::super::*;
use super::images::{DISK, Made};
use super::slips::{PROXY_SLIPS, ProxySlip, Slip};
use crate::platform::fake::block::{Discard, Fault};

/// How one server behaves.
pub struct Play {
    /// What it slips at its first answers (`None`: an honest one), and from then on.
    pub slips: Vec<Option<Slip>>,
    pub then: Option<Slip>,
    script: Vec<Answer>,
    last: Answer,
    pub ranges: bool,
    pub secure: bool,
}

/// A proxy before all servers: how it treats its first connections (`None`: it carries them); all others are carried.
pub type Detour = Vec<Option<ProxySlip>>;

/// What of a case runs while the image is written.
pub struct Running {
    pub servers: Vec<Server>,
    _fronts: Vec<Front>,
    pub proxy: Option<Proxy>,
    pub request: WriteRequest,
}

pub struct Case {
    pub image: usize,
    pub plays: Vec<Play>,
    pub detour: Option<Detour>,
    pub faults: Vec<Fault>,
    discard: Option<Discard>,
    alignment: usize,
    verify: Verify,
    /// Body bytes sent by all servers after which the operator stops the write.
    pub cancel: Option<u64>,
}

impl Case {
    pub fn new(seed: u64, images: &[Made]) -> Case {
        let mut rng = Rng::new(seed + 1);
        let image = rng.below(images.len() as u64) as usize;
        let made = &images[image];
        // Servers of one file mostly agree on what they can do.
        let ranges = rng.below(3) != 0;
        let count = [1, 1, 1, 2, 2, 3][rng.below(6) as usize];
        // In some cases nothing happens that could not be mended.
        let gentle = rng.below(5) == 0;
        let plays = (0..count).map(|_| Play::new(&mut rng, made, ranges, gentle)).collect();
        let faults = match rng.below(10) {
            _ if gentle => Vec::new(),
            0..3 => Vec::new(),
            3..9 => vec![fault(&mut rng)],
            _ => vec![fault(&mut rng), fault(&mut rng)],
        };
        // What a lying disk did to the middle is sure to show only where everything is read back.
        let needs_all = faults.iter().any(|fault| is_quiet(*fault));
        let all = needs_all || rng.below(4) == 0;
        let proxy_slip = |rng: &mut Rng| {
            (rng.below(3) == 0).then(|| PROXY_SLIPS[rng.below(PROXY_SLIPS.len() as u64) as usize])
        };
        let detour = (rng.below(5) == 0).then(|| (0..rng.below(6)).map(|_| proxy_slip(&mut rng)).collect());
        let discards = [None, None, Some(Discard::Unsupported), Some(Discard::Keeps), Some(Discard::Zeros)];
        Case {
            image,
            plays,
            detour,
            faults,
            discard: discards[rng.below(5) as usize],
            alignment: [512, 512, 4096][rng.below(3) as usize],
            verify: if all { Verify::All } else { Verify::Sample },
            cancel: (rng.below(16) == 0).then(|| rng.below(made.file.len() as u64)),
        }
    }

    pub fn disk(&self, made: &Made) -> MemDisk {
        let disk = MemDisk::new(DISK).holding(&made.old).with_alignment(self.alignment);
        let disk = match self.discard {
            Some(discard) => disk.without_offload().with_discard(discard),
            None => disk,
        };
        self.faults.iter().fold(disk, |disk, fault| disk.with_fault(*fault))
    }

    /// Starts the servers of this case, and makes the request for the image at all of them.
    pub fn start(&self, made: &Made, authority: &Authority) -> Running {
        let server = |play: &Play| Server::of(made.file.clone(), play.script.clone(), play.last.clone());
        let servers = self.plays.iter().map(server).collect::<Vec<_>>();
        let mut fronts = Vec::new();
        let mut urls = Vec::new();
        for (play, server) in self.plays.iter().zip(&servers) {
            urls.push(match play.secure {
                true => {
                    fronts.push(Front::of(server, authority));
                    fronts.last().map_or(String::new(), Front::url)
                }
                false => server.url(),
            });
        }
        let told = |slip: &Option<ProxySlip>| slip.map_or(Told::Carry, ProxySlip::told);
        let proxy = self.detour.as_ref().map(|slips| Proxy::new(slips.iter().map(told), Told::Carry));
        let mut request = made.request(&urls[0]);
        request.image.urls = urls;
        request.verify = self.verify;
        if let Some(proxy) = &proxy {
            request.image.proxies = proxy.proxies();
        }
        Running { servers, _fronts: fronts, proxy, request }
    }

    /// What was met of the slips: name, and the words of which an error may hold one.
    pub fn met(&self, running: &Running) -> Vec<(String, Vec<&'static str>)> {
        let servers = self.plays.iter().zip(&running.servers);
        let slips = servers.flat_map(|(play, server)| play.met(server.seen().len()));
        let carried = running.proxy.as_ref().map_or(0, |proxy| proxy.lines().len());
        let detours = self.detour.iter().flat_map(|slips| slips.iter().take(carried).flatten());
        slips
            .map(|slip| (format!("server: {slip:?}"), slip.words()))
            .chain(detours.map(|slip| (format!("proxy: {slip:?}"), slip.words())))
            .collect()
    }
}

impl Play {
    fn new(rng: &mut Rng, made: &Made, ranges: bool, gentle: bool) -> Play {
        let base = Answer { ranges: ranges ^ (rng.below(10) == 0), ..Answer::default() };
        // Some servers know no ETag, some not even a date.
        let base = match rng.below(4) {
            0 => Answer { etag: None, modified: Some("Wed, 01 Jan 2025 00:00:00 GMT"), ..base },
            1 => Answer { etag: None, ..base },
            _ => base,
        };
        let secure = rng.below(8) == 0;
        let any = if gentle { Slip::gentle } else { Slip::any };
        // A first answer that is honest lets the transfer begin.
        let slips = (0..rng.below(7)).map(|n| (rng.below(if n == 0 { 4 } else { 2 }) == 0).then(|| any(rng)));
        let slips = slips.collect::<Vec<_>>();
        let then = (!gentle && rng.below(4) == 0).then(|| Slip::any(rng));
        let answer = |rng: &mut Rng, slip: &Option<Slip>| match slip {
            // Where nothing listens; from https it must not even be tried.
            Some(slip) => slip.answer(rng, made, &base, "http://127.0.0.1:9/disk.img"),
            None => base.clone(),
        };
        let (script, last) = (slips.iter().map(|slip| answer(rng, slip)).collect(), answer(rng, &then));
        Play { slips, then, script, last, ranges: base.ranges, secure }
    }

    pub fn describe(&self) -> String {
        let (ranges, scheme) = (self.ranges, if self.secure { "https" } else { "http" });
        format!("{scheme}, ranges {ranges}: {:?}, then {:?}", self.slips, self.then)
    }

    /// The slips that were met when so many requests had been answered.
    fn met(&self, answered: usize) -> impl Iterator<Item = Slip> {
        let last = self.then.filter(|_| answered > self.slips.len());
        self.slips.iter().take(answered).flatten().copied().chain(last)
    }
}

fn fault(rng: &mut Rng) -> Fault {
    let at = match rng.below(8) {
        0 => rng.below(MIB),
        1 => DISK - 1 - rng.below(MIB),
        _ => MIB + rng.below(2 * MIB),
    };
    let nth = rng.below(12) as usize;
    match rng.below(10) {
        0 => Fault::Write(at),
        1 => Fault::Read(at),
        2 => Fault::Lost(at),
        3 => Fault::Flush(rng.below(8) as usize),
        4 => Fault::Torn(at),
        5 => Fault::TornSilently(at),
        6 => Fault::NthWrite(nth),
        7 => Fault::NthRead(nth),
        8 => Fault::NthZero(rng.below(4) as usize),
        _ => Fault::Gone(rng.below(40) as usize),
    }
}

/// Kinds of faults that [`fault`] makes.
pub const FAULTS: usize = 10;

/// What an error of the disk may say; one of them must stand in it.
pub const FAULT_WORDS: &[&str] =
    &["medium error", "cache flush failed", "offload failed", "no such device", "gives back other bytes"];

/// Whether the disk reports as done what it did not do: where that does no harm, nobody can know of it.
pub fn is_quiet(fault: Fault) -> bool {
    matches!(fault, Fault::Lost(_) | Fault::TornSilently(_))
}

/// A fault without its place, for the table.
pub fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Write(_) => "disk: write fails at a byte",
        Fault::Read(_) => "disk: read fails at a byte",
        Fault::Flush(_) => "disk: a flush fails",
        Fault::Lost(_) => "disk: a write is lost",
        Fault::Torn(_) => "disk: a write is torn and fails",
        Fault::TornSilently(_) => "disk: a write is torn silently",
        Fault::NthWrite(_) => "disk: one write fails",
        Fault::NthRead(_) => "disk: one read fails",
        Fault::NthZero(_) => "disk: one zeroing fails",
        Fault::Gone(_) => "disk: gone from some call on",
    }
}
