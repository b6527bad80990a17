//! `cargo xtask bench image`: every contender on every image, taken in turns on the same disk, and the table.

use super::cases::{Case, Line, Who};
use super::contenders::{self, Task};
use super::disk::{Disk, Pace, TOO_BIG, memory_for};
use super::images::{self, MIB, Made};
use super::machine;
use super::measure::{self, Outcome, Run};
use super::options::Options;
use super::parts;
use super::roofline::{self, Rates};
use super::server::{self, Afar, Server};
use super::stage::{Stage, memory_available};
use super::table::{Row, goals, markdown, ours_of, table};
use anyhow::{Context, Result};
use ferric_tests::artifacts;
use ferric_tests::httpd::{Fault, Httpd};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Connections that are cut.
const CUTS: u32 = 10;
/// Memory that the machine keeps besides disk and image.
const SPARE: u64 = 1024 * MIB;

/// Everything that outlasts a case.
struct Bench {
    agent: PathBuf,
    /// Or why there is none.
    coreos: Result<PathBuf, String>,
    stage: Stage,
    server: Server,
    breaking: Httpd,
    afar: Option<Afar>,
    runs: usize,
    /// What was found out about lines and disks.
    notes: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let cases = options.cases()?;
    let agent = match &options.agent {
        Some(path) => fs::canonicalize(path).with_context(|| format!("the agent {}", path.display()))?,
        None => artifacts::static_release("ferric-agent")?,
    };
    let ready = parts::prepare(|picture| cases.iter().any(|case| case.picture == picture))?;
    let is_wanted = |who: Who| cases.iter().any(|case| case.who.contains(&who));
    let coreos = if is_wanted(Who::Coreos) { contenders::coreos() } else { Ok(PathBuf::new()) };
    let coreos = coreos.map_err(|error| format!("{error:#}"));
    let images = cases.iter().map(|case| images::obtain(case.picture)).collect::<Result<Vec<_>>>()?;
    let nginx = server::program()?;
    let mut machine = machine::describe()?;
    machine.push(server::version(&nginx)?);
    machine.push(format!("agent: {} of {} bytes", agent.display(), fs::metadata(&agent)?.len()));

