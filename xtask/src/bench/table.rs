//! From runs to medians, verdicts and one table.

use super::cases::{Case, Goal, Who};
use super::contenders;
use super::images::{MIB, Made};
use super::measure::{Outcome, Run};
use super::server::gigabit_payload;

/// All runs of one contender on one image.
#[derive(Clone, Debug)]
pub struct Row {
    pub case: Case,
    pub who: Who,
    pub image: Made,
    pub runs: Vec<Run>,
    /// Why it was not run.
    pub left_out: Option<String>,
    /// What must be known of its figures.
    pub note: Option<String>,
    /// Seconds in which the disk zeroes itself when nothing else is asked of it, where no rate says it.
    pub zeroing: Option<f64>,
}

impl Row {
    fn done(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.outcome == Outcome::Done)
    }

    /// The median of a figure over the runs that came to their end.
    pub fn median(&self, figure: impl Fn(&Run) -> f64) -> Option<f64> {
        median(self.done().map(figure).collect())
    }

    /// The run with the median time.
    pub fn median_run(&self) -> Option<&Run> {
        let mut runs: Vec<&Run> = self.done().collect();
        runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        runs.get(runs.len().checked_sub(1)? / 2).copied()
    }

    /// The contender's name, and how many of its runs hung.
    fn name(&self) -> String {
        let name = contenders::name(self.who, self.image.picture);
        match self.runs.iter().filter(|run| matches!(run.outcome, Outcome::Hung(_))).count() {
            0 => name,
            hung => format!("{name} ({hung} of {} hung)", self.runs.len()),
        }
    }

    /// What did not go well, in words; empty if all did.
    fn troubles(&self) -> String {
        if let Some(why) = &self.left_out {
            return why.clone();
        }
        let hung: Vec<u64> = self
            .runs
            .iter()
            .filter_map(|run| if let Outcome::Hung(s) = run.outcome { Some(s) } else { None })
            .collect();
        let failed = self
            .runs
            .iter()
            .find_map(|run| if let Outcome::Failed(why) = &run.outcome { Some(why) } else { None });
        let hung = hung.first().map(|limit| {
            format!("hung in {} of {} runs, killed after {limit} s", hung.len(), self.runs.len())
        });
        hung.into_iter().chain(failed.cloned()).chain(self.note.clone()).collect::<Vec<_>>().join("; ")
    }
}

/// The middle value; of an even number, the lower one of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// A goal, what was reached, and whether that is enough.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub goal: String,
    pub reached: f64,
    pub met: bool,
}

impl Verdict {
    fn word(&self) -> &'static str {
        if self.met { "met" } else { "missed" }
    }
}

/// Judges a row; `ours` is our usual way on the same image.
pub fn verdicts(row: &Row, ours: &Row) -> Vec<Verdict> {
    row.case.goals_of(row.who).into_iter().filter_map(|goal| verdict(goal, row, ours)).collect()
}

fn verdict(goal: Goal, row: &Row, ours: &Row) -> Option<Verdict> {
    let wall = row.median(|run| run.wall)?;
    let our_wall = ours.median(|run| run.wall);
    let (goal, reached, most) = match goal {
        Goal::Share(most) => (format!("ours ÷ this ≤ {most}"), our_wall? / wall, most),
        Goal::Cost(most) => (format!("this ÷ ours ≤ {most}"), wall / our_wall?, most),
        Goal::Seconds(most) => (format!("≤ {most} s"), wall, most),
        Goal::OfLine(most) => {
            let line = row.image.bytes as f64 / gigabit_payload();
            (format!("≤ {most} × {line:.2} s of the line"), wall / line, most)
        }
        Goal::Extra(most) => {
            let file = row.image.bytes as f64 / MIB as f64;
            (format!("≤ {most} MiB carried again"), row.median(|run| run.carried)? - file, most)
        }
        Goal::Resident(most) => {
            let reached = row.median(|run| run.resident)?;
            let staged = row.median(|run| run.staged)?;
            // A byte of the image in memory besides is a failure too.
            (
                format!("memory ≤ {most} MiB, none staged"),
                if staged > 0.0 { f64::INFINITY } else { reached },
                most,
            )
        }
        Goal::Written => {
            let most = row.image.data_bytes as f64 / MIB as f64 * 1.01 + 4.0;
            (format!("written ≤ {most:.0} MiB"), row.median(|run| run.written)?, most)
        }
    };
    Some(Verdict { goal, reached, met: reached <= most })
}

