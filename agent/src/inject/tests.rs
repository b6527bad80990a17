//! Files on folders that stand for partitions, and on a real file system.

mod named;

use super::*;
use crate::platform::fake::machine::FakeMachine;
use crate::platform::linux::process::with_changeable;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const DISK: &str = "/dev/nvme0n1";
const PARTS: [&str; 3] = ["/dev/nvme0n1p1", "/dev/nvme0n1p2", "/dev/nvme0n1p15"];

/// Partition 1 cannot be mounted, 2 is a boot partition, 15 holds the system.
fn machine(folder: &Path) -> FakeMachine {
    let mut machine = FakeMachine::new().with_partitions(DISK, &PARTS);
    for (part, inside) in [(PARTS[1], "loader"), (PARTS[2], "etc")] {
        let on = folder.join(part.trim_start_matches("/dev/"));
        fs::create_dir_all(on.join(inside)).unwrap();
        machine.folders.insert(part.to_owned(), on);
    }
    machine
}

fn inject(machine: &FakeMachine, files: Value) -> Result<(), String> {
    let orders = plan::orders(None, Some(&files)).unwrap();
    let mut fetch = |address: &str| match address {
        "http://h/file" => Ok(b"fetched".to_vec()),
        _ => Err("no such address".to_owned()),
    };
    run(machine, DISK, &orders, &mut fetch).map_err(|error| crate::commands::failure::chain(&error))
}

#[test]
fn a_file_goes_where_its_first_folder_is_and_else_to_its_partition() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    inject(
        &machine,
        json!([
            {"path": "/etc/app/conf", "content": "http://h/file"},
            {"path": "/top", "partition": 2, "content": "eA=="},
            {"path": "/gone", "partition": "/dev/nvme0n1p2", "content": "eA=="},
            {"path": "/gone", "partition": "2", "deleted": true},
        ]),
    )
    .unwrap();
    assert_eq!(fs::read(folder.path().join("nvme0n1p15/etc/app/conf")).unwrap(), b"fetched");
    assert_eq!(fs::read(folder.path().join("nvme0n1p2/top")).unwrap(), b"x");
    assert!(!folder.path().join("nvme0n1p2/gone").exists());
}

#[test]
fn what_is_not_found_is_named_with_what_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let said = inject(&machine, json!([{"path": "/srv/x", "content": ""}])).unwrap_err();
    assert!(
        said.starts_with("No partition found with path srv, scanned: /dev/nvme0n1p1 (")
            && said.ends_with("/dev/nvme0n1p15 (no such folder)"),
        "{said}"
    );
    let said = inject(&machine, json!([{"path": "/x", "partition": 5, "content": ""}])).unwrap_err();
    assert_eq!(said, format!("{DISK} has no partition 5, it has: {}", PARTS.join(", ")));
    let said = inject(&machine, json!([{"path": "/etc/x", "content": "http://h/none"}])).unwrap_err();
    assert_eq!(said, "Failed to process file /etc/x: no such address");
    assert!(!folder.path().join("nvme0n1p15/etc/x").exists());
    fs::write(folder.path().join("nvme0n1p15/etc/file"), "").unwrap();
    let said = inject(&machine, json!([{"path": "/etc/file/x", "content": ""}])).unwrap_err();
    assert!(said.starts_with("Failed to process file /etc/file/x on /dev/nvme0n1p15: "), "{said}");
}

/// An image behind a loop device, which goes with it.
struct Loop {
    folder: tempfile::TempDir,
    device: String,
}

impl Loop {
    fn new(prepare: &[&str]) -> Loop {
        assert!(nix::unistd::geteuid().is_root(), "making a loop device and mounting it (needs root)");
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        if let [program, args @ ..] = prepare {
            tool(program, &[args, &[image.to_str().unwrap()]].concat());
        }
        let device = tool("losetup", &["--find", "--show", image.to_str().unwrap()]).trim().to_owned();
        Loop { folder, device }
    }
    fn change(&self, change: &mut dyn FnMut(&dyn Files) -> io::Result<()>) -> io::Result<()> {
        with_changeable(Path::new(&self.device), &self.folder.path().join("mounted"), change)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &["--detach", &self.device]);
    }
}

fn tool(program: &str, args: &[&str]) -> String {
    let done = std::process::Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_real_file_system_takes_files_with_owner_and_mode_and_is_left_clean() {
    let disk = Loop::new(&["mkfs.ext4", "-q", "-F"]);
    let access = plan_access(json!({"mode": 0o640, "owner": 1234, "group": 5}));
    disk.change(&mut |tree| tree.put("etc/deep/file", b"content", &access)).unwrap();
    assert_eq!(tool("debugfs", &["-R", "cat /etc/deep/file", &disk.device]), "content");
    let stat = tool("debugfs", &["-R", "stat /etc/deep/file", &disk.device]);
    for what in ["Mode:  0640", "User:  1234", "Group:     5"] {
        assert!(stat.contains(what), "{what}: {stat}");
    }
    tool("e2fsck", &["-f", "-n", &disk.device]);
    let error = disk.change(&mut |_| Err(io::Error::other("no more"))).unwrap_err();
    assert_eq!(error.to_string(), "no more");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*disk.folder.path().to_string_lossy()), "{mounts}");
}

#[test]
fn a_partition_without_a_file_system_is_said_to_have_none() {
    let error = Loop::new(&[]).change(&mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().starts_with("it is none of ext4"), "{error}");
    assert!(error.to_string().contains("; drivers that this ramdisk lacks: "), "{error}");
}

fn plan_access(mut file: Value) -> crate::platform::files::Access {
    file["path"] = json!("/etc/x");
    file["content"] = json!("");
    match &plan::orders(None, Some(&json!([file]))).unwrap()[0].action {
        Action::Put(_, access) => *access,
        Action::Remove => unreachable!(),
    }
}
