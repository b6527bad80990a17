//! What is measured: images, lines and disks, who writes them, and what is to be reached.

use super::disk::Pace;
use super::images::{MIB, Picture};

/// Who writes the image, or how we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Ours,
    OursSha512,
    /// From a server that ignores ranges.
    OursWhole,
    /// Through ten connections that are cut.
    OursCut,
    /// What ironic-python-agent does.
    Python,
    /// curl, a decompressor where one is needed, dd.
    Pipe,
    /// qemu-img straight from HTTP.
    Qemu,
    Coreos,
}

impl Who {
    pub fn is_ours(self) -> bool {
        matches!(self, Who::Ours | Who::OursSha512 | Who::OursWhole | Who::OursCut)
    }
}

/// Between server and client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Loopback,
    Gigabit,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Our time ÷ this one's, at most.
    Share(f64),
    /// This one's time ÷ that of our usual way, at most.
    Cost(f64),
    /// Seconds, at most.
    Seconds(f64),
    /// Seconds ÷ those that the line needs for the file, at most.
    OfLine(f64),
    /// MiB that the network carries beyond the file, at most.
    Extra(f64),
    /// MiB of memory, at most, and none of the image staged.
    Resident(f64),
    /// MiB written: the allocated ones, one in a hundred more, and 4.
    Written,
}

/// One image on one line and one disk.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub picture: Picture,
    pub line: Line,
    pub pace: Pace,
    pub who: &'static [Who],
    goals: &'static [(Who, Goal)],
    /// Who is not run, and why.
    pub left_out: &'static [(Who, &'static str)],
    resident: f64,
    /// Part of the quick run.
    pub quick: bool,
}

/// Usual bound of memory in MiB, and the one for the worst images.
const RESIDENT: f64 = 48.0;
const RESIDENT_WORST: f64 = 64.0;
const HELD: Pace = Pace::Held(500 * MIB);
const WOULD_WRITE: &str = "not run: it writes every zero, 102,400 MiB";

const USUAL: Case = Case {
    name: "",
    picture: Picture::Plain,
    line: Line::Loopback,
    pace: Pace::Free,
    who: &[Who::Ours],
    goals: &[],
    left_out: &[],
    resident: RESIDENT,
    quick: false,
};