    let stage = Stage::enter()?;
    let server = Server::start(&nginx, &images::folder()?)?;
    let rates = parts::measure(&ready, &server, &stage.memory)?;
    let breaking = Httpd::start("127.0.0.1")?;
    let mut bench =
        Bench { agent, coreos, stage, server, breaking, afar: None, runs: options.runs, notes: vec![] };
    let mut rows = Vec::new();
    for (case, image) in cases.iter().zip(&images) {
        rows.extend(bench.case(case, image)?);
    }
    machine.extend(bench.notes);
    let mut text = format!("{}\n\n{}\n{}\n", machine.join("\n"), table(&rows), goals(&rows));
    text += &format!("{}\n{}\n{}", floors(&rows, &rates)?, parts::table(&rates), reports(&rows));
    print!("{text}");
    if let Some(path) = &options.json {
        fs::write(path, as_json(&machine, &rates, &rows).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl Bench {
    /// All contenders in turns, as often as was asked.
    fn case(&mut self, case: &Case, image: &Made) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = case.who.iter().map(|who| self.row(case, *who, image)).collect();
        let left_out = case
            .left_out
            .iter()
            .map(|(who, why)| Row { left_out: Some((*why).to_owned()), ..self.row(case, *who, image) });
        let left_out: Vec<Row> = left_out.collect();
        if let Err(error) = self.play(case, image, &mut rows) {
            // What came before counts; the others say why they have nothing.
            for row in rows.iter_mut().filter(|row| row.runs.is_empty()) {
                row.left_out = Some(format!("not run: {error:#}"));
            }
            eprintln!("{}: {error:#}", case.name);
        }
        rows.extend(left_out);
        Ok(rows)
    }

    fn row(&self, case: &Case, who: Who, image: &Made) -> Row {
        let left_out = if who == Who::Coreos { self.coreos.as_ref().err().cloned() } else { None };
        Row { case: *case, who, image: image.clone(), runs: vec![], left_out, note: None, zeroing: None }
    }

    fn play(&mut self, case: &Case, image: &Made, rows: &mut [Row]) -> Result<()> {
        self.check_memory(case, image)?;
        let folder = tempfile::tempdir_in(&self.stage.memory)?;
        let staging = folder.path().join("staging");
        fs::create_dir(&staging)?;
        let mut disk = Disk::new(folder.path(), image.disk_bytes(), case.pace)?;
        self.prove(case, image, &disk)?;
        if image.disk_bytes() >= TOO_BIG {
            // Little of it holds old data: no rate of a part tells how long this disk needs.
            let seconds = disk.zeroed_alone()?;
            self.notes.push(format!("{}: the disk alone zeroes itself in {seconds:.2} s", case.name));
            rows.iter_mut().for_each(|row| row.zeroing = Some(seconds));
        }
        for round in 1..=self.runs {
            for row in rows.iter_mut().filter(|row| row.left_out.is_none() && may_run_again(row)) {
                eprintln!(
                    "{}, run {round} of {}: {}",
                    case.name,
                    self.runs,
                    contenders::name(row.who, image.picture)
                );
                disk.renew()?;
                // Each time: filling the disk may push the image out of memory.
                images::read_through(&image.path)?;
                let mut run = self.measure(row, &disk, &staging)?;
                match &run.outcome {
                    Outcome::Done if round == 1 => compare(&mut run, &disk, image),
                    Outcome::Failed(_) if row.who == Who::Coreos => {
                        row.note = excused(&mut run, &disk, image)
                    }
                    _ => {}
                }
                eprintln!("    {}", brief(&run));
                row.runs.push(run);
                empty(&staging)?;
            }
        }
        Ok(())
    }

    /// One run of one contender.
    fn measure(&self, row: &Row, disk: &Disk, staging: &Path) -> Result<Run> {
        let image = &row.image;
        let door = match (&self.afar, row.case.line) {
            (Some(afar), Line::Gigabit) => afar.end.door().to_vec(),
            _ => vec![],
        };
        let no_program = PathBuf::new();
        let task = Task {
            image,
            url: self.url(row),
            disk: disk.device(),
            staging,
            door: &door,
            agent: &self.agent,
            coreos: self.coreos.as_ref().unwrap_or(&no_program),
        };
        let programs = contenders::programs(row.who, &task);
        measure::run(&programs, disk, staging, contenders::patience(row.who))
    }

    fn url(&self, row: &Row) -> String {
        let name = row.image.picture.name();
        match (row.who, row.case.line) {
            (Who::OursWhole, _) => self.server.url_without_ranges(name),
            (Who::OursCut, _) => {
                // The rest after the last cut is half a piece.
                let after = row.image.bytes * 2 / u64::from(CUTS * 2 + 1);
                self.breaking.offer(name, &row.image.path, Fault::Cuts { after, left: CUTS })
            }
            (_, Line::Gigabit) => self.server.url_from_afar(name),
            (_, Line::Loopback) => self.server.url(name),
        }
    }

    fn check_memory(&self, case: &Case, image: &Made) -> Result<()> {
        let staged = if case.who.contains(&Who::Python) { image.bytes } else { 0 };
        let needed = memory_for(image.disk_bytes(), case.pace)? + staged + SPARE;
        let there = memory_available()?;
        anyhow::ensure!(
            there >= needed,
            "it needs {} MiB of free memory, {} are there",
            needed / MIB,
            there / MIB
        );
        Ok(())
    }

    /// Shows that a slow line and a slow disk are as slow as they are called.
    fn prove(&mut self, case: &Case, image: &Made, disk: &Disk) -> Result<()> {
        if case.line == Line::Gigabit {
            let afar = match self.afar.take() {
                Some(afar) => afar,
                None => Afar::new(&self.stage.network)?,
            };
            let found = afar.prove(&self.server.url_from_afar(image.picture.name()), image.bytes);
            self.afar = Some(afar);
            self.notes.push(format!("{}: {}", case.name, found?));
        }
        if let Pace::Held(_) = case.pace {
            self.notes.push(format!("{}: {}", case.name, disk.prove_pace()?));
        }
        if image.disk_bytes() >= TOO_BIG {
            let filled = memory_for(image.disk_bytes(), case.pace)? / MIB;
            self.notes.push(format!("{}: old data in {filled} MiB of the disk only, all over it", case.name));
        }
        Ok(())
    }
}

/// One run in words, for who watches.
fn brief(run: &Run) -> String {
    match &run.outcome {
        Outcome::Done => format!(
            "{:.2} s, {:.2} s of processor, {:.1} MiB resident, {:.0} MiB written",
            run.wall, run.cpu, run.resident, run.written
        ),
        Outcome::Failed(why) => why.clone(),
        Outcome::Hung(seconds) => format!("hung, killed after {seconds} s"),
    }
}

/// Who failed will fail again; who hung may not.
fn may_run_again(row: &Row) -> bool {
    !row.runs.iter().any(|run| matches!(run.outcome, Outcome::Failed(_)))
}

/// A run that left another content than the image's has failed, however fast it was.
fn compare(run: &mut Run, disk: &Disk, image: &Made) {
    if let Err(error) = disk.compare(image) {
        run.outcome = Outcome::Failed(format!("the disk is not the image: {error:#}"));
    }
}

/// Where there is no udev, coreos-installer fails when all is written: it cannot wait for partitions to appear, and
/// blanks the first MiB. Its time counts if all the rest is there; what was measured is then said.
fn excused(run: &mut Run, disk: &Disk, image: &Made) -> Option<String> {
    let Outcome::Failed(why) = &run.outcome else { return None };
    if !why.contains("udev") || disk.compare_raw(image, MIB).is_err() {
        return None;
    }
    run.outcome = Outcome::Done;
    Some("measured until it gave up for want of udev, with all but the first MiB right".to_owned())
}

fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        fs::remove_file(entry.path())?;
    }
    Ok(())
}

