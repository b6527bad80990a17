//! The words behind `cargo xtask bench image`, `parts` and `agent`.

use super::USAGE;
use super::cases::{CASES, Case};
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

/// Odd, so that the median is a run that happened.
pub const RUNS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Parts of the names of the cases to run; empty: all.
    pub only: Vec<String>,
    pub runs: usize,
    /// Fewer cases, one run of each.
    pub quick: bool,
    /// Where all figures of all runs go.
    pub json: Option<PathBuf>,
    /// The agent to measure instead of this tree's.
    pub agent: Option<PathBuf>,
    /// Packages are installed without asking.
    pub yes: bool,
}

impl Options {
    /// `usual` is the number of runs if none is given.
    pub fn parse(words: &[&str], usual: usize) -> Result<Self> {
        let mut options =
            Self { only: vec![], runs: usual, quick: false, json: None, agent: None, yes: false };
        let mut runs = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
            match *word {
                "--quick" => options.quick = true,
                "--yes" => options.yes = true,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--runs" => runs = Some(value()?.parse().context("--runs wants a number")?),
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--agent" => options.agent = Some(PathBuf::from(value()?)),
                other => bail!("'{other}' is not known\n{USAGE}"),
            }
        }
        options.runs = runs.unwrap_or(if options.quick { 1 } else { usual });
        ensure!(options.runs > 0, "--runs needs at least 1");
        Ok(options)
    }

    /// The chosen cases.
    ///
    /// # Errors
    /// No case has such a name.
    pub fn cases(&self) -> Result<Vec<Case>> {
        let wanted = |case: &&Case| case.is_wanted(&self.only) && (!self.quick || case.quick);
        let chosen: Vec<Case> = CASES.iter().filter(wanted).copied().collect();
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        ensure!(!chosen.is_empty(), "no image is called so; there are {}", names.join(", "));
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let options =
            Options::parse(&["--only", "zlib,raw", "--runs", "3", "--agent", "a", "--json", "j"], RUNS)
                .unwrap();
        assert_eq!(options.only, ["zlib", "raw"]);
        assert_eq!((options.runs, options.quick, options.yes), (3, false, false));
        assert_eq!((options.agent, options.json), (Some("a".into()), Some("j".into())));
        assert_eq!(Options::parse(&["--quick"], RUNS).unwrap().runs, 1);
        assert_eq!(Options::parse(&["--runs", "2", "--quick"], RUNS).unwrap().runs, 2);
        assert_eq!(Options::parse(&[], RUNS).unwrap().runs, 5);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        for (words, say) in [
            (&["--runs"][..], "--runs needs a value"),
            (&["--runs", "0"], "at least 1"),
            (&["--runs", "many"], "--runs wants a number"),
            (&["--fast"], "'--fast' is not known"),
        ] {
            let error = format!("{:#}", Options::parse(words, RUNS).unwrap_err());
            assert!(error.contains(say), "{error}");
        }
        let error = Options::parse(&["--only", "floppy"], RUNS).unwrap().cases().unwrap_err().to_string();
        assert!(error.contains("there are plain, zlib"), "{error}");
    }
}
