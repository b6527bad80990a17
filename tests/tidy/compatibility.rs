//! The table of compatibility (`docs/ipa-compatibility.md`): each row names tests that exist, or a reason.

use std::collections::BTreeSet;
use std::fs;

use crate::features::FEATURES;
use crate::tree::{Source, assert_none, files, root, source};

/// From what nobody needs to what everybody does.
const RANKS: [&str; 4] = ["no", "could", "should", "must"];

/// Faults of the table of compatibility: a row without proof or reason, a test that is not there, a wrong count.
fn unproven(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut rows, mut missing) = (0, 0);
    for (line, number) in page.lines().zip(1..).filter(|(line, _)| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [feature, rank, state, proofs, differs] = cells.as_slice() else {
            rows += 1;
            faults.push(format!("line {number}: {} cells instead of 5", cells.len()));
            continue;
        };
        if *feature == "feature" {
            continue;
        }
        rows += 1;
        let is_wanted = ["must", "should"].contains(rank);
        let named: Vec<&str> = proofs.split('`').skip(1).step_by(2).collect();
        let told = match *state {
            "yes" => !named.is_empty(),
            "partly" => !named.is_empty() && !differs.is_empty(),
            "not yet" => {
                missing += usize::from(is_wanted);
                named.is_empty()
            }
            "no" => !is_wanted && (!named.is_empty() || !differs.is_empty()),
            _ => false,
        };
        if !told || !(is_wanted || ["could", "no"].contains(rank)) {
            faults.push(format!("line {number}: {feature}: {rank}, '{state}' lacks a proof or a reason"));
        }
        let gone = named.iter().filter(|name| !tests.contains(**name));
        faults.extend(gone.map(|name| format!("line {number}: {feature}: there is no test {name}")));
    }
    let count = format!("Not yet among must and should: {missing}");
    if rows == 0 || !page.lines().any(|line| line == count) {
        faults.push(format!("{rows} rows; the page should say: {count}"));
    }
    faults
}

/// Features that have no row, or a row of a lower rank than theirs.
fn forgotten(page: &str, features: &[(&str, &str)]) -> Vec<String> {
    let rows = || page.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let height = |rank: &str| RANKS.iter().position(|known| *known == rank);
    let mut faults = Vec::new();
    for (feature, least) in features {
        let row = rows().map(cells).find(|cells| cells.first().is_some_and(|name| name == feature));
        match row.as_ref().and_then(|cells| cells.get(1)) {
            None => faults.push(format!("{feature}: {least}, and has no row")),
            Some(rank) if height(rank) < height(least) => {
                faults.push(format!("{feature}: {least}, and its row says {rank}"))
            }
            Some(_) => {}
        }
    }
    faults
}

/// Names of all functions that are tests and run.
fn test_names(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let (mut is_test, mut is_ignored) = (false, false);
        for line in source.text.lines().map(str::trim) {
            let function = line.trim_start_matches("async ").strip_prefix("fn ");
            let is_proof = is_test && !is_ignored;
            if let Some(name) = function.and_then(|rest| rest.split('(').next()).filter(|_| is_proof) {
                names.insert(name.to_owned());
            }
            let is = |marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
            let goes_on = line.starts_with("#[");
            is_test = is(&["#[test]", "#[tokio::test"]) || goes_on && is_test;
            is_ignored = is(&["#[ignore"]) || goes_on && is_ignored;
        }
    }
    names
}

#[test]
fn the_table_of_compatibility_is_true() {
    let page = fs::read_to_string(root().join("docs/ipa-compatibility.md")).unwrap();
    assert_none(unproven(&page, &test_names(&files(&[".rs"]))));
}

#[test]
fn the_table_of_compatibility_has_every_feature_at_its_rank() {
    let page = fs::read_to_string(root().join("docs/ipa-compatibility.md")).unwrap();
    assert_none(forgotten(&page, FEATURES));
}

#[test]
fn a_row_that_was_deleted_or_ranked_lower_is_seen() {
    let features = [("a", "must"), ("b", "could")];
    let faults = |page: &str| forgotten(page, &features);
    assert!(faults("| a | must | yes | `t` | |\n| b | could | no | | why |\n").is_empty());
    assert!(faults("| a | must | yes | `t` | |\n| b | should | yes | `t` | |\n").is_empty());
    assert_eq!(
        faults("| a | should | yes | `t` | |\n| b | could | no | | |\n"),
        ["a: must, and its row says should"]
    );
    assert_eq!(
        faults("| b | no | no | | why |\n| c | must | yes | `t` | |\n"),
        ["a: must, and has no row", "b: could, and its row says no"]
    );
    assert_eq!(
        faults("| a | much | yes | `t` | |\n| b | could | no | | |\n"),
        ["a: must, and its row says much"]
    );
}

#[test]
fn a_row_without_proof_is_seen() {
    let tests = test_names(&[source(
        "a.rs",
        "#[test]\n#[cfg(unix)]\nfn t() {}\nfn u() {}\n#[tokio::test]\nasync fn v() {}\n\
         #[test]\n#[ignore = \"slow\"]\nfn w() {}\n#[ignore]\n#[test]\nfn x() {}\n",
    )]);
    assert_eq!(tests, BTreeSet::from(["t", "v"].map(String::from)), "what does not run proves nothing");
    let faults = |row: &str, count: usize| {
        unproven(&format!("Not yet among must and should: {count}\n{row}\n"), &tests).len()
    };
    for row in [
        "| a | must | yes | `t` | |",
        "| a | could | no | | too large |",
        "| a | must | partly | `v` | half |",
    ] {
        assert_eq!(faults(row, 0), 0, "{row}");
    }
    assert_eq!(faults("| a | must | not yet | | |", 1), 0);
    for row in [
        "| a | must | yes | | |",
        "| a | must | yes | `u` | |",
        "| a | must | no | `t` | |",
        "| a | should | partly | `t` | |",
        "| a | must | maybe | `t` | |",
        "| a | must | yes | `t` |",
        "| a | must | not yet | | |",
        "",
    ] {
        assert_eq!(faults(row, 0), 1, "{row}");
    }
}
