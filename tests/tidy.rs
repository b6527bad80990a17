//! Rules of the tree, as tests: who may import whom, what every file opens with, what must not appear.
//!
//! Reads the sources as text, so that a broken rule fails within a second and names file and line. Each rule is a
//! function from text to faults; beside its run over the tree stands a test that shows it a fault.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A wall: in files below (or at) these paths, none of these words may stand outside comments and tests.
struct Wall {
    rooms: &'static [&'static str],
    forbidden: &'static [&'static str],
    /// Files below the rooms that the wall does not hold.
    but: &'static [&'static str],
    why: &'static str,
}

const CLOCKS: &str = "::now()";

/// Who may import whom. Arrows and reasons are drawn in ARCHITECTURE.md.
const WALLS: &[Wall] = &[
    // ---- agent
    Wall {
        rooms: &["agent/src/platform"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
        ],
        but: &[],
        why: "platform is the floor that all rooms stand on",
    },
    Wall {
        rooms: &["agent/src/inventory", "agent/src/network", "agent/src/init"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
        ],
        but: &[],
        why: "these run before the agent's life begins, or without it",
    },
    Wall {
        rooms: &["agent/src/disk"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::executor",
            "crate::image",
            "tokio",
            "reqwest",
        ],
        but: &[],
        why: "disk lays out and wipes; image and commands call it",
    },
    Wall {
        rooms: &[
            "agent/src/disk/layout.rs",
            "agent/src/disk/choose.rs",
            "agent/src/disk/erase/plan.rs",
            "agent/src/disk/erase/settings.rs",
        ],
        forbidden: &["std::fs", "std::io", "platform::block", CLOCKS],
        but: &[],
        why: "pure: bytes and facts in, a plan out",
    },
    Wall {
        rooms: &["agent/src/image"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::executor",
            "crate::inventory",
        ],
        but: &[],
        why: "the pipeline knows nothing of who asked for the image",
    },
    Wall {
        rooms: &["agent/src/bootloader"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
            "tokio",
        ],
        but: &[],
        why: "a boot entry is made from bytes and names; commands join it with the disk",
    },
    Wall {
        rooms: &[
            "agent/src/bootloader/entry.rs",
            "agent/src/bootloader/loader.rs",
            "agent/src/bootloader/path.rs",
            "agent/src/bootloader/plan.rs",
            "agent/src/bootloader/table.rs",
        ],
        forbidden: &["std::fs", "std::io", "crate::platform", CLOCKS],
        but: &[],
        why: "pure: bytes and names in, a decision out",
    },
    Wall {
        rooms: &["agent/src/conductor"],
        forbidden: &["crate::api", "crate::commands", "crate::disk", "crate::executor", "crate::image"],
        but: &[],
        why: "the heartbeat never waits for a command",
    },
    Wall {
        rooms: &["agent/src/conductor/schedule.rs"],
        forbidden: &["tokio", CLOCKS, "std::net"],
        but: &[],
        why: "pure: time comes in as a value",
    },
    Wall {
        rooms: &["agent/src/commands"],
        forbidden: &["crate::api", "crate::conductor"],
        but: &[],
        why: "a command does not know how it was asked for",
    },
    Wall {
        rooms: &["agent/src/api"],
        forbidden: &["crate::disk", "crate::image", "crate::inventory"],
        but: &[],
        why: "the API hands commands to the executor",
    },
    Wall {
        rooms: &["agent/src"],
        forbidden: &["Command::new", "process::Command"],
        but: &["agent/src/platform"],
        why: "only platform starts programs",
    },
    Wall {
        rooms: &["agent/src"],
        forbidden: &["platform::child", "linux::child", "LinuxPrograms", "Programs"],
        but: &[
            "agent/src/platform",
            "agent/src/outside",
            // They hold what starts the programs and hand it to the one function that may.
            "agent/src/commands/context.rs",
            "agent/src/run/context.rs",
        ],
        why: "no program is started but for a step that an operator brought along",
    },
    Wall {
        rooms: &["agent/src/outside"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::image",
            "tokio",
        ],
        but: &[],
        why: "a step from outside knows a program and an order; commands say what is in the order",
    },
    Wall {
        rooms: &["agent/src/outside/manifest.rs", "agent/src/outside/protocol.rs"],
        forbidden: &["std::fs", "std::io", "crate::platform", CLOCKS],
        but: &[],
        why: "pure: bytes in, values out",
    },
    Wall {
        rooms: &["agent/src", "common/src"],
        forbidden: &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"],
        but: &["agent/src/platform"],
        why: "unsafe code is for platform alone",
    },
    // ---- controller
    Wall {
        rooms: &["controller/src/domain"],
        forbidden: &[
            "tokio",
            "crate::api",
            "crate::boot",
            "crate::conductor",
            "crate::drivers",
            "crate::ramdisk",
            "crate::store",
            "std::fs",
            "std::process",
            CLOCKS,
        ],
        but: &[],
        why: "domain decides and does nothing",
    },
    Wall {
        rooms: &["controller/src/configdrive.rs", "controller/src/configdrive"],
        forbidden: &["tokio", "std::fs", "crate::", CLOCKS],
        but: &[],
        why: "pure: data in, a medium out",
    },
    Wall {
        rooms: &["controller/src/api"],
        // The words of the drivers (a boot device's name) may be used; the drivers may not.
        forbidden: &[
            "crate::drivers::{",
            "drivers::fake",
            "drivers::ipmi",
            "drivers::registry",
            "PowerInterface",
            "ManagementInterface",
            "crate::ramdisk",
        ],
        but: &[],
        why: "a request becomes an intent; the conductor acts",
    },
    Wall {
        rooms: &["controller/src/drivers"],
        forbidden: &["crate::store", "crate::api", "crate::conductor", "crate::ramdisk", "crate::boot"],
        but: &[],
        why: "a driver never sees the store",
    },
    Wall {
        rooms: &["controller/src/ramdisk"],
        forbidden: &["crate::store", "crate::api", "crate::drivers", "crate::boot"],
        but: &[],
        why: "a client of the agent's API and no more",
    },
    Wall {
        rooms: &["controller/src/store"],
        forbidden: &["crate::api", "crate::boot", "crate::conductor", "crate::drivers", "crate::ramdisk"],
        but: &[],
        why: "the store keeps what it is given",
    },
    Wall {
        rooms: &["controller/src/boot"],
        forbidden: &["crate::api", "crate::drivers", "crate::ramdisk", "crate::store"],
        but: &[],
        why: "machines that boot reach nodes through the conductor only",
    },
    Wall {
        rooms: &[
            "controller/src/boot/dhcp_reply.rs",
            "controller/src/boot/ipxe.rs",
            "controller/src/boot/leases.rs",
        ],
        forbidden: &["tokio", "UdpSocket", "std::fs", CLOCKS],
        but: &[],
        why: "pure: a request in, a reply out",
    },
    Wall {
        rooms: &["controller/src"],
        forbidden: &["rusqlite"],
        but: &["controller/src/store"],
        why: "only the store knows SQL",
    },
    Wall {
        rooms: &["controller/src/cli"],
        forbidden: &["ferric_controller::", "rusqlite"],
        but: &[],
        why: "the command line speaks REST like any other client",
    },
    Wall {
        rooms: &["controller/src"],
        forbidden: &["Command::new", "process::Command"],
        but: &[],
        why: "the controller starts no program: a password in an argument list is readable by all",
    },
    // ---- the others
    Wall {
        rooms: &["initramfs-build/src"],
        forbidden: &["ferric_agent", "ferric_controller"],
        but: &[],
        why: "the ramdisk packs files; what is in them is their crates' business",
    },
    Wall {
        rooms: &["tests"],
        forbidden: &[
            "ferric_common::wire",
            "ferric_common::hints",
            "ferric_common::{",
            "ferric_agent::",
            "ferric_controller::",
        ],
        but: &["tests/tidy.rs"],
        why: "black box: a shared type would hide a shared mistake",
    },
];