pub const CASES: &[Case] = &[
    Case {
        name: "plain",
        picture: Picture::Plain,
        who: &[Who::Ours, Who::OursSha512, Who::OursWhole, Who::Python, Who::Qemu],
        goals: &[
            (Who::OursSha512, Goal::Cost(1.15)),
            (Who::OursWhole, Goal::Cost(1.05)),
            (Who::Python, Goal::Share(0.30)),
        ],
        quick: true,
        ..USUAL
    },
    Case {
        name: "zlib",
        picture: Picture::Zlib,
        who: &[Who::Ours, Who::OursWhole, Who::OursCut, Who::Python, Who::Qemu],
        goals: &[
            (Who::OursWhole, Goal::Cost(1.05)),
            (Who::OursCut, Goal::Extra(20.0)),
            (Who::Python, Goal::Share(0.28)),
        ],
        quick: true,
        ..USUAL
    },
    Case {
        name: "zstd",
        picture: Picture::Zstd,
        who: &[Who::Ours, Who::OursWhole, Who::Python, Who::Qemu],
        goals: &[(Who::OursWhole, Goal::Cost(1.05)), (Who::Python, Goal::Share(0.35))],
        ..USUAL
    },
    Case {
        name: "scatter",
        picture: Picture::Scatter,
        who: &[Who::Ours, Who::OursWhole, Who::Python],
        goals: &[(Who::OursWhole, Goal::Cost(1.05)), (Who::Python, Goal::Share(0.30))],
        ..USUAL
    },
    Case {
        name: "raw",
        picture: Picture::Raw,
        who: &[Who::Ours, Who::Python, Who::Pipe, Who::Coreos],
        goals: &[(Who::Python, Goal::Share(0.22)), (Who::Pipe, Goal::Share(0.5))],
        quick: true,
        ..USUAL
    },
    Case {
        name: "raw.gz",
        picture: Picture::RawGz,
        who: &[Who::Ours, Who::Pipe, Who::Coreos],
        goals: &[(Who::Coreos, Goal::Share(0.55))],
        quick: true,
        ..USUAL
    },
    Case { name: "raw.zst", picture: Picture::RawZst, who: &[Who::Ours, Who::Pipe, Who::Coreos], ..USUAL },
    Case { name: "raw.xz", picture: Picture::RawXz, who: &[Who::Ours, Who::Pipe, Who::Coreos], ..USUAL },
    Case {
        name: "zlib-500MiB/s-disk",
        picture: Picture::Zlib,
        pace: HELD,
        who: &[Who::Ours, Who::Python],
        goals: &[(Who::Python, Goal::Share(0.18))],
        ..USUAL
    },
    Case {
        name: "zlib-1Gb/s",
        picture: Picture::Zlib,
        line: Line::Gigabit,
        who: &[Who::Ours, Who::Python],
        goals: &[(Who::Ours, Goal::OfLine(1.05))],
        ..USUAL
    },
    Case {
        name: "plain-1Gb/s",
        picture: Picture::Plain,
        line: Line::Gigabit,
        who: &[Who::Ours, Who::Python],
        goals: &[(Who::Ours, Goal::OfLine(1.05))],
        ..USUAL
    },
    Case {
        name: "empty100g",
        picture: Picture::Empty100g,
        goals: &[(Who::Ours, Goal::Seconds(0.5))],
        left_out: &[(Who::Python, WOULD_WRITE)],
        quick: true,
        ..USUAL
    },
    Case {
        name: "empty100g-zlib",
        picture: Picture::Empty100gZlib,
        goals: &[(Who::Ours, Goal::Seconds(0.5))],
        left_out: &[(Who::Python, WOULD_WRITE)],
        ..USUAL
    },
    Case { name: "empty10t", picture: Picture::Empty10t, resident: RESIDENT_WORST, ..USUAL },
    Case {
        name: "shuffled",
        picture: Picture::Shuffled,
        who: &[Who::Ours, Who::Python],
        resident: RESIDENT_WORST,
        ..USUAL
    },
];

impl Case {
    /// What this contender's row is to reach.
    pub fn goals_of(&self, who: Who) -> Vec<Goal> {
        let named = self.goals.iter().filter(|(of, _)| *of == who).map(|(_, goal)| *goal);
        let always = [Goal::Resident(self.resident), Goal::Written];
        named.chain(always.into_iter().filter(|_| who.is_ours())).collect()
    }

    /// Whether it is named by one of the words, or, if that names no case, its name holds it; no words mean all.
    pub fn is_wanted(&self, words: &[String]) -> bool {
        let is_meant = |word: &String| match CASES.iter().any(|case| case.name == word) {
            true => self.name == word,
            false => self.name.contains(word.as_str()),
        };
        words.is_empty() || words.iter().any(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_somebody_who_runs() {
        for case in CASES {
            for (who, _) in case.goals {
                assert!(case.who.contains(who), "{}: {who:?}", case.name);
            }
            assert_eq!(case.who.first(), Some(&Who::Ours), "{}", case.name);
        }
    }

    #[test]
    fn words_choose_cases_by_a_part_of_their_name() {
        let chosen = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            CASES.iter().filter(|case| case.is_wanted(&words)).map(|case| case.name).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]).len(), CASES.len());
        assert_eq!(chosen(&["gz", "scat"]), ["scatter", "raw.gz"]);
        assert_eq!(chosen(&["1Gb"]), ["zlib-1Gb/s", "plain-1Gb/s"]);
        assert_eq!(chosen(&["raw", "plain"]), ["plain", "raw"]);
    }

    #[test]
    fn ours_are_always_held_to_memory_and_writes() {
        let case = CASES.iter().find(|case| case.name == "zlib").unwrap();
        assert_eq!(case.goals_of(Who::Ours), [Goal::Resident(48.0), Goal::Written]);
        assert_eq!(case.goals_of(Who::Python), [Goal::Share(0.28)]);
    }
}
