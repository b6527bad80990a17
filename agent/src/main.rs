//! Entry point: which of the agent's duties this process takes, and its exit code. No more.

fn main() {}
