//! One command at a time: takes a name and parameters, keeps every result, says when an asynchronous one has ended.
//!
//! Rules are ironic-python-agent's: results stay in the order of their start, names in results are short, a new command
//! is refused while the last one runs, asynchronous commands end with a heartbeat. The list survives a crash of the
//! process; a command that ran at the crash comes back as FAILED. Knows nothing of HTTP.

use crate::commands::context::lock;
use crate::commands::{self, Command, Context, Failure, Job, Kind, Params, Unknown, failure};
use crate::state::StateDir;
use ferric_common::events::Progress;
use ferric_common::limits;
use ferric_common::wire::command::{CommandResult, CommandStatus};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

/// Why a command was not taken; nothing is stored then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Invalid command: Command name must be of the form <extension>.<name>")]
    Form,
    #[error("Not found: Extension with id {0} not found.")]
    Extension(String),
    #[error("Invalid command: Unknown command: {0}")]
    Command(String),
    #[error("Invalid command parameters: {0}")]
    Params(String),
    #[error("Agent is busy: executing command {0}")]
    Busy(String),
    #[error("Not found: Command Result with id {0} not found.")]
    Result(String),
    #[error("the agent failed while running the command: {0}")]
    Crash(String),
}

struct Entry {
    result: CommandResult,
    /// Present while it runs.
    job: Option<Arc<Job>>,
}

/// Runs commands and remembers them.
pub struct Executor {
    context: Arc<Context>,
    list: Mutex<VecDeque<Entry>>,
    /// Held while a synchronous command runs and while an asynchronous one is started.
    gate: tokio::sync::Mutex<()>,
    /// Counts changes of the list, for those who wait.
    changes: watch::Sender<u64>,
    /// Notified when an asynchronous command has ended.
    ended: Arc<Notify>,
    store: Option<StateDir>,
}

impl Executor {
    /// `earlier` is the list of an earlier life in this boot; what ran then has failed now.
    pub fn new(
        context: Arc<Context>,
        earlier: Vec<CommandResult>,
        store: Option<StateDir>,
        ended: Arc<Notify>,
    ) -> Executor {
        let list =
            earlier.into_iter().map(|result| Entry { result: after_crash(result), job: None }).collect();
        let executor = Executor {
            context,
            list: Mutex::new(list),
            gate: tokio::sync::Mutex::new(()),
            changes: watch::Sender::new(0),
            ended,
            store,
        };
        executor.keep();
        executor
    }

    /// Starts a command. A synchronous one is finished in the answer; an asynchronous one only if `wait` is asked for.
    ///
    /// The work goes on when the caller's future is dropped: a lost connection must not stop a disk half way.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn run(
        self: &Arc<Self>,
        name: &str,
        params: Params,
        wait: bool,
    ) -> Result<CommandResult, Refusal> {
        let (this, name) = (Arc::clone(self), name.to_string());
        let task = tokio::spawn(async move { this.start(&name, params).await });
        let result = task.await.map_err(|error| Refusal::Crash(error.to_string()))??;
        if wait && result.command_status == CommandStatus::Running {
            return self.finished(&result.id).await;
        }
        Ok(result)
    }

    async fn start(self: &Arc<Self>, name: &str, params: Params) -> Result<CommandResult, Refusal> {
        let (extension, short) = name
            .split_once('.')
            .filter(|(extension, short)| !extension.is_empty() && !short.is_empty() && !short.contains('.'))
            .ok_or(Refusal::Form)?;
        let gate = self.gate.lock().await;
        if let Some(running) = self.running() {
            return Err(Refusal::Busy(running));
        }
        let command = commands::find(extension, short).map_err(|unknown| match unknown {
            Unknown::Extension => Refusal::Extension(extension.to_string()),
            Unknown::Command => Refusal::Command(short.to_string()),
        })?;
        tracing::info!("command {name}");
        match command.kind {
            Kind::Sync => {
                let job = Arc::new(Job::default());
                let outcome = work(Arc::clone(&self.context), command, params, job).await;
                if let Err(failure) = &outcome
                    && failure.class == failure::INVALID_PARAMS
                {
                    return Err(Refusal::Params(failure.details.clone()));
                }
                // A synchronous failure carries the long name, the only place where the wire does.
                let shown = if outcome.is_ok() { short } else { name };
                let result = finish(blank(shown), Kind::Sync, outcome);
                self.push(Entry { result: result.clone(), job: None });
                Ok(result)
            }
            Kind::Async => {
                if let Some(validate) = command.validate
                    && command.check_names(&params).is_ok()
                {
                    validate(&self.context, &params).map_err(|failure| Refusal::Params(failure.details))?;
                }
                let result = blank(short);
                let job = Arc::new(Job::default());
                self.push(Entry { result: result.clone(), job: Some(Arc::clone(&job)) });
                drop(gate);
                let (this, started) = (Arc::clone(self), result.clone());
                tokio::spawn(async move {
                    let outcome = work(Arc::clone(&this.context), command, params, job).await;
                    if let Err(failure) = &outcome {
                        tracing::error!("{} failed: {}", started.command_name, failure.details);
                    } else {
                        tracing::info!("{} succeeded", started.command_name);
                    }
                    this.replace(finish(started, Kind::Async, outcome));
                    this.ended.notify_one();
                });
                Ok(result)
            }
        }
    }

    /// The short name of the command that runs now. Only the last entry can run.
    fn running(&self) -> Option<String> {
        let list = lock(&self.list);
        let last = &list.back()?.result;
        (last.command_status == CommandStatus::Running).then(|| last.command_name.clone())
    }

    /// All results, oldest first; a running one shows its progress.
    pub fn results(&self) -> Vec<CommandResult> {
        lock(&self.list).iter().map(shown).collect()
    }

    /// # Errors
    /// [`Refusal::Result`] for an id that is not in the list.
    pub fn result(&self, id: &str) -> Result<CommandResult, Refusal> {
        let list = lock(&self.list);
        list.iter()
            .find(|entry| entry.result.id == id)
            .map(shown)
            .ok_or_else(|| Refusal::Result(id.to_string()))
    }

    /// Waits until a command has ended.
    ///
    /// # Errors
    /// [`Refusal::Result`] for an id that is not in the list.
    pub async fn finished(&self, id: &str) -> Result<CommandResult, Refusal> {
        let mut changes = self.changes.subscribe();
        loop {
            let result = self.result(id)?;
            if result.command_status != CommandStatus::Running || changes.changed().await.is_err() {
                return Ok(result);
            }
        }
    }

    /// Asks a running command to stop; it fails then with words.
    pub fn cancel(&self) {
        for job in lock(&self.list).iter().filter_map(|entry| entry.job.as_ref()) {
            job.cancel.cancel();
        }
    }

    /// Name and progress of the running command, if it counts bytes.
    pub fn progress(&self) -> Option<(String, Progress)> {
        let list = lock(&self.list);
        let last = list.back()?;
        Some((last.result.command_name.clone(), last.job.as_ref()?.progress()?))
    }

    fn push(&self, entry: Entry) {
        {
            let mut list = lock(&self.list);
            if entry.result.command_name == LOGS {
                // Log archives are large and nobody reads an old one: only the newest stays.
                for old in list.iter_mut().filter(|old| old.result.command_name == LOGS) {
                    old.result.command_result = Some(json!({"system_logs": ""}));
                }
            }
            list.push_back(entry);
            while list.len() > limits::COMMANDS_KEPT {
                list.pop_front();
            }
        }
        self.changed();
    }

    fn replace(&self, result: CommandResult) {
        if let Some(entry) = lock(&self.list).iter_mut().find(|entry| entry.result.id == result.id) {
            *entry = Entry { result, job: None };
        }
        self.changed();
    }

    fn changed(&self) {
        self.keep();
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn keep(&self) {
        let Some(store) = &self.store else { return };
        let mut results: Vec<CommandResult> =
            lock(&self.list).iter().map(|entry| entry.result.clone()).collect();
        for result in results.iter_mut().filter(|result| result.command_name == LOGS) {
            result.command_result = Some(json!({"system_logs": ""}));
        }
        if let Err(error) = store.save_commands(&results) {
            tracing::warn!("{}; a crash of the agent would lose its command list", failure::chain(&error));
        }
    }
}

