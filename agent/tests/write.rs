//! `ferric-agent write` as people run it: pipes that nobody reads, signals, and what it refuses before the first write.

// Test code outside of #[test] functions: a failed unwrap there is a failed test too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;
/// What was on the disk before.
const OLD: u8 = 0xa5;

/// An image of 4 MiB and a disk of 8 in a folder of their own.
struct Lab {
    folder: tempfile::TempDir,
    image: Vec<u8>,
}

impl Lab {
    fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let image: Vec<u8> = (0..4 * MIB).map(|at| (at / 512) as u8 | 1).collect();
        std::fs::write(folder.path().join("image"), &image).unwrap();
        std::fs::write(folder.path().join("disk"), vec![OLD; 8 * MIB]).unwrap();
        Lab { folder, image }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn disk(&self) -> Vec<u8> {
        std::fs::read(self.path("disk")).unwrap()
    }
    fn command(&self, image: &str, disk: &Path) -> Command {
        let digest: String = Sha256::digest(&self.image).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferric-agent"));
        command.args(["write", "--no-table", "--format", "raw", "--sha256", &digest, "--image", image]);
        command.arg("--disk").arg(disk).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
    fn image_path(&self) -> String {
        self.path("image").display().to_string()
    }
}

fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A pipe whose other end is closed already.
fn closed() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn an_image_is_not_written_onto_itself() {
    let lab = Lab::new();
    std::fs::hard_link(lab.path("image"), lab.path("other")).unwrap();
    for disk in ["image", "other"] {
        let disk = lab.path(disk);
        let ended = lab.command(&lab.image_path(), &disk).output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let refused =
            format!("{} is the disk {} itself, and would be lost", lab.image_path(), disk.display());
        assert!(words(&ended).contains(&refused), "{}", words(&ended));
        assert!(std::fs::read(lab.path("image")).unwrap() == lab.image, "the only copy");
    }
}

#[test]
fn a_disk_of_an_odd_size_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let odd = lab.path("odd");
    std::fs::write(&odd, vec![OLD; 8 * MIB + 1]).unwrap();
    let ended = lab.command(&lab.image_path(), &odd).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(words(&ended).contains("8388608 or 8389120 would fit"), "{}", words(&ended));
    assert!(std::fs::read(&odd).unwrap().iter().all(|byte| *byte == OLD));
}

#[test]
fn the_status_is_the_disks_not_the_pipes() {
    let lab = Lab::new();
    let done = lab.command(&lab.image_path(), &lab.path("disk")).stdout(closed()).output().unwrap();
    assert_eq!((done.status.code(), words(&done).as_str()), (Some(0), ""));
    assert!(lab.disk().starts_with(&lab.image));
    let missing = lab.command("/nosuch", &lab.path("disk")).stderr(closed()).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

/// A write whose server has sent 2 MiB of its image and then nothing more.
fn stalled(lab: &Lab) -> (Child, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    let child = lab.command(&url, &lab.path("disk")).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = [0; 4096];
    assert!(stream.read(&mut asked).unwrap() > 0);
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", lab.image.len()).unwrap();
    stream.write_all(&lab.image[..2 * MIB]).unwrap();
    // The blanked start of the disk says that the write has begun.
    let blanked = || {
        let mut first = [0];
        std::fs::File::open(lab.path("disk"))?.read_exact(&mut first)?;
        Ok((first[0] != OLD).then_some(()))
    };
    ferric_tests::wait::until("the first write", Duration::from_secs(60), blanked, String::new).unwrap();
    (child, stream)
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn a_signal_stops_a_write_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = Lab::new();
        let (child, _stream) = stalled(&lab);
        send(&child, signal);
        let ended = child.wait_with_output().unwrap();
        let words = words(&ended);
        assert_eq!(ended.status.code(), Some(1), "{words}");
        let [stopping, last] = words.lines().collect::<Vec<_>>()[..] else { panic!("{words}") };
        assert!(
            stopping.contains(&format!(
                "{signal}: stopping, unless the write is at its end; a second signal ends at once"
            )),
            "{words}"
        );
        let disk = lab.path("disk").display().to_string();
        let end = format!("stopped by request; {disk} has been blanked at both ends and will not boot");
        assert_eq!(last, format!("ferric-agent write: {end}"));
        let left = lab.disk();
        assert!(left[..MIB].iter().chain(&left[7 * MIB..]).all(|byte| *byte == 0));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let lab = Lab::new();
    let (child, _stream) = stalled(&lab);
    // Both are there when it goes on.
    send(&child, Signal::SIGSTOP);
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGTERM);
    send(&child, Signal::SIGCONT);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(Signal::SIGTERM as i32), "{}", words(&ended));
    assert!(!words(&ended).contains("stopped by request"));
}