/// What the machine allows for each image, and how near we are.
fn floors(rows: &[Row], rates: &Rates) -> Result<String> {
    let cores = std::thread::available_parallelism()?.get();
    let resources = ["network", "hash", "decompression", "disk", "processor"];
    let head = ["image"].into_iter().chain(resources).chain([
        "highest floor",
        "ours",
        "ours ÷ floor",
        "all cores busy",
    ]);
    let mut lines = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for row in rows.iter().filter(|row| row.who.is_ours() && row.who != Who::OursCut) {
        let (name, hash) = match row.who {
            Who::OursSha512 => (format!("{}, sha512", row.case.name), "sha512"),
            Who::OursWhole => (format!("{}, no ranges", row.case.name), "sha256"),
            _ => (row.case.name.to_owned(), "sha256"),
        };
        let floors = roofline::floors(row, hash, rates, cores);
        let seconds = |name: &str| floors.0.get(name).map_or_else(|| "–".to_owned(), |s| format!("{s:.2} s"));
        let (limit, floor) = floors.highest();
        let ours = row.median(|run| run.wall);
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let busy = row.median_run().map(|run| run.busy / cores as f64);
        let share = row.median_run().map(|run| run.busy / cores as f64 / run.wall * 100.0);
        let mut line = vec![name];
        line.extend(resources.map(seconds));
        line.extend([format!("{limit}, {floor:.2} s"), shown(ours), shown(ours.map(|ours| ours / floor))]);
        line.push(match (busy, share) {
            (Some(busy), Some(share)) => format!("{busy:.2} s, {share:.0} %"),
            _ => "–".to_owned(),
        });
        lines.push(line);
    }
    Ok(format!(
        "At best, by the parts below: seconds that each resource is needed if nothing else took time (processor: all \
         steps, the disk's included, and the server, on {cores} cores). All cores busy: what the whole machine worked \
         in the median run, by the kernel's account, spread over the cores, and how much of the run that is.\n\n{}",
        markdown(&lines, &[0, 6])
    ))
}

/// What our agent says of its median runs.
fn reports(rows: &[Row]) -> String {
    let ours = rows.iter().filter(|row| row.who.is_ours());
    let said = ours.filter_map(|row| {
        let run = row.median_run()?;
        Some(format!("{}, {}: {}\n", row.case.name, contenders::name(row.who, row.image.picture), run.said))
    });
    format!("Our reports of the median runs:\n\n{}", said.collect::<String>())
}

fn as_json(machine: &[String], rates: &Rates, rows: &[Row]) -> serde_json::Value {
    let rows = rows.iter().map(|row| {
        let runs = row.runs.iter().map(|run| {
            json!({
                "outcome": format!("{:?}", run.outcome), "wall_s": run.wall, "cpu_s": run.cpu, "busy_s": run.busy, "resident_mib": run.resident,
                "staged_mib": run.staged, "written_mib": run.written, "carried_mib": run.carried, "counted_by_kernel_mib": run.counted, "said": run.said,
            })
        });
        let verdicts = ours_of(row, rows).map(|ours| super::table::verdicts(row, ours)).unwrap_or_default();
        let verdicts = verdicts.iter().map(|v| json!({"goal": v.goal, "reached": v.reached, "met": v.met}));
        json!({
            "image": row.case.name, "who": contenders::name(row.who, row.image.picture), "file_bytes": row.image.bytes,
            "virtual_bytes": row.image.virtual_bytes, "data_bytes": row.image.data_bytes, "left_out": row.left_out,
            "note": row.note, "goals": verdicts.collect::<Vec<_>>(), "runs": runs.collect::<Vec<_>>(),
        })
    });
    json!({"machine": machine, "rates": parts::as_json(rates), "rows": rows.collect::<Vec<_>>()})
}
