//! Entry point of the service: configuration, run, exit code. No more.

fn main() {}
