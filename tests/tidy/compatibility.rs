//! The table of compatibility (`docs/ipa-compatibility.md`): each row names tests that exist, or a reason.

use std::collections::BTreeSet;
use std::fs;

use crate::tree::{Source, assert_none, files, root, source};

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

/// Names of all functions that are tests.
fn test_names(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let mut marked = false;
        for line in source.text.lines().map(str::trim) {
            let function = line.trim_start_matches("async ").strip_prefix("fn ");
            if let Some(name) = function.and_then(|rest| rest.split('(').next()).filter(|_| marked) {
                names.insert(name.to_owned());
            }
            marked = ["#[test]", "#[tokio::test"].iter().any(|mark| line.starts_with(mark))
                || (marked && line.starts_with("#["));
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
fn a_row_without_proof_is_seen() {
    let tests = test_names(&[source(
        "a.rs",
        "#[test]\n#[ignore]\nfn t() {}\nfn u() {}\n#[tokio::test]\nasync fn v() {}\n",
    )]);
    assert_eq!(tests, BTreeSet::from(["t", "v"].map(String::from)));
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
