//! Entry point of the service: configuration, run, exit code. No more.

use clap::Parser;
use ferric_controller::{config, run};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enrols, deploys and cleans bare metal machines; speaks the API of OpenStack Ironic.
#[derive(Parser)]
#[command(name = "ferric-controller", version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Log more: requests refused, calls to agents.
    #[arg(long, short)]
    verbose: bool,
}

/// A panic is a line in the log like others. What it stopped is said by whoever waited for it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let words = panic.payload_as_str().unwrap_or("no words");
    tracing::error!(place, "panic: {words}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
    std::panic::set_hook(Box::new(log_panic));
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(config::EXIT_CONFIG);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if run::is_configuration(&error) => {
            tracing::error!("configuration {}: {error:#}", arguments.config.display());
            ExitCode::from(config::EXIT_CONFIG)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
