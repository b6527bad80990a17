//! `cargo xtask fuzz`: every parser of bytes from elsewhere under libFuzzer, guided by coverage, with stable Rust.
//!
//! The targets are those of `common/fuzz`, as cargo-fuzz knows them. It would ask for a nightly toolchain, for the sanitizers;
//! coverage alone needs none: the compiler's own pass puts the counters in, libfuzzer-sys brings libFuzzer's source.

use anyhow::{Context, Result, bail, ensure};
use ferric_tests::artifacts::{target, workspace};
use ferric_tests::{host, process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

/// Seconds for each target within `cargo xtask test`: two at a time, all are through in less than a minute.
const BRIEFLY: u64 = 3;
const SECONDS: u64 = 60;
/// Longest input: a qcow2 image with extended L2 tables has six clusters of 16 KiB.
const LENGTH: usize = 96 << 10;
/// Resident memory that no parser may reach, in MiB; what is tried and the counters are a part of it.
const MEMORY: u32 = 256;
/// Bytes of found inputs that the tree keeps for each target, and their number.
const ROOM: u64 = 8 << 10;
const FILES: usize = 32;
/// Longest run of one input, in seconds. None takes a hundredth of it.
const SLOW: u32 = 5;

/// Counters at every edge of the compiled program and a look at every comparison, as cargo-fuzz asks for them.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What is asked for on the command line.
#[derive(Debug)]
struct Plan {
    only: Option<String>,
    seconds: u64,
    keep: Keep,
}

/// Whether found inputs are put into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    Smallest,
}

/// What one target did.
struct Outcome {
    name: String,
    runs: u64,
    /// Edges and comparisons told apart, as libFuzzer counts them.
    features: u64,
    fault: Option<String>,
}

pub fn run(words: &[&str]) -> Result<()> {
    let mut plan = Plan { only: None, seconds: SECONDS, keep: Keep::Nothing };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--seconds" => {
                plan.seconds =
                    rest.next().and_then(|n| n.parse().ok()).context("--seconds wants a number")?;
            }
            "--minimise" => plan.keep = Keep::Smallest,
            name if !name.starts_with('-') => plan.only = Some(name.to_owned()),
            other => bail!("fuzz does not know '{other}'"),
        }
    }
    host::prepare(host::consent())?;
    fuzz(&plan)
}

/// Every target for some seconds.
pub fn briefly() -> Result<()> {
    fuzz(&Plan { only: None, seconds: BRIEFLY, keep: Keep::Nothing })
}

