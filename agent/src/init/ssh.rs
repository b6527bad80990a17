//! The developer's way in: off unless the kernel command line names public keys, `ferric-ssh-key=ssh-ed25519:AAAA…,…` (a colon
//! where the key file has a blank, since parameters end at blanks). Keys only, host key new at each boot.
//!
//! Expects in the ramdisk `/usr/sbin/dropbear` and `/bin/sh`; the account files it writes itself where they are missing.

use super::supervise::Service;
use crate::platform::linux::process::folder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const PARAMETER: &str = "ferric-ssh-key=";
const KEY_TYPES: &[&str] =
    &["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
/// Keys taken; more is a mistake.
const KEYS: usize = 16;

/// Homes of `root` and `dev`, who are one user: tools on the ramdisk need root.
const HOMES: &[&str] = &["root", "home/dev"];

/// In the foreground, messages to the console, host keys made on first use, no passwords (`-s`), no forwarding (`-j -k`).
pub const SERVICE: Service = Service {
    name: "developer ssh",
    program: "/usr/sbin/dropbear",
    arguments: &["-F", "-E", "-R", "-s", "-j", "-k", "-p", "22"],
};

/// In the place of [`SERVICE`] once the machine is a tenant's to rescue: takes passwords, and its host keys are those of before.
pub const RESCUE: Service =
    Service { name: "rescue ssh", program: "/usr/sbin/dropbear", arguments: &["-F", "-E", "-R", "-p", "22"] };

/// What is wrong with one key. The key itself is public and may be shown, but is long: its place says enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("ferric-ssh-key: key {number} is not of the form type:base64")]
    Form { number: usize },
    #[error(
        "ferric-ssh-key: key {number} is of a type that is not known; use ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa"
    )]
    Type { number: usize },
    #[error("ferric-ssh-key: key {number} is cut or damaged: its base64 does not hold a key of type {kind}")]
    Content { number: usize, kind: &'static str },
    #[error("ferric-ssh-key: only the first {KEYS} keys are taken")]
    TooMany,
}

/// The keys on a kernel command line as lines of `authorized_keys`, and what was wrong with the others.
pub fn keys(command_line: &str) -> (Vec<String>, Vec<KeyError>) {
    let given = command_line.split_whitespace().filter_map(|word| word.strip_prefix(PARAMETER));
    let each = given.flat_map(|value| value.split(',')).filter(|key| !key.is_empty());
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (at, key) in each.enumerate() {
        if at >= KEYS {
            bad.push(KeyError::TooMany);
            break;
        }
        match check(key, at + 1) {
            Ok(line) => good.push(line),
            Err(error) => bad.push(error),
        }
    }
    (good, bad)
}

/// A key's bytes begin with its type again (RFC 4253, 6.6), which catches nearly all damage in transit.
fn check(key: &str, number: usize) -> Result<String, KeyError> {
    let (kind, body) = key.split_once(':').ok_or(KeyError::Form { number })?;
    let kind = KEY_TYPES.iter().find(|known| **known == kind).ok_or(KeyError::Type { number })?;
    let damaged = KeyError::Content { number, kind };
    let Ok(bytes) = STANDARD.decode(body) else { return Err(damaged) };
    let mut rest = bytes.as_slice();
    let mut fields = 0;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((field, after)) = after.split_at_checked(length) else { return Err(damaged) };
        if fields == 0 && field != kind.as_bytes() {
            return Err(damaged);
        }
        (fields, rest) = (fields + 1, after);
    }
    if fields < 2 || !rest.is_empty() { Err(damaged) } else { Ok(format!("{kind} {body}")) }
}

/// Writes what dropbear reads below `root` (`/`): the keys, the account files where missing, a folder for host keys.
///
/// # Errors
/// As write(2).
pub fn prepare(root: &Path, keys: &[String]) -> io::Result<()> {
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    for home in HOMES {
        // Dropbear refuses keys whose folders others could write to.
        folder(&root.join(home), 0o700)?;
        folder(&root.join(home).join(".ssh"), 0o700)?;
        let file = root.join(home).join(".ssh/authorized_keys");
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        opened.write_all(lines.as_bytes())?;
    }
    folder(&root.join("etc"), 0o755)?;
    folder(&root.join("etc/dropbear"), 0o700)?;
    for (file, text) in [
        // `*` is no password's hash: no password fits.
        ("etc/passwd", "root:*:0:0:root:/root:/bin/sh\ndev:*:0:0:developer:/home/dev:/bin/sh\n"),
        ("etc/group", "root:x:0:\ntty:x:5:\n"),
        ("etc/shells", "/bin/sh\n"),
    ] {
        let path = root.join(file);
        if !path.exists() {
            fs::write(path, text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn body(kind: &str, fields: &[usize]) -> String {
        let mut bytes = (kind.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(kind.as_bytes());
        for length in fields {
            bytes.extend_from_slice(&(*length as u32).to_be_bytes());
            bytes.resize(bytes.len() + length, 7);
        }
        STANDARD.encode(bytes)
    }

    #[test]
    fn keys_are_taken_whole_or_refused_by_number() {
        let good = body("ssh-ed25519", &[32]);
        let rsa = body("ssh-rsa", &[3, 257]);
        let line = format!(
            "quiet ferric-ssh-key=ssh-ed25519:{good},ssh-rsa:{rsa} ferric-ssh-key=ssh-dss:{good},,ssh-rsa:{good},\
             ssh-ed25519,ssh-ed25519:{} ssh-key=x",
            &good[..good.len() - 8]
        );
        let (taken, refused) = keys(&line);
        assert_eq!(taken, [format!("ssh-ed25519 {good}"), format!("ssh-rsa {rsa}")]);
        assert_eq!(
            refused,
            [
                KeyError::Type { number: 3 },
                KeyError::Content { number: 4, kind: "ssh-rsa" },
                KeyError::Form { number: 5 },
                KeyError::Content { number: 6, kind: "ssh-ed25519" },
            ]
        );
        assert_eq!(keys("quiet"), (vec![], vec![]));
        let many = format!("ferric-ssh-key={}", vec![format!("ssh-ed25519:{good}"); KEYS + 5].join(","));
        assert_eq!((keys(&many).0.len(), keys(&many).1), (KEYS, vec![KeyError::TooMany]));
    }

    #[test]
    fn accounts_that_exist_are_kept_and_keys_are_private() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "mine").unwrap();
        prepare(root.path(), &["ssh-ed25519 AAAA".into()]).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("etc/passwd")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(root.path().join("etc/shells")).unwrap(), "/bin/sh\n");
        for home in HOMES {
            let file = root.path().join(home).join(".ssh/authorized_keys");
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(fs::read_to_string(&file).unwrap(), "ssh-ed25519 AAAA\n");
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        }
    }
}
