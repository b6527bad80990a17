//! Software RAID arrays, made and assembled by mdadm, which knows what the kernel leaves to it.

use super::child::LinuxPrograms;
use crate::platform::child::{End, Heard, Programs};
use crate::platform::drive::ArrayOrder;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

const MDADM: &str = "/usr/sbin/mdadm";
/// mdadm writes superblocks and asks the kernel; what takes long, as a resync, goes on without it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of its words that are kept.
const WORDS: usize = 4 << 10;
/// No array, or none that could be assembled.
const NOTHING_DONE: [i32; 2] = [1, 2];

/// # Errors
/// mdadm cannot be started or does not end.
pub fn assemble() -> io::Result<()> {
    match mdadm(&["--assemble", "--scan", "--run"])? {
        (End::Code(0), _) => Ok(()),
        (End::Code(code), words) if NOTHING_DONE.contains(&code) => {
            tracing::debug!("mdadm --assemble --scan: {words}");
            Ok(())
        }
        (end, words) => Err(refusal(&end, &words)),
    }
}

/// # Errors
/// What mdadm said.
pub fn make(order: &ArrayOrder) -> io::Result<()> {
    let count = order.members.len().to_string();
    let mut words = vec!["--create", &order.device, "--force", "--run", "--metadata", order.metadata];
    words.extend(["--level", order.level, "--name", &order.name, "--raid-devices", &count]);
    words.extend(order.members.iter().map(String::as_str));
    match mdadm(&words)? {
        (End::Code(0), said) => {
            tracing::info!("mdadm: {said}");
            Ok(())
        }
        (end, said) => Err(refusal(&end, &said)),
    }
}

fn refusal(end: &End, said: &str) -> io::Error {
    let end = match end {
        End::Code(code) => format!("mdadm ended with {code}"),
        End::Signal(name) => format!("mdadm was ended by {name}"),
        End::Stopped => format!("mdadm did not end within {} s and was killed", PATIENCE.as_secs()),
    };
    io::Error::other(format!("{end}: {said}"))
}

/// Its end, and what it said on both pipes, in one line.
fn mdadm(words: &[&str]) -> io::Result<(End, String)> {
    let until = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    let end = LinuxPrograms.run(Path::new(MDADM), words, &[], &mut |heard| {
        if let Heard::Output(bytes) | Heard::Errors(bytes) = heard {
            let room = WORDS.saturating_sub(said.len());
            said.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        }
        if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let said = String::from_utf8_lossy(&said);
    Ok((end, said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_what_mdadm_said() {
        let words = refusal(&End::Code(1), "mdadm: /dev/sda1 is too small: 0K").to_string();
        assert_eq!(words, "mdadm ended with 1: mdadm: /dev/sda1 is too small: 0K");
    }
}
