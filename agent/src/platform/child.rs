//! A program beside the agent, as the other rooms see it: words and bytes in, bytes out, an end.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// What a running program is heard to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    Output(&'a [u8]),
    Errors(&'a [u8]),
    /// Nothing, or not only that: comes several times a second, so that time and cancellation can be looked at.
    Tick,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    /// By a signal that it did not get from us, by name.
    Signal(String),
    /// By us, as the listener asked for it.
    Stopped,
}

/// Is told what was heard; `Break` has the program killed.
pub type Listen<'a> = &'a mut dyn FnMut(Heard<'_>) -> ControlFlow<()>;

/// Starts programs and stays with them until they have ended.
pub trait Programs: Send + Sync {
    /// Runs one with next to nothing in its environment but a search path, `input` to read, and mounts that end with it. When it has
    /// ended, or is stopped, everything else of its process group is killed.
    ///
    /// # Errors
    /// As fork(2), execve(2) and waitid(2).
    fn run(&self, program: &Path, words: &[&str], input: &[u8], listen: Listen<'_>) -> io::Result<End>;
}
