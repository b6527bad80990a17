//! The kernel's log, read from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg) without waiting for more.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Records read at most: the kernel's ring holds about ten thousand.
const RECORDS: usize = 32_768;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Since the kernel started.
    pub seconds: f64,
    pub text: String,
}

/// All records that the kernel still has; empty when the log cannot be read.
pub fn read() -> Vec<Line> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut device) = opened else { return Vec::new() };
    let mut all = String::new();
    let mut record = [0u8; 8192];
    for _ in 0..RECORDS {
        match device.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                all.push_str(&String::from_utf8_lossy(record.get(..length).unwrap_or_default()));
            }
            // The ring overtook the reader: the next read goes on with the oldest record left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    parse(&all)
}

/// Reads records `priority,sequence,microseconds,flags;text`; continuation lines (` KEY=value`) are left out.
pub fn parse(records: &str) -> Vec<Line> {
    records.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let (head, text) = line.split_once(';')?;
    if line.starts_with(' ') {
        return None;
    }
    let micros: f64 = head.split(',').nth(2)?.parse().ok()?;
    Some(Line { seconds: micros / 1e6, text: without_secrets(text) })
}

/// The kernel logs its command line; a secret on it must not travel in a log archive.
fn without_secrets(text: &str) -> String {
    text.split(' ').map(masked).collect::<Vec<_>>().join(" ")
}

/// Words in the name of a kernel parameter whose value is nobody's business.
const SECRET: &[&str] = &["token", "password", "passwd", "secret"];

/// A word of a kernel command line for others' eyes: the value of a secret parameter, and an address with a user in it, are
/// not.
pub fn masked(word: &str) -> String {
    let Some((name, value)) = word.split_once('=') else { return word.to_owned() };
    let lower = name.to_ascii_lowercase();
    match SECRET.iter().any(|part| lower.contains(part)) || value.contains('@') {
        true => format!("{name}=******"),
        false => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_continuation_lines_and_junk() {
        let lines = parse("6,339,5140900,-;NET: up; really\n SUBSYSTEM=net;1\njunk\n4,x,y,-;no time\n");
        assert_eq!(lines, [Line { seconds: 5.1409, text: "NET: up; really".into() }]);
    }

    #[test]
    fn a_token_on_the_command_line_is_masked() {
        let lines =
            parse("5,1,0,-;Command line: quiet ipa-agent-token=s3cret ipa-api-url=http://u:pw@h/ BOOTIF=x\n");
        assert_eq!(
            lines.first().map(|l| l.text.as_str()),
            Some("Command line: quiet ipa-agent-token=****** ipa-api-url=****** BOOTIF=x")
        );
    }
}