/// Files that may be longer than 500 lines without their tests, each with its reason.
const LONG: &[(&str, &str)] = &[
    ("agent/src/image/source/http.rs", "one request's life: redirects, ranges, resumption share their state"),
    (
        "common/src/formats/dhcp.rs",
        "one codec, both directions side by side; most of it is the table of options",
    ),
    (
        "controller/src/drivers/ipmi/transport.rs",
        "one session's life: opening, retries and closing share their state",
    ),
];
const LONGEST: usize = 500;

/// Files that may contain a call that can panic, each with its reason.
const MAY_PANIC: &[(&str, &str)] = &[];
const PANICS: [&str; 6] =
    [".unwrap()", ".expect(\"", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
/// The crates that meet bytes from elsewhere.
const NO_PANIC: [&str; 3] = ["agent/src", "common/src", "controller/src"];

/// A source file: path from the root of the tree, and text.
#[derive(Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines that are neither comments nor tests, with their numbers.
    fn code(&self) -> Vec<(usize, &str)> {
        without_tests(&self.text)
            .into_iter()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .collect()
    }

    fn is_below(&self, room: &str) -> bool {
        self.path == room || self.path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Leaves out each item marked `#[cfg(test)]`, by indentation: the tree is formatted.
fn without_tests(text: &str) -> Vec<(usize, &str)> {
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file of the tree with one of these endings, without what tools have made.
fn files(endings: &[&str]) -> Vec<Source> {
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
fn code_files() -> Vec<Source> {
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
fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

// ---- the rules

fn breaches(walls: &[Wall], source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for wall in walls {
        let is_held = wall.rooms.iter().any(|room| source.is_below(room));
        if !is_held || wall.but.iter().any(|room| source.is_below(room)) {
            continue;
        }
        for (number, line) in source.code() {
            for word in wall.forbidden.iter().filter(|word| has_word(line, word)) {
                faults.push(format!("{}:{number}: {word}: {}", source.path, wall.why));
            }
        }
    }
    faults
}

/// Whether `word` stands in the line and does not go on as a longer name (`crate::api` is not in `crate::apiary`).
fn has_word(line: &str, word: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(goes_on) || !before.is_some_and(goes_on);
        starts && !(word.ends_with(goes_on) && after.is_some_and(goes_on))
    })
}

fn unopened(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").map(str::trim).unwrap_or_default();
    match says.is_empty() {
        true => vec![format!("{}:1: must open with //! and what the file is for", source.path)],
        false => vec![],
    }
}

fn too_long(source: &Source, allowed: &[(&str, &str)]) -> Vec<String> {
    // Below tests/ all is test: there a long file is a long list of cases.
    let lines = if source.is_below("tests") { 0 } else { without_tests(&source.text).len() };
    match lines > LONGEST && !allowed.iter().any(|(path, _)| *path == source.path) {
        true => vec![format!(
            "{}: {lines} lines without tests, more than {LONGEST}: look for the second room inside",
            source.path
        )],
        false => vec![],
    }
}

/// A call that can panic, unless clippy's rule was switched off for it a few lines above, where the reason stands.
fn panics(source: &Source, allowed: &[(&str, &str)]) -> Vec<String> {
    let is_held = NO_PANIC.iter().any(|room| source.is_below(room));
    if !is_held || allowed.iter().any(|(path, _)| *path == source.path) {
        return vec![];
    }
    let code = source.code();
    let mut faults = Vec::new();
    for (i, (number, line)) in code.iter().enumerate() {
        let above = &code[i.saturating_sub(8)..i];
        let is_allowed =
            above.iter().any(|(_, l)| l.contains("allow(clippy::") || l.contains("expect(clippy::"));
        for word in PANICS.iter().filter(|word| line.contains(**word) && !is_allowed) {
            faults.push(format!(
                "{}:{number}: {word}: bytes from elsewhere must not end the program",
                source.path
            ));
        }
    }
    faults
}

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

fn own_versions(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let mut in_dependencies = false;
    for (line, number) in source.text.lines().map(str::trim).zip(1..) {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.trim_end_matches(']').contains("dependencies");
            // `[dependencies.name]` would hide a version on a line of its own.
            if in_dependencies && section.contains("dependencies.") {
                faults.push(format!("{}:{number}: write dependencies as name.workspace = true", source.path));
            }
            continue;
        }
        let is_entry = in_dependencies && !line.is_empty() && !line.starts_with('#') && line.contains('=');
        if is_entry && !line.contains(".workspace = true") && !line.contains("workspace = true") {
            faults.push(format!(
                "{}:{number}: {line}: versions stand in the root Cargo.toml only",
                source.path
            ));
        }
    }
    faults
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

// ---- the tree

#[test]
fn the_table_of_compatibility_is_true() {
    let page = fs::read_to_string(root().join("docs/ipa-compatibility.md")).unwrap();
    assert_none(unproven(&page, &test_names(&files(&[".rs"]))));
}

#[test]
fn no_room_reaches_through_a_wall() {
    assert_none(code_files().iter().flat_map(|s| breaches(WALLS, s)).collect());
}

#[test]
fn common_is_no_std() {
    let lib = fs::read_to_string(root().join("common/src/lib.rs")).unwrap();
    assert!(lib.contains("\n#![no_std]\n"), "common must not be able to open a file, a socket or a clock");
    let outside_tests: String =
        without_tests(&lib).into_iter().map(|(_, line)| format!("{line}\n")).collect();
    assert!(!outside_tests.contains("extern crate std"));
}

#[test]
fn every_source_says_what_it_is_for() {
    assert_none(files(&[".rs"]).iter().flat_map(unopened).collect());
}

#[test]
fn no_file_is_too_long() {
    assert_none(code_files().iter().flat_map(|s| too_long(s, LONG)).collect());
}

#[test]
fn nothing_that_meets_input_can_panic() {
    assert_none(code_files().iter().flat_map(|s| panics(s, MAY_PANIC)).collect());
}

#[test]
fn no_path_of_a_workplace_appears() {
    let endings = [".rs", ".toml", ".md", ".sh", ".yml", ".yaml", ".json", ".jsonl", ".conf", "run", ".lock"];
    assert_none(files(&endings).iter().flat_map(workplaces).collect());
}

#[test]
fn dependency_versions_stand_in_the_root_only() {
    let crates =
        files(&["Cargo.toml"]).into_iter().filter(|s| s.path != "Cargo.toml" && !s.path.contains("fuzz/"));
    assert_none(crates.flat_map(|s| own_versions(&s)).collect());
}

#[test]
fn links_in_papers_lead_somewhere() {
    assert_none(
        files(&[".md"]).iter().flat_map(|s| dead_links(s, |path| root().join(path).exists())).collect(),
    );
}

#[test]
fn every_wall_and_exception_is_about_something_that_exists() {
    let mut paths: Vec<&str> =
        WALLS.iter().flat_map(|wall| wall.rooms.iter().chain(wall.but)).copied().collect();
    paths.extend(LONG.iter().chain(MAY_PANIC).map(|(path, _)| *path));
    let gone = paths.into_iter().filter(|path| !root().join(path).exists());
    assert_none(gone.map(|path| format!("{path} does not exist: the rule about it holds nothing")).collect());
}

// ---- each rule can fail

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

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

#[test]
fn a_wall_falls_to_an_import_and_not_to_a_comment_or_a_test() {
    let fault = |path: &str, text: &str| breaches(WALLS, &source(path, text)).len();
    assert_eq!(fault("controller/src/domain/node.rs", "//! x\nuse crate::store::Node;\n"), 1);
    assert_eq!(fault("controller/src/domain/node.rs", "//! x\nlet t = Instant::now();\n"), 1);
    assert_eq!(fault("controller/src/domain.rs", "use crate::store::Node;"), 0);
    assert_eq!(
        fault(
            "controller/src/domain/node.rs",
            "// not crate::store\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n"
        ),
        0
    );
    assert_eq!(
        fault("controller/src/domain/node.rs", "#[cfg(test)]\nmod tests {\n    a();\n}\nuse tokio::time;\n"),
        1
    );
    assert_eq!(fault("controller/src/domain/node.rs", "use crate::storehouse;"), 0);
    assert_eq!(fault("agent/src/image/x.rs", "Command::new(\"sh\")"), 1);
    assert_eq!(fault("agent/src/platform/x.rs", "Command::new(\"sh\")"), 0);
    assert_eq!(fault("agent/src/disk/x.rs", "unsafe { x() }"), 1);
}

#[test]
fn a_file_must_say_something_at_once() {
    for (text, faults) in
        [("//! Disks.\n", 0), ("//!\n", 1), ("use x;\n//! Disks.\n", 1), ("// Disks.", 1), ("", 1)]
    {
        assert_eq!(unopened(&source("a.rs", text)).len(), faults, "{text:?}");
    }
}

#[test]
fn a_long_file_needs_a_reason_and_tests_do_not_count() {
    let long = "x();\n".repeat(501);
    assert_eq!(too_long(&source("a.rs", &long), &[]).len(), 1);
    assert_eq!(too_long(&source("a.rs", &long), &[("a.rs", "a table")]).len(), 0);
    let tested = format!("x();\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    x();\n".repeat(501));
    assert_eq!(too_long(&source("a.rs", &tested), &[]).len(), 0);
}

#[test]
fn a_panic_is_seen_unless_it_is_reasoned_or_a_test() {
    let fault = |text: &str| panics(&source("agent/src/a.rs", text), &[]).len();
    assert_eq!(fault("let a = b.unwrap();\nlet c = d.expect(\"e\");\n"), 2);
    assert_eq!(fault("let a = b.unwrap_or(1);\nparser.expect(Token::End)?;\n"), 0);
    assert_eq!(fault("// b.unwrap()\n#[cfg(test)]\nfn t() {\n    b.unwrap();\n}\n"), 0);
    assert_eq!(fault("#[allow(clippy::expect_used)] // a constant\nlet c = d.expect(\"e\");\n"), 0);
    assert_eq!(panics(&source("xtask/src/a.rs", "b.unwrap()"), &[]).len(), 0);
}

#[test]
fn a_path_of_a_workplace_is_seen_and_a_word_is_not() {
    let path = concat!("/wo", "rk/");
    assert_eq!(workplaces(&source("a.md", &format!("see {path}x"))).len(), 1);
    assert_eq!(workplaces(&source("a.md", &format!("see target{path}x and \"network/x\""))).len(), 0);
}

#[test]
fn a_version_outside_the_root_is_seen() {
    let fault = |text: &str| own_versions(&source("a/Cargo.toml", text)).len();
    assert_eq!(fault("[package]\nversion = \"1\"\n[dependencies]\nserde = \"1\"\n"), 1);
    assert_eq!(fault("[dev-dependencies]\nserde = { version = \"1\", features = [] }\n"), 1);
    assert_eq!(fault("[dependencies.serde]\nversion = \"1\"\n"), 2);
    assert_eq!(
        fault("[dependencies]\n# why\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n"),
        0
    );
}

#[test]
fn a_dead_link_is_seen() {
    let faults =
        |text: &str| dead_links(&source("docs/a.md", text), |path| path == Path::new("docs/b.md")).len();
    assert_eq!(faults("[b](b.md) [b](b.md#part) [w](https://x.example) [here](#part)"), 0);
    assert_eq!(faults("[c](c.md)"), 1);
    assert_eq!(faults("```\n[c](c.md)\n```\n[d](d.md)"), 1);
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