const LOGS: &str = "collect_system_logs";

fn shown(entry: &Entry) -> CommandResult {
    let mut result = entry.result.clone();
    if result.command_status == CommandStatus::Running
        && let Some(progress) = entry.job.as_ref().and_then(|job| job.progress())
    {
        result.command_result = Some(json!({"progress": progress}));
    }
    result
}

fn blank(name: &str) -> CommandResult {
    CommandResult {
        id: uuid::Uuid::new_v4().to_string(),
        command_name: name.to_string(),
        command_status: CommandStatus::Running,
        command_error: None,
        command_result: None,
    }
}

/// Runs the command's function on a thread that may block; a panic there is a failure of that command alone.
async fn work(
    context: Arc<Context>,
    command: &'static Command,
    params: Params,
    job: Arc<Job>,
) -> Result<Value, Failure> {
    let task = tokio::task::spawn_blocking(move || {
        command.check_names(&params)?;
        (command.run)(&context, &params, &job)
    });
    task.await.unwrap_or_else(|error| {
        let step = failure::of_step(command.extension).filter(|_| command.name.starts_with("execute_"));
        Err(step.unwrap_or(failure::COMMAND_EXECUTION).with(format!(
            "a defect in the agent stopped {}.{}: {error}; the console shows where",
            command.extension, command.name
        )))
    })
}

/// A text is wrapped, as conductors expect: bare for synchronous commands, with the name for others.
fn finish(mut result: CommandResult, kind: Kind, outcome: Result<Value, Failure>) -> CommandResult {
    match outcome {
        Ok(value) => {
            result.command_status = CommandStatus::Succeeded;
            result.command_result = match (value, kind) {
                (Value::Null, _) => None,
                (Value::String(text), Kind::Sync) => Some(json!({"result": text})),
                (Value::String(text), Kind::Async) => {
                    Some(json!({"result": format!("{}: {text}", result.command_name)}))
                }
                (value, _) => Some(value),
            };
        }
        Err(failure) => {
            result.command_status = match failure.class == failure::VERSION_MISMATCH {
                true => CommandStatus::VersionMismatch,
                false => CommandStatus::Failed,
            };
            result.command_error = Some(failure.wire());
        }
    }
    result
}

fn after_crash(result: CommandResult) -> CommandResult {
    if result.command_status != CommandStatus::Running {
        return result;
    }
    let text = format!(
        "the agent's process stopped while it ran {} and was started again; how far the command came is not known, so it \
         counts as failed. A disk that was being written is blank at both ends or complete. The console and the log \
         archive tell why the process stopped; run the step again",
        result.command_name
    );
    finish(result, Kind::Async, Err(failure::COMMAND_EXECUTION.with(text)))
}
