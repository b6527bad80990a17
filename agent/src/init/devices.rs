//! Drivers for the devices that are there (coldplug) and for those that appear later: a child of process 1, so that a driver that
//! hangs or a table that surprises us stops no one else.
//!
//! Independent modules load at the same time: an HBA that probes its disks for seconds does not hold up the NIC.

use super::modules::{Index, Load};
use crate::platform::linux::uevent::{Event, Uevents};
use crate::platform::linux::{SETTLED_MARKER, clock, kmod};
use crate::{logging, timeline};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Modules that load at once. Most of their time is waiting for hardware, so this does not follow the number of CPUs.
const WORKERS: usize = 4;
/// Looks at all devices before new ones are left to the kernel's events: a bus behind a bus behind a bus.
const PASSES: usize = 16;
/// A module that took longer is named on the console.
const SLOW: Duration = Duration::from_secs(1);
/// Events are gathered this long, as devices come in bursts.
const GATHER: Duration = Duration::from_millis(10);
/// Modaliases remembered as done; real machines have some hundreds.
const REMEMBERED: usize = 100_000;

/// Loads what the devices ask for until killed.
pub fn run() -> ExitCode {
    let events = Uevents::open();
    let mut driver = match Drivers::read() {
        Ok(driver) => driver,
        Err(error) => {
            logging::say(&format!(
                "modules: reading the list of kernel modules failed: {error}; drivers built into the kernel must do"
            ));
            Drivers::default()
        }
    };
    for _ in 0..PASSES {
        if !driver.load_for(present(Path::new("/sys"))) {
            break;
        }
    }
    driver.report();
    timeline::mark(timeline::MODULES_LOADED);
    drop(fs::write(SETTLED_MARKER, ""));
    match events {
        Ok(events) => driver.follow(&events),
        Err(error) => {
            logging::say(&format!("modules: listening for new devices failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Loads one module by name or alias, as the kernel asks its helper to (`modprobe -q -- NAME`).
pub fn request(wanted: &str) -> ExitCode {
    let Ok(mut driver) = Drivers::read() else { return ExitCode::FAILURE };
    if driver.index.resolve(wanted).is_empty() {
        return ExitCode::FAILURE;
    }
    driver.load_for([wanted.to_owned()]);
    ExitCode::from(u8::from(driver.failed > 0))
}

#[derive(Default)]
struct Drivers {
    folder: PathBuf,
    index: Index,
    asked: BTreeSet<String>,
    done: BTreeSet<String>,
    failed: usize,
    took: Duration,
}

impl Drivers {
    fn read() -> io::Result<Drivers> {
        let kernel = nix::sys::utsname::uname()?;
        let folder = Path::new("/lib/modules").join(kernel.release());
        let text = |name: &str| fs::read_to_string(folder.join(name));
        let index = Index::parse(
            &text("modules.dep")?,
            &text("modules.alias").unwrap_or_default(),
            &text("modules.softdep").unwrap_or_default(),
            &fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        );
        Ok(Drivers { folder, index, ..Drivers::default() })
    }

    /// Loads the modules for these, once; answers whether any was new.
    fn load_for(&mut self, wanted: impl IntoIterator<Item = String>) -> bool {
        if self.asked.len() > REMEMBERED {
            self.asked.clear();
        }
        let fresh: Vec<String> =
            wanted.into_iter().filter(|modalias| self.asked.insert(modalias.clone())).collect();
        let modules = fresh.iter().flat_map(|modalias| self.index.resolve(modalias));
        let plan = self.index.plan(modules.collect::<BTreeSet<_>>(), &self.done);
        if plan.is_empty() {
            return false;
        }
        let began = clock::since_boot();
        let outcomes = in_order(&plan, |load| {
            let began = clock::since_boot();
            let outcome = kmod::load(&self.folder.join(&load.path), &load.parameters);
            (outcome, clock::since_boot().saturating_sub(began))
        });
        self.took += clock::since_boot().saturating_sub(began);
        for (load, (outcome, took)) in plan.into_iter().zip(outcomes) {
            if took > SLOW {
                logging::say(&format!("modules: {} took {:.1} s", load.name, took.as_secs_f64()));
            }
            match outcome {
                Ok(()) => {}
                // The module itself says that its hardware is not here.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    self.failed += 1;
                    logging::say(&format!("modules: loading {} failed: {error}", load.name));
                }
            }
            // A failed one is not tried again: the same device would fail it at each event.
            self.done.insert(load.name);
        }
        true
    }

    fn report(&self) {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let (count, took) = (self.done.len(), self.took.as_secs_f64());
        logging::say(&format!("modules: {count} for {} devices in {took:.1} s{failed}", self.asked.len()));
    }

    fn follow(&mut self, events: &Uevents) -> ExitCode {
        // What appeared between the last look and now has its event waiting already.
        loop {
            let mut wanted = Vec::new();
            let mut wait = Duration::from_secs(60);
            loop {
                match events.next(wait) {
                    Ok(Event::Added { modalias }) => wanted.push(modalias),
                    Ok(Event::Lost) => wanted.extend(present(Path::new("/sys"))),
                    Ok(Event::Other) => {}
                    Ok(Event::Silence) => break,
                    Err(error) => {
                        logging::say(&format!("modules: listening for new devices failed: {error}"));
                        return ExitCode::FAILURE;
                    }
                }
                if wanted.len() > REMEMBERED {
                    break;
                }
                wait = GATHER;
            }
            self.load_for(wanted);
        }
    }
}

/// The modaliases of all devices on all buses.
fn present(sys: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    for bus in entries(&sys.join("bus")) {
        for device in entries(&bus.join("devices")) {
            if let Ok(text) = fs::read_to_string(device.join("modalias")) {
                found.insert(text.trim().to_owned());
            }
        }
    }
    found.into_iter().filter(|modalias| !modalias.is_empty()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Runs `work` for each load once all those before it were tried, up to [`WORKERS`] at a time; outcomes in the plan's order.
fn in_order<T: Send>(plan: &[Load], work: impl Fn(&Load) -> T + Sync) -> Vec<T> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Waiting,
        Running,
        Tried,
    }
    let states = Mutex::new((vec![State::Waiting; plan.len()], Vec::new()));
    let changed = Condvar::new();
    let worker = || {
        let mut locked = states.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let tried = |at: &usize| locked.0.get(*at).is_none_or(|state| *state == State::Tried);
            let ready = plan
                .iter()
                .zip(&locked.0)
                .position(|(load, state)| *state == State::Waiting && load.after.iter().all(tried));
            let next = ready.and_then(|at| Some((at, plan.get(at)?)));
            if let Some((at, load)) = next {
                set(&mut locked.0, at, State::Running);
                drop(locked);
                let outcome = work(load);
                locked = states.lock().unwrap_or_else(PoisonError::into_inner);
                set(&mut locked.0, at, State::Tried);
                locked.1.push((at, outcome));
                changed.notify_all();
            } else if locked.0.contains(&State::Running) {
                locked = changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
            } else {
                // Nothing is ready and nothing runs: all was tried.
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(plan.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let (_, mut outcomes) = states.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(at, _)| *at);
    return outcomes.into_iter().map(|(_, outcome)| outcome).collect();

    fn set(states: &mut [State], at: usize, state: State) {
        if let Some(slot) = states.get_mut(at) {
            *slot = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_is_tried_once_and_after_what_it_needs() {
        let load = |number: usize, after: &[usize]| Load {
            name: number.to_string(),
            path: String::new(),
            parameters: String::new(),
            after: after.to_vec(),
        };
        let plan: Vec<Load> =
            (0..50).map(|n| if n < 5 { load(n, &[]) } else { load(n, &[n - 5, n / 2]) }).collect();
        let order = Mutex::new(Vec::new());
        let outcomes = in_order(&plan, |load| {
            let seen = order.lock().unwrap().clone();
            assert!(
                load.after.iter().all(|before| seen.contains(&before.to_string())),
                "{load:?} in {seen:?}"
            );
            order.lock().unwrap().push(load.name.clone());
            load.name.clone()
        });
        assert_eq!(outcomes, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(in_order(&[], |_| ()).is_empty());
    }

    #[test]
    fn all_buses_are_looked_at() {
        let sys = tempfile::tempdir().unwrap();
        for (bus, device, modalias) in
            [("pci", "0", "pci:v1\n"), ("usb", "1-1", "usb:v2\n"), ("usb", "1-2", "\n")]
        {
            let real = sys.path().join("devices").join(device);
            fs::create_dir_all(&real).unwrap();
            fs::write(real.join("modalias"), modalias).unwrap();
            let folder = sys.path().join("bus").join(bus).join("devices");
            fs::create_dir_all(&folder).unwrap();
            symlink(&real, folder.join(device)).unwrap();
        }
        assert_eq!(present(sys.path()), ["pci:v1", "usb:v2"]);
    }
}