/// One table of all rows, in Markdown, as the docs have it.
pub fn table(rows: &[Row]) -> String {
    let head = [
        "image",
        "who",
        "wall s",
        "min–max",
        "CPU s",
        "peak MiB",
        "tmpfs MiB",
        "network MiB",
        "written MiB",
        "÷ ours",
        "ours ÷",
        "runs",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let figure = |figure: fn(&Run) -> f64, digits: usize| {
            row.median(figure).map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let ours = ours_of(row, rows);
        let ratio = ours.and_then(|ours| Some(row.median(|r| r.wall)? / ours.median(|r| r.wall)?));
        let shown = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        lines.push(vec![
            row.case.name.to_owned(),
            row.name(),
            figure(|r| r.wall, 2),
            spread(row),
            figure(|r| r.cpu, 2),
            figure(|r| r.resident, 1),
            figure(|r| r.staged, 0),
            figure(|r| r.carried, 0),
            figure(|r| r.written, 0),
            shown(ratio),
            shown(ratio.map(|ratio| 1.0 / ratio)),
            row.done().count().to_string(),
        ]);
    }
    markdown(&lines, &[0, 1])
}

/// What all rows say of their goals, and what did not go well, in Markdown.
pub fn goals(rows: &[Row]) -> String {
    let mut lines = vec![["image", "who", "goal or trouble", "reached", ""].map(str::to_owned).to_vec()];
    for row in rows {
        let mut add = |what: &str, reached: String, verdict: &str| {
            let cells =
                [row.case.name, &contenders::name(row.who, row.image.picture), what, &reached, verdict];
            lines.push(cells.map(str::to_owned).to_vec());
        };
        for verdict in ours_of(row, rows).map(|ours| verdicts(row, ours)).unwrap_or_default() {
            add(&verdict.goal, format!("{:.2}", verdict.reached), verdict.word());
        }
        match row.troubles() {
            trouble if trouble.is_empty() => {}
            trouble => add(&trouble, String::new(), ""),
        }
    }
    markdown(&lines, &[0, 1, 2, 4])
}

/// Our usual way on the same image.
pub fn ours_of<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter().find(|other| other.case.name == row.case.name && other.who == Who::Ours)
}

fn spread(row: &Row) -> String {
    let walls: Vec<f64> = row.done().map(|run| run.wall).collect();
    let ends = walls.iter().copied().reduce(f64::min).zip(walls.iter().copied().reduce(f64::max));
    ends.map_or_else(|| "–".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}"))
}

