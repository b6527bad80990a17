//! The folder with steps from outside: reads it once, keeps what is good, says what is not.

use super::Manifest;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a manifest, and how many there may be.
const MANIFEST: u64 = 64 << 10;
const MOST: usize = 256;

/// The steps of this ramdisk that are not the agent's own.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    steps: Vec<(Manifest, PathBuf)>,
    /// What could not be used, one line each.
    pub faults: Vec<String>,
}

impl Shelf {
    /// Reads every `*.json` of the folder in alphabetical order. `taken` are names that a step must not have. A folder that
    /// is not there holds nothing.
    pub fn read(folder: &Path, taken: &[String]) -> Shelf {
        let mut shelf = Shelf::default();
        let mut manifests: Vec<PathBuf> = match fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return shelf,
            Err(error) => {
                shelf.faults.push(format!("steps in {} are not there: {error}", folder.display()));
                return shelf;
            }
        };
        manifests.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        manifests.sort();
        for path in manifests {
            match shelf.take(&path, taken) {
                Ok(step) => shelf.steps.push(step),
                Err(why) => shelf.faults.push(format!("the step of {} is left out: {why}", path.display())),
            }
        }
        shelf
    }

    fn take(&self, path: &Path, taken: &[String]) -> Result<(Manifest, PathBuf), String> {
        if self.steps.len() >= MOST {
            return Err(format!("there are more than {MOST}"));
        }
        let manifest = Manifest::parse(&bounded(path)?)?;
        let name = &manifest.name;
        if taken.contains(name) {
            return Err(format!("the agent has a step {name} of its own"));
        }
        if let Some((_, other)) = self.steps.iter().find(|(other, _)| other.name == *name) {
            return Err(format!("{} has the name {name}, too", other.display()));
        }
        let program = path.with_extension("");
        let facts =
            fs::metadata(&program).map_err(|error| format!("its program {}: {error}", program.display()))?;
        if !facts.is_file() || facts.permissions().mode() & 0o100 == 0 {
            return Err(format!("{} is not a file that may be executed (chmod 755)", program.display()));
        }
        Ok((manifest, program))
    }

    /// The step of this kind and name, with its program.
    pub fn find(&self, kind: &str, name: &str) -> Option<(&Manifest, &Path)> {
        let (manifest, program) =
            self.steps.iter().find(|(step, _)| step.is_of(kind) && step.name == name)?;
        Some((manifest, program))
    }

    /// All steps of this kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Manifest> {
        self.steps.iter().map(|(manifest, _)| manifest).filter(move |manifest| manifest.is_of(kind))
    }

    /// Says on console and in the log what is there and what is not.
    pub fn tell(&self) {
        for (manifest, program) in &self.steps {
            tracing::debug!("step {} ({}): {}", manifest.name, manifest.kinds.join(", "), program.display());
        }
        for fault in &self.faults {
            tracing::warn!("{fault}");
        }
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MANIFEST + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= MANIFEST => Ok(text),
        _ => Err(format!("it is larger than {MANIFEST} bytes")),
    }
}
