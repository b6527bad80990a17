//! Thousands of seeded cases in which servers, proxy and disk go wrong together: whatever happens, the disk is untouched, blank at
//! both ends, or complete and right (or cannot be blanked, and the operator is told), and the error names what happened.
//!
//! A failing case prints its seed; `FERRIC_CHAOS_SEED=N` runs that case alone. (Which of two threads writes first is not part
//! of a seed.)

mod case;
mod images;
mod slips;

use super::secure::Authority;
use super::*;
use case::Case;
use images::Made;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

const CASES: u64 = 3000;
/// Most of a case is waiting for somebody who does not answer.
const THREADS: usize = 12;
/// No case may take longer than this, whatever is silent: a hang shows.
const BOUND: Duration = Duration::from_secs(40);

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Untouched,
    Blank,
    Complete,
    /// The disk could not be blanked, and the error says so.
    NotBlanked,
}
const ENDS: [End; 4] = [End::Untouched, End::Blank, End::Complete, End::NotBlanked];

/// What a case was, for the table.
struct Outcome {
    end: End,
    /// Names of the slips and faults that were met.
    met: BTreeSet<String>,
    /// Things that went well in spite of them.
    feats: Vec<&'static str>,
}

const RESUMED: &str = "taken up again";
const FAILED_OVER: &str = "from another server than it began with";
const DESPITE_DISK: &str = "the disk's fault did no harm";
const SECURE: &str = "over TLS";
const DETOUR: &str = "through a proxy";

struct Stage {
    images: Vec<Made>,
    authority: Authority,
    next: AtomicU64,
}

#[test]
fn whatever_goes_wrong_no_disk_is_left_wrong() {
    let stage = Stage { images: images::make(), authority: Authority::new(), next: AtomicU64::new(0) };
    if let Some(seed) = std::env::var("FERRIC_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{:?}", run(seed, &stage).map(|outcome| (outcome.end, outcome.met)).unwrap());
        return;
    }
    let outcomes = run_all(Arc::new(stage));
    let table = Table::of(&outcomes);
    println!("{table}");
    // Every way to end, every slip and every fault must really have been met, else the test shows nothing.
    for (end, fewest) in
        [(End::Complete, 800), (End::Blank, 600), (End::Untouched, 120), (End::NotBlanked, 150)]
    {
        assert!(table.ends.get(&end).copied().unwrap_or(0) >= fewest, "{end:?} is too seldom");
    }
    for (name, ends) in &table.met {
        assert!(ends.values().sum::<u32>() >= 10, "'{name}' was met too seldom");
    }
    assert_eq!(
        table.met.len(),
        slips::SLIPS.len() + slips::PROXY_SLIPS.len() + case::FAULTS,
        "a slip or fault was never met"
    );
    for (feat, fewest) in [(RESUMED, 60), (FAILED_OVER, 30), (DESPITE_DISK, 3), (SECURE, 40), (DETOUR, 100)] {
        assert!(table.feats.get(feat).copied().unwrap_or(0) >= fewest, "complete, {feat}: too seldom");
    }
}

