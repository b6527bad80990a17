//! Stays with a step from outside until it has ended: hears it, bounds it, says how it went.

use super::Manifest;
use super::protocol::{Line, Lines, Order, Tail};
use crate::platform::child::{End, Heard, Programs};
use ferric_common::events::Progress;
use ferric_common::limits;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Why a step from outside did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the step {step} cannot be run: starting {program}")]
    Start {
        step: String,
        program: String,
        #[source]
        source: std::io::Error,
    },
    /// The program's own words.
    #[error("the step {step} failed: {why}")]
    Told { step: String, why: String },
    #[error("the step {step} failed: {program} {how}; its last words: {tail}")]
    Ended { step: String, program: String, how: String, tail: String },
}

/// What the one who waits wants: told progress, and asked whether to go on.
pub trait Stop {
    fn is_cancelled(&self) -> bool;
    fn report(&self, progress: Progress);
}

/// Runs a step; answers its result, null if it has none.
///
/// # Errors
/// [`StepError`].
pub fn run(
    manifest: &Manifest,
    program: &Path,
    order: &Order<'_>,
    programs: &dyn Programs,
    stop: &dyn Stop,
) -> Result<Value, StepError> {
    let mut listener = Listener::new(manifest, stop);
    let end = programs.run(program, &[], &order.document(), &mut |heard| listener.hear(heard));
    let end = end.map_err(|source| StepError::Start {
        step: manifest.name.clone(),
        program: program.display().to_string(),
        source,
    })?;
    listener.conclude(program, end)
}

struct Listener<'a> {
    manifest: &'a Manifest,
    stop: &'a dyn Stop,
    began: Instant,
    output: Lines,
    errors: Lines,
    tail: Tail,
    /// Bytes heard of both streams.
    heard: usize,
    result: Option<Value>,
    told: Option<String>,
    /// Why it is stopped.
    stopped: Option<String>,
}

impl<'a> Listener<'a> {
    fn new(manifest: &'a Manifest, stop: &'a dyn Stop) -> Listener<'a> {
        stop.report(Progress { stage: manifest.name.clone(), ..Progress::default() });
        Listener {
            manifest,
            stop,
            began: Instant::now(),
            output: Lines::default(),
            errors: Lines::default(),
            tail: Tail::default(),
            heard: 0,
            result: None,
            told: None,
            stopped: None,
        }
    }

    fn hear(&mut self, heard: Heard<'_>) -> ControlFlow<()> {
        match heard {
            Heard::Tick => {}
            Heard::Output(bytes) => {
                self.heard = self.heard.saturating_add(bytes.len());
                let mut lines = std::mem::take(&mut self.output);
                lines.push(bytes, |line| self.take(line));
                self.output = lines;
            }
            Heard::Errors(bytes) => {
                self.heard = self.heard.saturating_add(bytes.len());
                self.tail.push(bytes);
                let name = &self.manifest.name;
                self.errors.push(bytes, |line| log(name, &line));
            }
        }
        self.stopped = self.reason();
        if self.stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn reason(&self) -> Option<String> {
        if self.heard > limits::PROGRAM_OUTPUT {
            return Some(format!("was stopped, as it wrote more than {} bytes", limits::PROGRAM_OUTPUT));
        }
        if self.stop.is_cancelled() {
            return Some("was stopped, as the command was cancelled".into());
        }
        let limit = self.manifest.timeout();
        (self.began.elapsed() >= limit)
            .then(|| format!("was stopped, as it took longer than the {} s of its manifest", limit.as_secs()))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Progress { text, done, total } => self.stop.report(Progress {
                stage: self.manifest.name.clone(),
                bytes_done: done,
                bytes_total: total,
                seconds: self.began.elapsed().as_secs(),
                note: text,
                ..Progress::default()
            }),
            Line::Result(value) => self.result = Some(value),
            Line::Error(why) => self.told = Some(why),
            text @ Line::Text(_) => log(&self.manifest.name, &text),
        }
    }

    fn conclude(mut self, program: &Path, end: End) -> Result<Value, StepError> {
        let mut lines = std::mem::take(&mut self.output);
        lines.end(|line| self.take(line));
        self.errors.end(|line| log(&self.manifest.name, &line));
        let step = self.manifest.name.clone();
        let how = match (end, self.told) {
            (End::Stopped, _) => self.stopped.unwrap_or_else(|| "was stopped".into()),
            (_, Some(why)) => return Err(StepError::Told { step, why }),
            (End::Code(0), None) => return Ok(self.result.unwrap_or_default()),
            (End::Code(code), None) => format!("ended with code {code}"),
            (End::Signal(signal), None) => format!("was killed by {signal}"),
        };
        let tail = Some(self.tail.words()).filter(|tail| !tail.is_empty()).unwrap_or("none".into());
        Err(StepError::Ended { step, program: program.display().to_string(), how, tail })
    }
}

fn log(step: &str, line: &Line) {
    match line {
        Line::Text(text) => tracing::info!("{step}: {text}"),
        other => tracing::info!("{step}: {other:?}"),
    }
}