fn fuzz(plan: &Plan) -> Result<()> {
    let programs = build()?;
    let mut names = targets()?;
    if let Some(only) = &plan.only {
        ensure!(names.contains(only), "there is no target '{only}'; there are: {}", names.join(", "));
        names.retain(|name| name == only);
    }
    if plan.keep == Keep::Smallest {
        return names.iter().try_for_each(|name| minimise(&programs, name));
    }
    // Said, so that a run can be had again.
    let seed = seed()?;
    println!("{} targets for {} s each, FERRIC_SEED={seed}", names.len(), plan.seconds);
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let outcome = run_one(&programs, name, plan.seconds, seed);
                    println!("{}", told(&outcome));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_default();
    let runs: u64 = outcomes.iter().flatten().map(|outcome| outcome.runs).sum();
    println!("{runs} runs in all");
    let faults = outcomes.into_iter().filter_map(|outcome| match outcome {
        Ok(outcome) => outcome.fault.map(|fault| format!("{}: {fault}", outcome.name)),
        Err(error) => Some(format!("{error:#}")),
    });
    let faults = faults.collect::<Vec<_>>();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn told(outcome: &Result<Outcome>) -> String {
    match outcome {
        Ok(Outcome { name, runs, features, fault }) => {
            let end = fault.as_deref().map_or(String::new(), |fault| format!("; {fault}"));
            format!("{name:16}{runs:>12} runs, {features:>6} features{end}")
        }
        Err(error) => format!("{error:#}"),
    }
}

fn folder() -> PathBuf {
    workspace().join("common/fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets; the folder in which they are.
fn build() -> Result<PathBuf> {
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let manifest = folder().join("Cargo.toml");
    let mut format = cargo();
    process::run(format.arg("fmt").arg("--manifest-path").arg(&manifest).arg("--check"))?;
    let triple = process::run(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let out = target()?.join("fuzz");
    let mut build = cargo();
    // With a target named, the flags are not for build scripts and macros, which could not be linked with them.
    build.args(["build", "--locked", "--release", "--bins", "--target", triple.trim()]);
    build.arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(&out);
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")).stdin(Stdio::null());
    let status = build.status().context("starting cargo")?;
    ensure!(status.success(), "building the fuzz targets ended with {status}");
    Ok(out.join(triple.trim()).join("release"))
}

/// A seed from 1 on (0 lets libFuzzer choose).
fn seed() -> Result<u32> {
    match std::env::var("FERRIC_SEED") {
        Ok(text) => text.parse().context("FERRIC_SEED is no number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok(now.subsec_nanos().max(1))
        }
    }
}

/// Where new inputs and those at fault go, made if need be.
fn place(kind: &str, name: &str) -> Result<PathBuf> {
    let place = target()?.join("fuzz").join(kind).join(name);
    fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    Ok(place)
}

/// The inputs in the tree.
fn kept(name: &str) -> PathBuf {
    folder().join("corpus").join(name)
}

fn run_one(programs: &Path, name: &str, seconds: u64, seed: u32) -> Result<Outcome> {
    let (found, faults, kept) = (place("corpus", name)?, place("faults", name)?, kept(name));
    ensure!(kept.is_dir(), "{name}: there are no inputs in {}", kept.display());
    let mut command = Command::new(programs.join(name));
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-seed={seed}"),
        format!("-max_len={LENGTH}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-timeout={SLOW}"),
        format!("-artifact_prefix={}/", faults.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    command.arg(&found).arg(&kept).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("starting the target {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let fault = (!output.status.success()).then(|| fault(&said, &programs.join(name)));
    let outcome = Outcome { name: name.to_owned(), runs: runs(&said), features: features(&said), fault };
    // A target that tries nothing shows nothing.
    ensure!(outcome.fault.is_some() || outcome.runs > 100, "{name} made only {} runs: {said}", outcome.runs);
    ensure!(outcome.fault.is_some() || outcome.features > 1, "{name} was built without counters: {said}");
    Ok(outcome)
}

/// `stat::number_of_executed_units: N`; of a run that broke off, the count of its last line.
fn runs(said: &str) -> u64 {
    let stat = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let last = || said.lines().rev().find_map(|line| line.strip_prefix('#')?.split_whitespace().next());
    stat.or_else(last).and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// `… ft: N …` of the last line that has it.
fn features(said: &str) -> u64 {
    let words = said.lines().rev().find_map(|line| line.split_once(" ft: ").map(|(_, rest)| rest));
    words.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What was at fault, by the lines of libFuzzer's many that say so, and how to have it again.
fn fault(said: &str, program: &Path) -> String {
    let is_telling = |line: &&str| {
        ["panicked at", "ERROR:", "SUMMARY:", "Test unit written to"].iter().any(|word| line.contains(word))
    };
    let mut lines: Vec<&str> = said.lines().filter(is_telling).collect();
    // The words of a panic are on the line behind its place.
    let words = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    lines.extend(words);
    match said.lines().find_map(|line| line.split_once("Test unit written to ")) {
        Some((_, input)) => format!("{}; again: {} {input}", lines.join("; "), program.display()),
        None => {
            said.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        }
    }
}

/// Puts inputs that reach what those made by hand do not into the tree, in place of those found before: as many as there is room for,
/// first those that reach the most.
fn minimise(programs: &Path, name: &str) -> Result<()> {
    let (found, faults, kept) = (place("corpus", name)?, place("faults", name)?, kept(name));
    let fresh = place("fresh", name)?;
    fs::remove_dir_all(&fresh)?;
    fs::create_dir_all(&fresh)?;
    for (path, _) in inputs(&kept)?.into_iter().filter(|(path, _)| !is_found(path)) {
        fs::copy(&path, fresh.join(path.file_name().unwrap_or_default()))?;
    }
    let mut command = Command::new(programs.join(name));
    // How often an edge was taken is left aside: it makes five times as many inputs, which reach no more.
    command.args(["-set_cover_merge=1", "-use_counters=0"]).args([
        format!("-max_len={LENGTH}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-timeout={SLOW}"),
        format!("-artifact_prefix={}/", faults.display()),
    ]);
    process::run(command.args([&fresh, &kept, &found]))?;
    let chosen = choose(by_reach(&fresh)?);
    for (path, _) in inputs(&kept)?.into_iter().filter(|(path, _)| is_found(path)) {
        fs::remove_file(path)?;
    }
    for path in chosen {
        fs::copy(&path, kept.join(path.file_name().unwrap_or_default()))?;
    }
    let kept = inputs(&kept)?;
    println!(
        "{name:16}{:>5} inputs, {:>7} bytes",
        kept.len(),
        kept.iter().map(|(_, size)| size).sum::<u64>()
    );
    Ok(())
}

/// Those that there is room for.
fn choose(inputs: Vec<(PathBuf, u64)>) -> Vec<PathBuf> {
    let mut room = ROOM;
    let fit = inputs.into_iter().filter_map(|(path, size)| {
        room = room.checked_sub(size)?;
        Some(path)
    });
    fit.take(FILES).collect()
}

/// What libFuzzer chose, in its order: it takes what reaches the most of the rest, and writes it before the next.
fn by_reach(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut timed = Vec::new();
    for (path, size) in inputs(folder)?.into_iter().filter(|(path, _)| is_found(path)) {
        timed.push((fs::metadata(&path)?.modified()?, path, size));
    }
    timed.sort_by_key(|(written, ..)| *written);
    Ok(timed.into_iter().map(|(_, path, size)| (path, size)).collect())
}

/// The files of a folder and their sizes, the smallest first.
fn inputs(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let sized = files.map(|file| {
        let file = file?;
        Ok((file.path(), file.metadata()?.len()))
    });
    let mut inputs = sized.collect::<Result<Vec<_>>>()?;
    inputs.sort_by(|(path, size), (other, bytes)| (size, path).cmp(&(bytes, other)));
    Ok(inputs)
}

/// Whether libFuzzer named an input: by the SHA-1 of its bytes.
fn is_found(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 40 && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_named_in_the_manifest_and_has_inputs() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let names = targets().unwrap();
        assert!(names.len() > 20);
        for name in &names {
            assert!(
                manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
                "{name}"
            );
            let inputs = inputs(&kept(name)).unwrap();
            assert!(!inputs.is_empty(), "{name} has no inputs");
            let found = inputs.iter().filter(|(path, _)| is_found(path));
            let (count, bytes) = found.fold((0, 0), |(count, bytes), (_, size)| (count + 1, bytes + size));
            assert!(count <= FILES && bytes <= ROOM, "{name}: {count} found inputs of {bytes} bytes");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        assert!(
            is_found(Path::new("/x/0263a0dbc4901637dd2023c1bffecf5ba5fbf7e3"))
                && !is_found(Path::new("plain"))
        );
    }

    #[test]
    fn the_tree_takes_what_fits_it() {
        let chosen = |sizes: &[u64]| {
            let inputs = sizes.iter().map(|size| (PathBuf::from(size.to_string()), *size)).collect();
            choose(inputs).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen(&[7000, 2000, 1100, 92, 1]), "7000 1100 92");
        assert_eq!(chosen(&[3; 99]).len(), 2 * FILES - 1);
    }

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let said = "#2\tINITED cov: 13 ft: 14 corp: 1/1b\n#77\tNEW    cov: 90 ft: 1234 corp: 2/3b\n";
        assert_eq!((runs(said), features(said)), (77, 1234));
        assert_eq!(runs(&format!("{said}stat::number_of_executed_units: 4711\n")), 4711);
        let panic = "thread '<unnamed>' panicked at x.rs:1:2:\nno room\nTest unit written to /f/crash-1\n";
        let text = fault(panic, Path::new("/p/gpt"));
        assert!(text.contains("x.rs:1:2") && text.contains("no room"), "{text}");
        assert!(text.ends_with("again: /p/gpt /f/crash-1"), "{text}");
    }
}
