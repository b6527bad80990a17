//! Entry point: which of the agent's duties this process takes, and its exit code. No more.

use clap::{Parser, Subcommand};
use ferric_agent::platform::linux::itself;
use ferric_agent::{init, logging};
use std::ffi::{CStr, OsStr};
use std::path::Path;
use std::process::ExitCode;

// musl's own allocator is several times slower with many threads, and copying images is many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "ferric-agent",
    version,
    about = "Provisions the machine it runs on. As /init of a ramdisk it is process 1."
)]
struct Cli {
    #[command(subcommand)]
    duty: Duty,
}

#[derive(Subcommand)]
enum Duty {
    /// Find this machine's node and serve the command API
    Run(ferric_agent::run::RunOptions),
    /// Write an image onto a disk and prove it, without a controller
    Write(ferric_agent::image::standalone::WriteArgs),
    /// Print the hardware inventory as JSON
    Inventory,
    /// Switch all NICs on and keep their leases (the ramdisk only)
    Network,
    /// Load drivers for the devices that are there and that appear (the ramdisk only)
    Devices,
}

impl Duty {
    /// What the process is called that does it.
    fn process(&self) -> &'static CStr {
        match self {
            Duty::Network => c"ferric-network",
            Duty::Devices => c"ferric-devices",
            Duty::Run(_) | Duty::Write(_) | Duty::Inventory => c"ferric-agent",
        }
    }
}

fn main() -> ExitCode {
    itself::use_small_pages();
    let arguments: Vec<_> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name);
    // By name too: in a container this program may be process 1 and yet not own the machine.
    if std::process::id() == 1 && called == Some(OsStr::new("init")) {
        init::run();
    }
    // The kernel calls its module helper thus: /init -q -- NAME.
    if let [_, quiet, dashes, wanted] = arguments.as_slice()
        && quiet == "-q"
        && dashes == "--"
    {
        return init::devices::request(&wanted.to_string_lossy());
    }
    let duty = Cli::parse().duty;
    itself::be_called(duty.process());
    match duty {
        Duty::Run(options) => ferric_agent::run::run(options),
        Duty::Write(args) => {
            logging::start(tracing::Level::WARN);
            ferric_agent::image::standalone::run(args)
        }
        Duty::Inventory => ferric_agent::inventory::print(),
        Duty::Network => ferric_agent::network::run(),
        Duty::Devices => init::devices::run(),
    }
}
