//! What becomes of the machine after the agent: word from the agent to process 1 (and to the network's child) by a file on tmpfs,
//! so that neither a crash nor a restart in between loses it. And the rescue user's account.

use super::STATE_DIR;
use super::process::folder;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The user of a rescue. Has root's number: repairing a system needs root's rights, and the ramdisk has no sudo.
const USER: &str = "rescue";
const RESCUED: &str = "rescued";
const LOCKED: &str = "locked-down";

/// What process 1 does once the agent has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The tenant logs in by password; addresses are asked for anew.
    Rescue,
    /// No network, for ever.
    Lockdown,
}

impl Handover {
    fn file(self) -> &'static str {
        match self {
            Handover::Rescue => RESCUED,
            Handover::Lockdown => LOCKED,
        }
    }

    /// What the agent of this boot ordered, if it did. A lockdown comes before a rescue.
    pub fn ordered() -> Option<Handover> {
        Handover::ordered_in(Path::new(STATE_DIR))
    }

    fn ordered_in(folder: &Path) -> Option<Handover> {
        [Handover::Lockdown, Handover::Rescue].into_iter().find(|it| folder.join(it.file()).exists())
    }

    /// # Errors
    /// As open(2).
    pub fn order(self) -> io::Result<()> {
        self.order_in(Path::new(STATE_DIR))
    }

    fn order_in(self, folder: &Path) -> io::Result<()> {
        private(&folder.join(self.file()), "")
    }
}

/// Writes the account of the user `rescue` below `root` (`/`): whatever else the account files hold stays.
///
/// # Errors
/// As open(2), write(2) and rename(2). Then the old account files are still whole.
pub fn add_user(root: &Path, hash: &str) -> io::Result<()> {
    folder(&root.join("etc"), 0o755)?;
    folder(&root.join("root"), 0o700)?;
    // Dropbear makes its host keys here when the first client comes.
    folder(&root.join("etc/dropbear"), 0o700)?;
    let shells = root.join("etc/shells");
    if !shells.exists() {
        fs::write(shells, "/bin/sh\n")?;
    }
    // The password first: an account without one must never be seen.
    line(&root.join("etc/shadow"), &format!("{USER}:{hash}:19000:0:99999:7:::"), 0o600)?;
    line(&root.join("etc/passwd"), &format!("{USER}:x:0:0:rescue:/root:/bin/sh"), 0o644)
}

/// Puts the user's line at the end of a file, in place of an earlier one of the same user.
fn line(path: &Path, line: &str, mode: u32) -> io::Result<()> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let own = format!("{USER}:");
    let mut text: String =
        before.lines().filter(|line| !line.starts_with(&own)).map(|line| format!("{line}\n")).collect();
    text.push_str(line);
    text.push('\n');
    let aside: PathBuf = path.with_extension("new");
    private(&aside, &text)?;
    fs::set_permissions(&aside, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    fs::rename(&aside, path)
}

fn private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_rescue_user_joins_the_accounts_that_are_there_and_has_one_password() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("etc").join(name);
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(at("passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(at("shadow"), "root:*:19000:0:99999:7:::\n").unwrap();
        add_user(root.path(), "$6$a$old").unwrap();
        add_user(root.path(), "$6$a$new").unwrap();
        assert_eq!(
            fs::read_to_string(at("passwd")).unwrap(),
            "root:x:0:0:root:/root:/bin/sh\nrescue:x:0:0:rescue:/root:/bin/sh\n"
        );
        assert_eq!(
            fs::read_to_string(at("shadow")).unwrap(),
            "root:*:19000:0:99999:7:::\nrescue:$6$a$new:19000:0:99999:7:::\n"
        );
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("shadow"), mode("passwd"), mode("dropbear")), (0o600, 0o644, 0o700));
        assert_eq!(fs::read_to_string(at("shells")).unwrap(), "/bin/sh\n");
    }

    #[test]
    fn an_order_is_found_by_others_and_a_lockdown_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Handover::ordered_in(folder.path()), None);
        Handover::Rescue.order_in(folder.path()).unwrap();
        assert_eq!(Handover::ordered_in(folder.path()), Some(Handover::Rescue));
        Handover::Lockdown.order_in(folder.path()).unwrap();
        assert_eq!(Handover::ordered_in(folder.path()), Some(Handover::Lockdown));
    }
}