/// The lines as a Markdown table, the first as its head; columns hold figures, but for those named.
pub fn markdown(lines: &[Vec<String>], words: &[usize]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |nth: usize| {
        let cells = lines.iter().filter_map(|line| line.get(nth));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_words = |nth: usize| words.contains(&nth);
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate().map(|(nth, (cell, width))| {
            if is_words(nth) { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") }
        });
        text += &format!("|{}\n", cells.collect::<String>());
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(nth, width)| {
                if is_words(nth) {
                    format!("{}|", "-".repeat(width + 2))
                } else {
                    format!("{}:|", "-".repeat(width + 1))
                }
            });
            text += &format!("|{}\n", rules.collect::<String>());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cases::CASES;
    use super::super::images::Picture;
    use super::*;

    fn run(wall: f64) -> Run {
        Run {
            outcome: Outcome::Done,
            wall,
            cpu: 1.0,
            busy: 2.0,
            resident: 40.0,
            staged: 0.0,
            written: 100.0,
            carried: 422.0,
            counted: 100.0,
            said: format!("took {wall}"),
        }
    }

    fn row(case: &str, who: Who, walls: &[f64]) -> Row {
        let image = Made {
            picture: Picture::Zlib,
            path: "x".into(),
            bytes: 421 * MIB,
            virtual_bytes: 8192 * MIB,
            data_bytes: 100 * MIB,
            sha256: String::new(),
            sha512: String::new(),
        };
        let case = *CASES.iter().find(|c| c.name == case).unwrap();
        Row {
            case,
            who,
            image,
            runs: walls.iter().map(|w| run(*w)).collect(),
            left_out: None,
            note: None,
            zeroing: None,
        }
    }

    fn judged(row: &Row, ours: &Row) -> Vec<String> {
        let text = |v: &Verdict| format!("{}: {:.2} {}", v.goal, v.reached, v.word());
        verdicts(row, ours).iter().map(text).collect()
    }

    #[test]
    fn the_median_is_a_run_that_happened() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![]), None);
        assert_eq!(row("zlib", Who::Ours, &[3.0, 1.0, 2.0]).median_run().unwrap().said, "took 2");
    }

    #[test]
    fn shares_costs_and_lines_are_judged() {
        let ours = row("zlib", Who::Ours, &[2.0]);
        assert_eq!(
            judged(&row("zlib", Who::Python, &[7.0, 8.0, 9.0]), &ours),
            ["ours ÷ this ≤ 0.28: 0.25 met"]
        );
        assert_eq!(judged(&row("zlib", Who::Python, &[5.0]), &ours), ["ours ÷ this ≤ 0.28: 0.40 missed"]);
        let whole = judged(&row("zlib", Who::OursWhole, &[2.2]), &ours);
        assert_eq!(whole.first().unwrap(), "this ÷ ours ≤ 1.05: 1.10 missed");
        let line = judged(&row("zlib-1Gb/s", Who::Ours, &[3.6]), &row("zlib-1Gb/s", Who::Ours, &[3.6]));
        assert_eq!(line.first().unwrap(), "≤ 1.05 × 3.57 s of the line: 1.01 met");
    }

    #[test]
    fn memory_staging_writes_and_resent_bytes_are_judged() {
        let mut ours = row("zlib", Who::Ours, &[2.0]);
        assert_eq!(
            judged(&ours, &ours),
            ["memory ≤ 48 MiB, none staged: 40.00 met", "written ≤ 105 MiB: 100.00 met"]
        );
        ours.runs.iter_mut().for_each(|run| (run.staged, run.written) = (1.0, 106.0));
        assert_eq!(
            judged(&ours, &ours),
            ["memory ≤ 48 MiB, none staged: inf missed", "written ≤ 105 MiB: 106.00 missed"]
        );
        let mut cut = row("zlib", Who::OursCut, &[2.0]);
        cut.runs.iter_mut().for_each(|run| run.carried = 442.0);
        assert_eq!(judged(&cut, &ours).first().unwrap(), "≤ 20 MiB carried again: 21.00 missed");
    }

    #[test]
    fn a_row_says_its_trouble_and_hung_runs_are_not_in_the_median() {
        let mut qemu = row("zlib", Who::Qemu, &[90.0, 7.0, 8.0]);
        qemu.runs[0].outcome = Outcome::Hung(90);
        assert_eq!(qemu.median(|r| r.wall), Some(7.0));
        assert_eq!(qemu.troubles(), "hung in 1 of 3 runs, killed after 90 s");
        qemu.runs[1].outcome = Outcome::Failed("no".into());
        assert_eq!(qemu.troubles(), "hung in 1 of 3 runs, killed after 90 s; no");
        let mut none = row("zlib", Who::Coreos, &[]);
        none.left_out = Some("cannot be built".into());
        let rows = [row("zlib", Who::Ours, &[2.0]), qemu, none];
        let text = table(&rows);
        assert!(text.lines().last().unwrap().contains("|      – |"), "{text}");
        assert!(text.contains("no hash (1 of 3 hung) |   8.00 |"), "{text}");
        let text = goals(&rows);
        assert!(text.lines().last().unwrap().contains("| cannot be built"), "{text}");
        assert!(text.contains("| hung in 1 of 3 runs, killed after 90 s; no "), "{text}");
        assert!(
            text.contains(" | memory ≤ 48 MiB, none staged ") && text.contains("|   40.00 | met |"),
            "{text}"
        );
    }

    #[test]
    fn the_table_has_ratios_both_ways() {
        let mut python = row("zlib", Who::Python, &[8.0]);
        python.runs.iter_mut().for_each(|run| run.staged = 421.0);
        let text = table(&[row("zlib", Who::Ours, &[2.0]), python]);
        let [head, _, ours, last] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let cells =
            |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>().join("|");
        let figures = "wall s|min–max|CPU s|peak MiB|tmpfs MiB|network MiB|written MiB|÷ ours|ours ÷|runs";
        assert_eq!(cells(head), format!("|image|who|{figures}|"));
        assert!(cells(ours).ends_with("|2.00|2.00–2.00|1.00|40.0|0|422|100|1.00|1.00|1|"), "{text}");
        assert!(cells(last).ends_with("|8.00|8.00–8.00|1.00|40.0|421|422|100|4.00|0.25|1|"), "{text}");
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|w| w[0] == w[1]), "{text}");
    }
}