/// Runs all cases on several threads. A case that hangs ends the test: its thread is left behind.
fn run_all(stage: Arc<Stage>) -> Vec<Outcome> {
    let (send, receive) = channel();
    for _ in 0..THREADS {
        let (stage, send) = (stage.clone(), send.clone());
        std::thread::spawn(move || work(&stage, &send));
    }
    drop(send);
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    let mut running = BTreeMap::new();
    loop {
        match receive.recv_timeout(Duration::from_secs(1)) {
            Ok((seed, None)) => drop(running.insert(seed, Instant::now())),
            Ok((seed, Some(Ok(outcome)))) => {
                running.remove(&seed);
                outcomes.push(outcome);
            }
            Ok((seed, Some(Err(text)))) => {
                running.remove(&seed);
                wrong.push(text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some((seed, _)) = running.iter().find(|(_, since)| since.elapsed() > BOUND) {
            panic!("seed {seed} has not ended within {BOUND:?}; before it: {}", wrong.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{} of {CASES} cases:\n{}", wrong.len(), wrong.join("\n"));
    outcomes
}

/// Says which case it begins, then how it ended.
fn work(stage: &Stage, say: &Sender<(u64, Option<Result<Outcome, String>>)>) {
    loop {
        let seed = stage.next.fetch_add(1, Ordering::SeqCst);
        if seed >= CASES || say.send((seed, None)).is_err() {
            return;
        }
        if say.send((seed, Some(run(seed, stage)))).is_err() {
            return;
        }
    }
}

/// Runs one case. An error is what the case did wrong, with its seed.
fn run(seed: u64, stage: &Stage) -> Result<Outcome, String> {
    let case = Case::new(seed, &stage.images);
    let made = &stage.images[case.image];
    let running = case.start(made, &stage.authority);
    let (disk, cancel, over) = (Arc::new(case.disk(made)), CancelFlag::default(), AtomicBool::new(false));
    let device: Arc<dyn BlockDevice> = disk.clone();
    let result = std::thread::scope(|scope| {
        if let Some(sent) = case.cancel {
            let (servers, cancel, over) = (&running.servers, &cancel, &over);
            scope.spawn(move || {
                while servers.iter().map(server::Server::sent).sum::<u64>() < sent {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                cancel.cancel();
            });
        }
        let trust = stage.authority.client.clone();
        let write = || {
            write_patiently(&running.request, &device, trust, &ProgressCell::default(), &cancel, &patience())
        };
        let result = catch_unwind(AssertUnwindSafe(write));
        over.store(true, Ordering::SeqCst);
        result
    });
    let seen = Seen { result, slips: case.met(&running), disk: &disk, made, case: &case };
    let judged = seen.judge();
    judged.map_err(|what| format!("seed {seed}: {what}\n{}", seen.describe()))
}

fn patience() -> Patience {
    let mut patience = hasty();
    patience.timeouts.slow_time = Duration::from_millis(600);
    patience
}

/// Everything that can be seen of a case when it is over.
struct Seen<'a> {
    result: std::thread::Result<Result<WriteReport, ImageError>>,
    /// The slips that were met, each with the words of which an error may hold one.
    slips: Vec<(String, Vec<&'static str>)>,
    disk: &'a MemDisk,
    made: &'a Made,
    case: &'a Case,
}

impl Seen<'_> {
    fn judge(&self) -> Result<Outcome, String> {
        let content = self.disk.content();
        let result = self.result.as_ref().map_err(|_| "it panicked".to_string())?;
        let end = match result {
            Ok(report) => self.complete(report, &content)?,
            Err(error) => self.failed(error, &content)?,
        };
        let mut met = self.slips.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        // Of two faults it is not known which one was met.
        if let ([fault], 1..) = (self.case.faults.as_slice(), self.disk.met()) {
            met.insert(case::name(*fault).into());
        }
        Ok(Outcome { end, met, feats: self.feats() })
    }

    fn complete(&self, report: &WriteReport, content: &[u8]) -> Result<End, String> {
        check(content == self.made.right, "it is said to be complete, but it is not right")?;
        let length = self.made.file.len() as u64;
        check(report.received.0 == length, "the report says that another number of bytes was received")?;
        let may_hide = self.disk.met() == 0 || self.case.faults.iter().any(|fault| case::is_quiet(*fault));
        check(may_hide, "it is said to be complete, but a call to the disk failed")?;
        Ok(End::Complete)
    }

    fn failed(&self, error: &ImageError, content: &[u8]) -> Result<End, String> {
        let text = error.for_operator();
        check(text.len() > 15 && text.contains(' ') && !text.contains("panicked"), "that is no sentence")?;
        let class = error.class();
        let (write, cancelled) = (class == error::Class::Write, class == error::Class::Cancelled);
        check(
            !cancelled || self.case.cancel.is_some(),
            "it says that it was stopped, but nobody stopped it",
        )?;
        check(cancelled || self.is_named_in(&text), "none of what went wrong is named")?;
        check(!write || self.disk.met() > 0, "the disk is blamed, but it did nothing wrong")?;
        let no_server = self.slips.is_empty() && !cancelled;
        check(write || !no_server, "the servers are blamed, but they did nothing wrong")?;
        match error {
            ImageError::NotBlanked { .. } => {
                check(self.disk.met() > 0, "a sound disk could not be blanked")?;
                check(text.contains("could NOT be blanked"), "the operator is not warned")?;
                Ok(End::NotBlanked)
            }
            ImageError::AfterWrite { .. } => {
                check(is_blank(content), "it is said to be blank at both ends, but it is not")?;
                check(text.contains("has been blanked at both ends"), "nothing is said of the disk")?;
                Ok(End::Blank)
            }
            _ => {
                let untouched = content == self.made.old.as_slice();
                check(untouched, "nothing is said of the disk, but it was written to")?;
                Ok(End::Untouched)
            }
        }
    }

    /// Whether one of the things that were met is named.
    fn is_named_in(&self, text: &str) -> bool {
        let ranges = self.case.plays.iter().map(|play| play.ranges).collect::<BTreeSet<_>>();
        // Falling over to a server that can do less is a slip of those who offered both.
        let between = if ranges.len() > 1 { slips::Slip::OtherRanges.words() } else { Vec::new() };
        let slips = self.slips.iter().flat_map(|(_, words)| words.iter().copied()).chain(between);
        let disk = case::FAULT_WORDS.iter().copied().filter(|_| self.disk.met() > 0);
        slips.chain(disk).any(|word| text.contains(word))
    }

    fn feats(&self) -> Vec<&'static str> {
        let Ok(Ok(report)) = &self.result else { return Vec::new() };
        let others = self.case.plays.len() > 1;
        let feats = [
            (RESUMED, report.resumes > 0),
            (FAILED_OVER, others && report.resumes > 0),
            (DESPITE_DISK, self.disk.met() > 0),
            (SECURE, self.case.plays.iter().all(|play| play.secure)),
            (DETOUR, self.case.detour.is_some()),
        ];
        feats.into_iter().filter(|(_, is_so)| *is_so).map(|(feat, _)| feat).collect()
    }

    fn describe(&self) -> String {
        let text = match &self.result {
            Ok(Ok(report)) => report.to_string(),
            Ok(Err(error)) => error.for_operator(),
            Err(_) => String::new(),
        };
        let case = self.case;
        format!(
            "{}, servers {:?}, proxy {:?}, disk {:?} (met {}), stopped after {:?}, slips met {:?}: {text}",
            self.made.name,
            case.plays.iter().map(case::Play::describe).collect::<Vec<_>>(),
            case.detour,
            case.faults,
            self.disk.met(),
            case.cancel,
            self.slips.iter().map(|(name, _)| name).collect::<Vec<_>>()
        )
    }
}

fn check(is_so: bool, else_what: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(else_what.into()) }
}

fn is_blank(disk: &[u8]) -> bool {
    let zeros = vec![0; MIB as usize];
    disk.starts_with(&zeros) && disk.ends_with(&zeros)
}

/// How often what happened.
struct Table {
    ends: BTreeMap<End, u32>,
    met: BTreeMap<String, BTreeMap<End, u32>>,
    feats: BTreeMap<&'static str, u32>,
}

impl Table {
    fn of(outcomes: &[Outcome]) -> Table {
        let mut table = Table { ends: BTreeMap::new(), met: BTreeMap::new(), feats: BTreeMap::new() };
        for outcome in outcomes {
            *table.ends.entry(outcome.end).or_default() += 1;
            for name in &outcome.met {
                *table.met.entry(name.clone()).or_default().entry(outcome.end).or_default() += 1;
            }
            for feat in &outcome.feats {
                *table.feats.entry(feat).or_default() += 1;
            }
        }
        table
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |counts: &BTreeMap<End, u32>| {
            ENDS.map(|end| format!("{:>12}", counts.get(&end).copied().unwrap_or(0))).concat()
        };
        let heads = ENDS.map(|end| format!("{:>12}", format!("{end:?}"))).concat();
        writeln!(f, "{:34}{heads}", "cases in which it was met")?;
        for (name, ends) in &self.met {
            writeln!(f, "{name:34}{}", line(ends))?;
        }
        writeln!(f, "{:34}{}", "all", line(&self.ends))?;
        write!(f, "complete: {:?}", self.feats)
    }
}
