//! What papers and sources may point at: links that lead somewhere, no path of where they were written.

use std::path::Path;

use crate::tree::{Source, assert_none, files, root, source};

/// Where the project was written is nobody's business. The pattern is split so that this file does not hold it.
fn workplaces(source: &Source) -> Vec<String> {
    let pattern = concat!("/wo", "rk/");
    let is_path = |line: &str| {
        line.match_indices(pattern)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-".contains(c)))
    };
    let lines = source.text.lines().zip(1..).filter(|(line, _)| is_path(line));
    lines
        .map(|(line, number)| format!("{}:{number}: path of a workplace: {}", source.path, line.trim()))
        .collect()
}

/// Links of a Markdown file that lead to files: each must exist, seen from the file's folder.
fn dead_links(source: &Source, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(&source.path).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    let mut in_code = false;
    for (line, number) in source.text.lines().zip(1..) {
        in_code ^= line.trim_start().starts_with("```");
        for link in line.split("](").skip(1).filter(|_| !in_code) {
            let target = link.split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !is_elsewhere && !exists(&folder.join(target)) {
                faults.push(format!("{}:{number}: {target} does not exist", source.path));
            }
        }
    }
    faults
}

#[test]
fn no_path_of_a_workplace_appears() {
    let endings = [".rs", ".toml", ".md", ".sh", ".yml", ".yaml", ".json", ".jsonl", ".conf", "run", ".lock"];
    assert_none(files(&endings).iter().flat_map(workplaces).collect());
}

#[test]
fn links_in_papers_lead_somewhere() {
    assert_none(
        files(&[".md"]).iter().flat_map(|s| dead_links(s, |path| root().join(path).exists())).collect(),
    );
}

#[test]
fn a_path_of_a_workplace_is_seen_and_a_word_is_not() {
    let path = concat!("/wo", "rk/");
    assert_eq!(workplaces(&source("a.md", &format!("see {path}x"))).len(), 1);
    assert_eq!(workplaces(&source("a.md", &format!("see target{path}x and \"network/x\""))).len(), 0);
}

#[test]
fn a_dead_link_is_seen() {
    let faults =
        |text: &str| dead_links(&source("docs/a.md", text), |path| path == Path::new("docs/b.md")).len();
    assert_eq!(faults("[b](b.md) [b](b.md#part) [w](https://x.example) [here](#part)"), 0);
    assert_eq!(faults("[c](c.md)"), 1);
    assert_eq!(faults("```\n[c](c.md)\n```\n[d](d.md)"), 1);
}
