//! Erases one disk: the ways of its plan in order, each proven, until one worked.

use super::board::Board;
use super::noise;
use super::overwrite::{self, Pass, passes};
use super::plan::Method;
use super::proof::{Expect, Marks};
use super::settings::Settings;
use super::targets::Target;
use super::{ata, chain, nvme};
use crate::platform::block::BlockDevice;
use crate::platform::machine::Machine;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Why the rest is not erased.
pub const CANCELLED: &str = "the step was cancelled";

/// What was done to a disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub method: String,
    pub proof: String,
    pub took: Duration,
    /// What was tried before in vain.
    pub in_vain: Vec<String>,
}

impl Done {
    /// For the step's result.
    pub fn json(&self) -> Value {
        let seconds = (self.took.as_secs_f64() * 10.0).round() / 10.0;
        let mut value = json!({"method": self.method, "seconds": seconds, "proof": self.proof});
        if let Some(value) = value.as_object_mut().filter(|_| !self.in_vain.is_empty()) {
            value.insert("failed_before".to_owned(), json!(self.in_vain));
        }
        value
    }
}

/// A disk's place on the board.
pub struct Work<'a> {
    pub machine: &'a dyn Machine,
    pub settings: &'a Settings,
    pub board: &'a Board<'a>,
    pub line: usize,
}

impl Work<'_> {
    /// # Errors
    /// Why no way worked, in one line.
    pub fn erase(&self, target: &Target) -> Result<Done, String> {
        let began = Instant::now();
        let disk = self.machine.open_disk(&target.name).map_err(|error| chain(&error))?;
        let mut in_vain: Vec<String> = target.plan.lacks.clone().into_iter().collect();
        for method in target.plan.secure.iter().chain(&target.plan.fallbacks) {
            if self.board.is_cancelled() {
                return Err(CANCELLED.into());
            }
            tracing::info!("{}: {method}", target.name);
            match self.attempt(*method, target, disk.as_ref()) {
                Ok((method, proof)) => {
                    return Ok(Done { method, proof, took: began.elapsed(), in_vain });
                }
                Err(why) => {
                    tracing::warn!("{}: {method} failed: {why}", target.name);
                    in_vain.push(format!("{method}: {why}"));
                }
            }
        }
        let reasons = in_vain.join("; ");
        Err(match target.plan.fallbacks.is_empty() {
            true => format!("Failed to invoke secure erase, fallback to shred is not enabled: {reasons}"),
            false => format!("Unable to erase block device {}: {reasons}", target.name),
        })
    }

    /// One way; what was done and the proof, in words.
    fn attempt(
        &self,
        method: Method,
        target: &Target,
        disk: &dyn BlockDevice,
    ) -> Result<(String, String), String> {
        let name = &target.name;
        let marks = Marks::new(disk.size().0, noise::seed());
        let marked = marks.write(disk).map_err(|error| chain(&error));
        let mut done = method.to_string();
        let mut expect = Expect::NotTheMarks;
        match method {
            Method::NvmeFormat(erase) => {
                self.board.begin(self.line, &done, 0);
                let drive = self.machine.nvme(name).map_err(|error| chain(&error))?;
                nvme::format(drive.as_ref(), erase)
                    .map_err(|error| format!("Failed to nvme format device {name}: {error}"))?;
            }
            Method::NvmeSanitize(action) => {
                // In parts of 65,536, as the drive tells it.
                self.board.begin(self.line, &done, 0);
                let drive = self.machine.nvme(name).map_err(|error| chain(&error))?;
                let wait = |pause| {
                    std::thread::sleep(pause);
                    !self.board.is_cancelled()
                };
                let told = |part: u16| {
                    let percent = u32::from(part) * 100 / 65_536;
                    self.board.begin(self.line, &format!("{method}, {percent} %"), 0);
                };
                nvme::sanitize(drive.as_ref(), action, &wait, &told).map_err(|error| error.to_string())?;
            }
            Method::Ata => {
                self.board.begin(self.line, &done, 0);
                let drive = self.machine.ata(name).map_err(|error| chain(&error))?;
                let how = ata::erase(name, drive.as_ref()).map_err(|error| chain(&error))?;
                done = match how {
                    ata::AtaErase::Enhanced => "ATA security erase (enhanced)".to_owned(),
                    ata::AtaErase::Normal => "ATA security erase".to_owned(),
                };
            }
            Method::Discard => {
                marked.clone()?;
                expect = Expect::Zeros;
                self.board.begin(self.line, &done, disk.size().0);
                overwrite::discard(disk, &|at| self.board.advance(self.line, at))
                    .map_err(|error| chain(&error))?;
            }
            Method::Overwrite => {
                marked.clone()?;
                let all = passes(self.settings);
                expect = if all.last() == Some(&Pass::Zeros) { Expect::Zeros } else { Expect::NotTheMarks };
                done = self.overwrite(&all, disk)?;
            }
        }
        let proof = match marked {
            Ok(()) => {
                marks.check(disk, expect).map_err(|error| chain(&error))?;
                marks.words(expect)
            }
            Err(why) => format!("none but the drive's word: it could not be marked before ({why})"),
        };
        Ok((done, proof))
    }

    fn overwrite(&self, all: &[Pass], disk: &dyn BlockDevice) -> Result<String, String> {
        for (number, pass) in (1..).zip(all) {
            let what = match pass {
                Pass::Noise => "random bytes",
                Pass::Zeros => "zeros",
            };
            let words = format!("overwriting with {what}, pass {number} of {}", all.len());
            self.board.begin(self.line, &words, disk.size().0);
            let told = |at| self.board.advance(self.line, at);
            overwrite::overwrite(disk, *pass, noise::seed(), &told).map_err(|error| chain(&error))?;
        }
        let random = all.iter().filter(|pass| **pass == Pass::Noise).count();
        let zeros = if all.last() == Some(&Pass::Zeros) { ", zeros last" } else { "" };
        Ok(format!("overwriting ({random} random passes{zeros})"))
    }
}
