//! How far all disks together are, for those who watch the step.

use ferric_common::events::Progress;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who watches a long step, and may end it.
pub trait Watch: Sync {
    fn is_cancelled(&self) -> bool;
    fn report(&self, progress: Progress);
}

/// Name of the stage in [`Progress`].
pub const STAGE: &str = "erasing";

struct Line {
    disk: String,
    doing: String,
    /// Bytes of writing, none for what a drive does by itself.
    done: u64,
    total: u64,
    is_over: bool,
}

/// One line a disk.
pub struct Board<'a> {
    watch: &'a dyn Watch,
    began: Instant,
    lines: Mutex<Vec<Line>>,
}

impl<'a> Board<'a> {
    pub fn new(watch: &'a dyn Watch, disks: impl Iterator<Item = String>) -> Board<'a> {
        let line =
            |disk| Line { disk, doing: "waiting for its turn".into(), done: 0, total: 0, is_over: false };
        Board { watch, began: Instant::now(), lines: Mutex::new(disks.map(line).collect()) }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk begins something that writes `total` bytes, or 0 if the drive works by itself.
    pub fn begin(&self, disk: usize, doing: &str, total: u64) {
        self.change(disk, |line| (line.doing, line.done, line.total) = (doing.to_owned(), 0, total));
    }

    /// Tells how far it is; false: stop.
    pub fn advance(&self, disk: usize, done: u64) -> bool {
        self.change(disk, |line| line.done = done);
        !self.watch.is_cancelled()
    }

    pub fn end(&self, disk: usize) {
        self.change(disk, |line| line.is_over = true);
    }

    pub fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn change(&self, disk: usize, change: impl FnOnce(&mut Line)) {
        let mut lines = self.lines();
        if let Some(line) = lines.get_mut(disk) {
            change(line);
        }
        let progress = progress(&lines, self.began.elapsed().as_secs());
        drop(lines);
        self.watch.report(progress);
    }
}

fn progress(lines: &[Line], seconds: u64) -> Progress {
    let (done, total) =
        lines.iter().fold((0, 0), |(done, total), line| (done + line.done, total + line.total));
    let running = lines.iter().filter(|line| !line.is_over);
    let words = running.map(|line| match (line.done * 100).checked_div(line.total) {
        Some(percent) => format!("{}: {}, {percent} %", line.disk, line.doing),
        None => format!("{}: {}", line.disk, line.doing),
    });
    Progress {
        stage: STAGE.into(),
        bytes_done: done,
        bytes_total: (total > 0).then_some(total),
        bytes_written: done,
        rate: done.checked_div(seconds).unwrap_or(0),
        seconds,
        note: words.collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Progress>>);
    impl Watch for Heard {
        fn is_cancelled(&self) -> bool {
            self.0.lock().unwrap().len() > 4
        }
        fn report(&self, progress: Progress) {
            self.0.lock().unwrap().push(progress);
        }
    }

    #[test]
    fn one_line_says_what_every_disk_does() {
        let heard = Heard::default();
        let board =
            Board::new(&heard, ["/dev/nvme0n1", "/dev/vda", "/dev/vdb"].map(String::from).into_iter());
        board.begin(0, "NVMe format", 0);
        board.begin(1, "overwriting, pass 1 of 2", 200);
        board.advance(1, 50);
        let last = heard.0.lock().unwrap().last().unwrap().clone();
        assert_eq!(
            last.note,
            "/dev/nvme0n1: NVMe format; /dev/vda: overwriting, pass 1 of 2, 25 %; /dev/vdb: waiting for its turn"
        );
        assert_eq!((last.bytes_done, last.bytes_total, last.stage.as_str()), (50, Some(200), "erasing"));
        board.end(0);
        assert!(!board.advance(1, 200), "cancelled by now");
        assert!(!heard.0.lock().unwrap().last().unwrap().note.contains("nvme"));
    }
}
