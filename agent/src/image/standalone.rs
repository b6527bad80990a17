//! `ferric-agent write`: the same pipeline for people without a controller.

mod apart;

use super::{CancelFlag, ImageFormat, ImageRequest, ProgressCell, Verify, WriteRequest, write_image};
use crate::fetch::Proxies;
use crate::platform::block::BlockDevice;
use crate::platform::linux::block;
use crate::platform::linux::interrupt::Interrupts;
use ferric_common::ids::{Digest, DigestAlgorithm};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// Writes an image onto a disk and proves it.
///
/// Exit status 0 means: the disk is complete, its digest was right, and it was read back. Ctrl-C or SIGTERM stops in order: both ends
/// of the disk are blanked; a second one ends at once.
#[derive(clap::Args, Debug)]
pub struct WriteArgs {
    /// http(s) URL or path of the image. May be given several times: places of the same bytes, tried in turn; servers also take over
    /// from one another in mid-transfer
    #[arg(long, required = true)]
    pub image: Vec<String>,
    /// What the image is: qcow2, raw, or raw in a compressed stream (raw.gz, raw.xz, raw.zst, raw.bz2; raw and a name that
    /// ends so mean the same)
    #[arg(long)]
    pub format: ImageFormat,
    /// SHA-256 of the image file, 64 hexadecimal digits
    #[arg(long, conflicts_with = "sha512", required_unless_present = "sha512")]
    pub sha256: Option<String>,
    /// SHA-512 of the image file, 128 hexadecimal digits
    #[arg(long)]
    pub sha512: Option<String>,
    /// Block device, or regular file whose size is the disk's; everything on it is lost
    #[arg(long)]
    pub disk: PathBuf,
    /// Config drive (ISO 9660 or FAT image) to place at the end of the disk
    #[arg(long)]
    pub config_drive: Option<PathBuf>,
    /// PEM file of certificate authorities to trust besides the public ones
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// How much to read back: sample (both ends and parts of what was written), or all
    #[arg(long, default_value = "sample")]
    pub verify: Verify,
    /// Accept an image without a partition table
    #[arg(long)]
    pub no_table: bool,
}

/// Clears the line that a terminal's cursor is in.
const REDRAW: &str = "\r\x1b[K";

/// Runs the command.
pub fn run(args: WriteArgs) -> ExitCode {
    match write(&args) {
        // The status is the disk's, whether or not somebody reads what is said of it.
        Ok(report) => {
            let _ = writeln!(io::stdout(), "{} is complete and proven: {report}", args.disk.display());
            ExitCode::SUCCESS
        }
        Err(words) => {
            say(&words);
            ExitCode::FAILURE
        }
    }
}

fn say(words: &str) {
    let over_progress = if io::stderr().is_terminal() { REDRAW } else { "" };
    let _ = writeln!(io::stderr(), "{over_progress}ferric-agent write: {words}");
}

fn write(args: &WriteArgs) -> Result<super::WriteReport, String> {
    let request = request(args)?;
    let tls = trust(args)?;
    let paths = args.image.iter().filter_map(|image| path(image)).map(Path::new);
    apart::check(Path::new("/sys"), paths.chain(args.config_drive.as_deref()), &args.disk)?;
    let disk =
        block::open(&args.disk).map_err(|e| format!("opening {}: {e}{}", args.disk.display(), busy(&e)))?;
    let disk: Arc<dyn BlockDevice> = Arc::new(disk);
    let (progress, cancel) = (ProgressCell::default(), CancelFlag::default());
    let fault = |e: io::Error| format!("preparing for signals: {e}");
    // Before the first thread starts, so that all hold them back.
    let interrupts = Interrupts::hold().map_err(fault)?;
    let (until, end) = io::pipe().map_err(fault)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| show(&progress, &done, io::stderr().is_terminal(), &mut io::stderr()));
        scope.spawn(|| obey(&interrupts, &until, &cancel));
        // Also when the write panics: the scope waits for both.
        let _over = Over { done: &done, shown: shown.thread().clone(), _end: end };
        write_image(&request, &disk, tls, &progress, &cancel).map_err(|e| e.for_operator())
    })
}

/// Ends what goes on beside the write.
struct Over<'a> {
    done: &'a AtomicBool,
    shown: Thread,
    /// Whose other end [`obey`] waits for.
    _end: io::PipeWriter,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        self.shown.unpark();
    }
}

