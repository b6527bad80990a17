//! The image server that users have: nginx, here on loopback and at the near end of a line of 1 Gb/s. It is taken out of
//! Debian's package without installing it, as an installed one would start to serve at once.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::build;
use ferric_tests::artifacts::cache_folder;
use ferric_tests::netns::{self, FarEnd};
use ferric_tests::process::{Background, call};
use ferric_tests::wait;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PORT: u16 = 8080;
/// Ethernet with jumbo frames. A frame takes 38 bytes on the wire besides its packet (preamble, header, check sum, gap),
/// IP and TCP with time stamps take 52 bytes of the packet: 1 Gb/s carry 118.0 MiB/s of a file.
const MTU: u32 = 9000;
const WIRE: f64 = 38.0;
const HEADERS: f64 = 52.0;
const GIGABIT: f64 = 1e9;
/// What the kernel's shaper counts of a frame besides its packet: the Ethernet header.
const COUNTED: f64 = 14.0;

/// Bytes of a file that 1 Gb/s carry in a second.
pub fn gigabit_payload() -> f64 {
    let mtu = f64::from(MTU);
    GIGABIT / 8.0 * (mtu - HEADERS) / (mtu + WIRE)
}

/// A running nginx.
#[derive(Debug)]
pub struct Server {
    process: Background,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Serves the files of `images` in this thread's network by the nginx that [`program`] gave.
    pub fn start(program: &Path, images: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ferric-bench-nginx-").tempdir()?;
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, configured(images, folder.path()))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration);
        let mut process = Background::spawn("nginx", &mut command, &folder.path().join("log"))?;
        let answers = || {
            process.expect_running()?;
            Ok(TcpStream::connect(("127.0.0.1", PORT)).ok())
        };
        wait::until("nginx to answer", Duration::from_secs(10), answers, String::new)?;
        Ok(Self { process, _folder: folder })
    }

    /// Where a client of this network finds a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{PORT}/images/{name}")
    }

    /// The same from a server that knows no ranges.
    pub fn url_without_ranges(&self, name: &str) -> String {
        format!("http://127.0.0.1:{PORT}/whole/{name}")
    }

    /// The same for a client at the far end of the line.
    pub fn url_from_afar(&self, name: &str) -> String {
        format!("http://{}:{PORT}/images/{name}", netns::NEAR)
    }

    /// Seconds of processor so far.
    pub fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let ticks = ticks(&stat).context("reading nginx's processor time")?;
        // USER_HZ, which is 100 on every Linux of this processor.
        Ok(ticks as f64 / 100.0)
    }
}

/// User and system time of `/proc/PID/stat`, in ticks. The name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut numbers = rest.split(' ').skip(11).map(str::parse::<u64>);
    Some(numbers.next()?.ok()? + numbers.next()?.ok()?)
}

/// nginx, fetched if it is not there yet.
pub fn program() -> Result<PathBuf> {
    let packages = build::unpack(&cache_folder()?, &["nginx"])?;
    let program = packages.first().context("no nginx")?.join("usr/sbin/nginx");
    ensure!(program.exists(), "{} is not in Debian's package", program.display());
    Ok(program)
}

/// The version, for the table.
pub fn version(program: &Path) -> Result<String> {
    let out = Command::new(program).arg("-v").output().context("running nginx")?;
    Ok(String::from_utf8_lossy(&out.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}

fn configured(images: &Path, folder: &Path) -> String {
    let (images, folder) = (images.display(), folder.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{temporary}\
        \x20   access_log off;\n    sendfile on;\n    tcp_nopush on;\n    server {{\n        listen {PORT};\n\
        \x20       location /images/ {{ alias {images}/; }}\n\
        \x20       location /whole/ {{ alias {images}/; max_ranges 0; }}\n    }}\n}}\n"
    )
}

/// Bytes that went from server to client in this thread's network so far, headers too (on loopback also what went the
/// other way, which is little).
pub fn carried() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").context("reading the network's counters")?;
    towards_clients(&text).context("the network's counters say nothing of lo")
}

/// What loopback received and what the near end of the line sent.
fn towards_clients(devices: &str) -> Option<u64> {
    let counter = |device: &str, nth: usize| {
        let line = devices.lines().find_map(|line| line.trim().strip_prefix(device))?;
        line.split_whitespace().nth(nth)?.parse::<u64>().ok()
    };
    Some(counter("lo:", 0)? + counter("near0:", 8).unwrap_or(0))
}

/// A client's place at the end of a line of 1 Gb/s.
pub struct Afar {
    pub end: FarEnd,
}

impl Afar {
    pub fn new(network: &ferric_tests::Netns) -> Result<Self> {
        let mtu = f64::from(MTU);
        let rate = GIGABIT * (mtu + COUNTED) / (mtu + WIRE);
        Ok(Self { end: network.far_end(MTU, rate as u64)? })
    }

    /// Whether the line carries what 1 Gb/s should; in words, the rate.
    ///
    /// # Errors
    /// It carries more, or much less.
    pub fn prove(&self, url: &str, bytes: u64) -> Result<String> {
        let [enter, network] = self.end.door();
        let start = Instant::now();
        call(&enter, &[&network, "curl", "-sSf", "-o", "/dev/null", url])?;
        let rate = bytes as f64 / start.elapsed().as_secs_f64();
        let share = rate / gigabit_payload();
        ensure!((0.9..1.01).contains(&share), "the line carries {:.3} of what 1 Gb/s should", share);
        Ok(format!(
            "curl receives {:.1} MiB/s over it, 1 Gb/s is {:.1}",
            rate / 1_048_576.0,
            gigabit_payload() / 1_048_576.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabit_carries_118_mib_a_second() {
        assert!((gigabit_payload() / 1_048_576.0 - 118.0).abs() < 0.1);
    }

    #[test]
    fn what_went_to_clients_is_counted_on_both_lines() {
        let loopback = "Inter-|   Receive\n face |bytes    packets\n    lo: 1234 7 0 0 0 0 0 0 1234 7 0\n";
        assert_eq!(towards_clients(loopback), Some(1234));
        let both = format!("{loopback} near0: 5 1 0 0 0 0 0 0 1000 7 0\n");
        assert_eq!(towards_clients(&both), Some(2234));
        assert_eq!(towards_clients("eth0: 5\n"), None);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn the_configuration_names_its_own_folder_only() {
        let text = configured(Path::new("/i"), Path::new("/f"));
        assert!(text.contains("location /whole/ { alias /i/; max_ranges 0; }"), "{text}");
        assert_eq!(text.matches("/f/").count(), 6, "{text}");
    }
}
