//! The tree as the rules see it: its files as text, without comments and tests where a rule asks for code alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: path from the root of the tree, and text.
#[derive(Clone)]
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// The lines that are neither comments nor tests, with their numbers.
    pub fn code(&self) -> Vec<(usize, &str)> {
        without_tests(&self.text)
            .into_iter()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .collect()
    }

    pub fn is_below(&self, room: &str) -> bool {
        self.path == room || self.path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Leaves out each item marked `#[cfg(test)]`, by indentation: the tree is formatted.
pub fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().zip(1..).map(|(line, number)| (number, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, line));
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        for (_, line) in lines.by_ref() {
            let is_at_level = !line.trim().is_empty() && line.len() - line.trim_start().len() == indent;
            if is_at_level && !line.trim_start().starts_with("#[") && line.ends_with(['}', ';', ',']) {
                break;
            }
        }
    }
    kept
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file of the tree with one of these endings, without what tools have made.
pub fn files(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_symlink() || ["target", ".git", "node_modules"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source {
                    path: relative,
                    text: String::from_utf8_lossy(&fs::read(&path).unwrap()).into(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no files with {endings:?}: the walk is broken");
    found
}

/// Rust sources that are not tests as a whole.
pub fn code_files() -> Vec<Source> {
    let all = files(&[".rs"]);
    let tests = test_modules(&all);
    all.into_iter().filter(|s| !tests.iter().any(|t| s.is_below(t) || s.path == format!("{t}.rs"))).collect()
}

/// Modules declared as `#[cfg(test)] mod name;`, as paths without an ending.
fn test_modules(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources {
        let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let stem = file.trim_end_matches(".rs");
        let base = match stem {
            "mod" | "lib" | "main" => folder.to_owned(),
            other => format!("{folder}/{other}"),
        };
        let mut marked = false;
        for line in source.text.lines().map(str::trim) {
            let module =
                line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ");
            match module.and_then(|m| m.strip_suffix(';')) {
                Some(name) if marked => drop(found.insert(format!("{base}/{name}"))),
                _ => {}
            }
            marked = line == "#[cfg(test)]" || (marked && line.starts_with("#["));
        }
    }
    found
}

#[track_caller]
pub fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

/// A source as a test shows it to a rule.
pub fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

#[test]
fn test_modules_are_found_by_their_declaration() {
    let sources = [
        source("a/src/lib.rs", "#[cfg(test)]\nmod testing;\nmod real;\n"),
        source("a/src/disk/wipe.rs", "#[cfg(test)]\n#[allow(x)]\nmod tests;\n"),
    ];
    let want = ["a/src/disk/wipe/tests", "a/src/testing"].map(String::from);
    assert_eq!(test_modules(&sources), BTreeSet::from(want));
}