/// The first signal ends the write in order, a second one ends the process.
fn obey(interrupts: &Interrupts, until: &io::PipeReader, cancel: &CancelFlag) {
    while let Some(signal) = interrupts.wait(until) {
        if cancel.is_set() {
            interrupts.die(signal);
        }
        cancel.cancel();
        say(&format!(
            "{signal}: stopping, unless the write is at its end; a second signal ends at once, and leaves the disk as it is then"
        ));
    }
}

/// The path that is meant, if it is no URL of a server.
fn path(image: &str) -> Option<&str> {
    image.strip_prefix("file://").or_else(|| (!image.contains("://")).then_some(image))
}

fn busy(error: &std::io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EBUSY) {
        " (it is mounted or part of an array or volume group)"
    } else {
        ""
    }
}

fn request(args: &WriteArgs) -> Result<WriteRequest, String> {
    let digest = match (&args.sha256, &args.sha512) {
        (Some(hex), _) => Digest::from_hex(DigestAlgorithm::Sha256, hex),
        (None, Some(hex)) => Digest::from_hex(DigestAlgorithm::Sha512, hex),
        (None, None) => {
            return Err("give --sha256 or --sha512: an image without a digest proves nothing".into());
        }
    };
    let config_drive = match &args.config_drive {
        Some(path) => Some(std::fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))?),
        None => None,
    };
    let urls = args.image.iter().map(|i| path(i).map_or_else(|| i.clone(), |path| format!("file://{path}")));
    let image = ImageRequest {
        id: args.image.first().cloned().unwrap_or_default(),
        urls: urls.collect(),
        format: Some(args.format),
        permitted: Vec::new(),
        digest: digest.map_err(|e| e.to_string())?,
        authorization: None,
        proxies: Proxies::default(),
        require_partition_table: !args.no_table,
    };
    Ok(WriteRequest { image, config_drive, rebuild_drive: false, verify: args.verify })
}

fn trust(args: &WriteArgs) -> Result<Arc<rustls::ClientConfig>, String> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &args.ca_file {
        let pem = std::fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added =
                certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
            added.map_err(|e| format!("{} holds an unusable certificate: {e}", path.display()))?;
        }
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Shows progress on standard error: one line redrawn on a terminal, a line every five seconds elsewhere.
fn show(progress: &ProgressCell, done: &AtomicBool, terminal: bool, out: &mut dyn Write) {
    let mut ticks = 0u32;
    while !done.load(Ordering::SeqCst) {
        if terminal || ticks % 25 == 24 {
            // Nobody may be reading any more; the write goes on.
            let _ = out.write_all(frame(&line(&progress.latest()), terminal).as_bytes());
            let _ = out.flush();
        }
        ticks += 1;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    if terminal {
        let _ = out.write_all(REDRAW.as_bytes());
    }
}

/// A line as it is put on a terminal, over the one before, or into a file.
fn frame(line: &str, terminal: bool) -> String {
    if terminal { format!("{REDRAW}{line}") } else { format!("{line}\n") }
}

/// One line of progress.
pub fn line(progress: &ferric_common::events::Progress) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let of = match progress.bytes_total {
        Some(total) if total > 0 => {
            let percent = progress.bytes_done.saturating_mul(100) / total;
            let filled = (percent / 4).min(25) as usize;
            format!("[{}{}] {percent:3} % of {} MiB", "#".repeat(filled), ".".repeat(25 - filled), mib(total))
        }
        _ => format!("{} MiB", mib(progress.bytes_done)),
    };
    format!(
        "{:10} {of}, {} MiB/s, {} s {}",
        progress.stage,
        mib(progress.rate),
        progress.seconds,
        progress.note
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing, as a pipe that nobody reads; the second write ends the show.
    struct Closed<'a>(u32, &'a AtomicBool);

    impl Write for Closed<'_> {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            self.1.store(self.0 >= 2, Ordering::SeqCst);
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn progress_that_nobody_reads_stops_nothing() {
        let done = AtomicBool::new(false);
        let mut closed = Closed(0, &done);
        show(&ProgressCell::default(), &done, true, &mut closed);
        assert!(closed.0 >= 2);
    }

    #[test]
    fn only_a_terminal_gets_its_line_redrawn() {
        assert_eq!(frame("half", true), "\r\x1b[Khalf");
        assert_eq!(frame("half", false), "half\n");
    }

    #[test]
    fn a_progress_line_shows_stage_share_and_rate() {
        let progress = ferric_common::events::Progress {
            stage: "writing".into(),
            bytes_done: 50 << 20,
            bytes_total: Some(100 << 20),
            rate: 25 << 20,
            seconds: 2,
            ..Default::default()
        };
        assert_eq!(
            line(&progress),
            "writing    [############.............]  50 % of 100 MiB, 25 MiB/s, 2 s "
        );
    }
}
