//! A mounted file system that is changed through its root alone: whatever links an image holds, none leads out of it.
//!
//! Each path is resolved by openat2(2) with `RESOLVE_IN_ROOT`, so `/etc` of an image's link is the image's `/etc` and `..` ends at
//! its root.

use crate::platform::files::{Access, Files};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, syncfs, unlinkat};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Tries of a path that the kernel could not resolve because something was renamed or mounted meanwhile.
const TRIES: usize = 32;

/// The root of a mounted file system.
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// # Errors
    /// As open(2).
    pub fn open(root: &Path) -> io::Result<Tree> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Tree { root: nix::fcntl::open(root, flags, Mode::empty())? })
    }

    /// # Errors
    /// As syncfs(2): what was written did not reach the disk.
    pub fn flush(&self) -> io::Result<()> {
        let root = self.at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(syncfs(&root)?)
    }

    /// Makes a folder and those above it.
    fn make(&self, path: &str, mode: Option<u32>) -> io::Result<OwnedFd> {
        let as_folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        match self.at(path, as_folder) {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let (above, name) = match path.rsplit_once('/') {
            Some((above, name)) => (self.make(above, None)?, name),
            None => (self.at(".", as_folder)?, path),
        };
        let made = mkdirat(&above, name, Mode::from_bits_truncate(0o755));
        if made == Err(Errno::EEXIST) {
            return Err(io::Error::other(format!("the link {path} leads to nothing inside the file system")));
        }
        made?;
        let folder = File::from(self.at(path, as_folder)?);
        folder.set_permissions(Permissions::from_mode(mode.unwrap_or(0o755)))?;
        folder.sync_all()?;
        Ok(folder.into())
    }

    fn at(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let mode = if flags.contains(OFlag::O_CREAT) { 0o644 } else { 0 };
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::from_bits_truncate(mode)).resolve(
                ResolveFlag::RESOLVE_IN_ROOT
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        let mut last = Errno::EAGAIN;
        for _ in 0..TRIES {
            match openat2(&self.root, path, how) {
                Err(error @ (Errno::EAGAIN | Errno::EINTR)) => last = error,
                other => return other,
            }
        }
        Err(last)
    }
}

impl Files for Tree {
    fn is_folder(&self, path: &str) -> bool {
        self.at(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    fn put(&self, path: &str, bytes: &[u8], access: &Access) -> io::Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.make(folder, access.folder_mode)?;
        }
        // A pipe in the file's place must not hold the agent up.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let mut file = File::from(self.at(path, flags)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("something that is no regular file stands in its place"));
        }
        file.set_len(0)?;
        file.write_all(bytes)?;
        if access.owner.is_some() || access.group.is_some() {
            std::os::unix::fs::fchown(&file, access.owner, access.group)?;
        }
        // After the owner: a change of owner takes set-user-ID bits away.
        if let Some(mode) = access.mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let gone = match path.rsplit_once('/') {
            None => unlinkat(&self.root, path, UnlinkatFlags::NoRemoveDir),
            Some((folder, name)) => self
                .at(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)
                .and_then(|folder| unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir)),
        };
        match gone {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Tree) {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let tree = Tree::open(&outer.path().join("root")).unwrap();
        (outer, tree)
    }

    #[test]
    fn folders_are_made_and_modes_are_exact() {
        let (outer, tree) = tree();
        let access = Access { mode: Some(0o4750), folder_mode: Some(0o700), ..Access::default() };
        tree.put("etc/a/b/file", b"one and more", &access).unwrap();
        tree.put("etc/a/b/file", b"two", &Access { folder_mode: Some(0o711), ..Access::default() }).unwrap();
        let mode =
            |path: &str| fs::metadata(outer.path().join("root").join(path)).unwrap().permissions().mode();
        assert_eq!(fs::read(outer.path().join("root/etc/a/b/file")).unwrap(), b"two");
        assert_eq!(mode("etc/a/b/file") & 0o7777, 0o4750);
        assert_eq!(
            (mode("etc/a/b") & 0o7777, mode("etc/a") & 0o7777),
            (0o700, 0o755),
            "an old folder keeps its mode"
        );
        tree.flush().unwrap();
    }

    #[test]
    fn no_link_leads_out_of_the_tree() {
        let (outer, tree) = tree();
        let root = outer.path().join("root");
        fs::create_dir(outer.path().join("outside")).unwrap();
        symlink(outer.path().join("outside"), root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("/real", root.join("inner")).unwrap();
        symlink("/../../outside/new", root.join("file")).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        for path in ["absolute/x", "relative/x", "magic/x", "file"] {
            tree.put(path, b"x", &Access::default()).unwrap_err();
        }
        tree.put("../../outside/x", b"x", &Access::default()).unwrap();
        assert!(root.join("outside/x").exists(), "the way up ends at the root");
        tree.put("inner/x", b"inside", &Access::default()).unwrap();
        assert_eq!(fs::read(root.join("real/x")).unwrap(), b"inside");
        assert_eq!(fs::read_dir(outer.path().join("outside")).unwrap().count(), 0);
        assert!(tree.is_folder("inner") && !tree.is_folder("absolute") && !tree.is_folder("real/x"));
    }

    #[test]
    fn a_pipe_is_no_file_and_removing_takes_the_link_not_its_target() {
        let (outer, tree) = tree();
        let root = outer.path().join("root");
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        tree.put("pipe", b"x", &Access::default()).unwrap_err();
        tree.put("real", b"x", &Access::default()).unwrap();
        symlink("real", root.join("link")).unwrap();
        tree.remove("link").unwrap();
        tree.remove("link").unwrap();
        tree.remove("no/such/folder").unwrap();
        assert!(root.join("real").exists() && !root.join("link").exists());
        fs::create_dir(root.join("folder")).unwrap();
        tree.remove("folder").unwrap_err();
    }
}
