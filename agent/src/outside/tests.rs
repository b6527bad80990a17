//! Steps from outside as real programs: shell scripts that the test writes.

use super::protocol::Order;
use super::*;
use crate::platform::linux::child::LinuxPrograms;
use ferric_common::events::Progress;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Puts a step on a shelf folder. The program is written by a child: a descriptor of ours that is open for writing might be
/// inherited by what another test starts at that moment, and then the kernel refuses to run the file.
pub(crate) fn put(folder: &Path, name: &str, manifest: &Value, script: &str) {
    fs::write(folder.join(format!("{name}.json")), manifest.to_string()).unwrap();
    let program = folder.join(name);
    let mut cat =
        Command::new("tee").arg(&program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}").as_bytes()).unwrap();
    assert!(cat.wait().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[derive(Default)]
struct Watcher {
    cancelled: AtomicBool,
    reports: Mutex<Vec<Progress>>,
}

impl Stop for Watcher {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
    fn report(&self, progress: Progress) {
        // The note asks the watcher to cancel, so that no test needs to guess when the program is that far.
        if progress.note == "cancel me" {
            self.cancelled.store(true, Ordering::SeqCst);
        }
        self.reports.lock().unwrap().push(progress);
    }
}

/// Runs a script as a step; its result or its failure in words, and the progress that it told.
fn run_script(script: &str, timeout: u64, args: Value) -> (Result<Value, String>, Vec<Progress>) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({"name": "tune", "kinds": ["deploy"], "timeout": timeout,
                          "args": {"a": {"description": "any"}}});
    put(folder.path(), "tune", &manifest, script);
    let shelf = Shelf::read(folder.path(), &[]);
    let (manifest, program) = shelf.find("deploy", "tune").unwrap();
    let none = Map::new();
    let order = Order {
        kind: "deploy",
        step: "tune",
        interface: "deploy",
        args: args.as_object().unwrap_or(&none),
        node: &json!({"uuid": "n"}),
        ports: &json!([]),
        disks: json!([]),
        root_disk: None,
        partitions: &[],
    };
    let watcher = Watcher::default();
    let result = run(manifest, program, &order, &LinuxPrograms, &watcher).map_err(|error| {
        crate::commands::failure::chain(&error).replace(&format!("{}", program.display()), "PROGRAM")
    });
    (result, watcher.reports.into_inner().unwrap())
}

#[test]
fn a_step_reads_its_order_and_answers_with_progress_and_result() {
    let script = r#"
        echo "noise of a tool"
        echo '{"progress": "half way", "done": 5, "total": 10}'
        printf '{"result": '; cat; echo '}'"#;
    // More than a pipe holds, so that both directions have to be served at once.
    let large = "x".repeat(200_000);
    let (result, reports) = run_script(script, 60, json!({"a": large}));
    let result = result.unwrap();
    assert_eq!((&result["args"]["a"], &result["node"]["uuid"]), (&json!(large), &json!("n")));
    let told = reports.last().unwrap();
    assert_eq!((told.stage.as_str(), told.note.as_str()), ("tune", "half way"));
    assert_eq!((told.bytes_done, told.bytes_total), (5, Some(10)));
}

/// The example of the documentation, as it stands there, on a machine with these partitions.
fn run_example(packages: Value, partitions: &[String]) -> (Result<Value, String>, Vec<Progress>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/steps.d");
    let shelf = Shelf::read(&folder, &[]);
    assert_eq!(shelf.faults, Vec::<String>::new());
    let (manifest, program) = shelf.find("deploy", "install_packages").unwrap();
    let args = json!({"packages": packages});
    manifest.check_args(args.as_object().unwrap()).unwrap();
    let order = Order {
        kind: "deploy",
        step: "install_packages",
        interface: "deploy",
        args: args.as_object().unwrap(),
        node: &json!({"uuid": "n", "extra": {"packages": ["not-asked-for"]}}),
        ports: &json!([]),
        disks: json!([]),
        root_disk: Some("/dev/sda"),
        partitions,
    };
    let watcher = Watcher::default();
    let result = run(manifest, program, &order, &LinuxPrograms, &watcher)
        .map_err(|error| crate::commands::failure::chain(&error));
    (result, watcher.reports.into_inner().unwrap())
}

#[test]
fn the_example_refuses_what_is_no_package_and_a_disk_without_a_system() {
    let said = |packages: Value| run_example(packages, &[]).0.unwrap_err();
    let nothing =
        "the step install_packages failed: no partition of the root disk holds a system with apt-get";
    assert_eq!(said(json!(["tmux", "libstdc++6", "vim=2:9.0"])), nothing);
    assert!(said(json!([])).ends_with("the list of packages is empty"));
    assert!(said(json!(["tmux", "-oDebug=1"])).ends_with("does not begin like the name of a package"));
    assert!(said(json!(["a;reboot"])).ends_with("holds what no name of a package holds"));
    assert!(said(json!(["a\"],\"b"])).ends_with("holds what no name of a package holds"));
}

#[test]
fn a_step_that_says_nothing_has_no_result() {
    assert_eq!(run_script("exit 0", 60, json!({})).0, Ok(Value::Null));
}

#[test]
fn a_failure_has_its_words_and_the_last_of_its_errors() {
    let (result, _) = run_script("echo first >&2; echo 'E: no such package' >&2; exit 7", 60, json!({}));
    let words = "the step tune failed: PROGRAM ended with code 7; its last words: first | E: no such package";
    assert_eq!(result, Err(words.into()));
    let (result, _) = run_script(r#"echo '{"error": "the disk is full"}'; exit 1"#, 60, json!({}));
    assert_eq!(result, Err("the step tune failed: the disk is full".into()));
    let (result, _) = run_script("kill -TERM $$", 60, json!({}));
    assert_eq!(
        result,
        Err("the step tune failed: PROGRAM was killed by SIGTERM; its last words: none".into())
    );
}

#[test]
fn a_step_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let (result, _) = run_script(&script, 1, json!({}));
    let words = result.unwrap_err();
    assert!(words.contains("was stopped, as it took longer than the 1 s of its manifest"), "{words}");
    assert_gone(fs::read_to_string(&pid).unwrap().trim());
}

#[test]
fn children_that_outlive_a_step_are_killed_and_do_not_hold_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo '{{\"result\": 1}}'", pid.display());
    assert_eq!(run_script(&script, 60, json!({})).0, Ok(json!(1)));
    assert_gone(fs::read_to_string(&pid).unwrap().trim());
}

/// Waits until a process has ended: dead, or a zombie that nobody has looked at yet.
fn assert_gone(pid: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if status.is_empty() || status.contains(") Z ") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "process {pid} lives on: {status}");
        std::thread::yield_now();
    }
}

#[test]
fn a_step_is_stopped_when_the_command_is_cancelled() {
    let (result, _) = run_script(r#"echo '{"progress": "cancel me"}'; sleep 1000"#, 60, json!({}));
    let words = result.unwrap_err();
    assert!(words.contains("as the command was cancelled"), "{words}");
}

#[test]
fn a_step_that_never_stops_talking_is_stopped() {
    let (result, _) = run_script("yes", 60, json!({}));
    let words = result.unwrap_err();
    assert!(words.contains("as it wrote more than 1048576 bytes"), "{words}");
}

#[test]
fn a_step_sees_only_a_search_path_of_our_environment() {
    let script = r#"printf '{"result": "%s"}\n' "$(tr '\0' ' ' < /proc/$$/environ | sed 's/=[^ ]*//g')""#;
    let (result, _) = run_script(script, 60, json!({}));
    let mut names: Vec<String> =
        result.unwrap().as_str().unwrap().split_whitespace().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["LC_ALL", "MDADM_NO_UDEV", "PATH"]);
}

#[test]
fn what_a_step_mounts_is_its_own_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let script = format!(
        "mount -t tmpfs none {place} || exit 1
         touch {place}/inside
         echo '{{\"progress\": \"mounted\"}}'
         printf '{{\"result\": \"%s\"}}\\n' \"$(ls {place})\""
    );
    let (result, reports) = run_script(&script, 60, json!({}));
    // Nobody but root may mount; the step is then refused by the kernel, and still told in words.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(result, Ok(json!("inside")));
        assert_eq!(reports.last().unwrap().note, "mounted");
    } else {
        assert!(result.unwrap_err().contains("ended with code 1"));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&place.to_string()), "{mounts}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bad_steps_are_left_out_with_words_and_good_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    put(path, "a_good", &json!({"name": "good", "kinds": ["clean"]}), "");
    put(path, "b_taken", &json!({"name": "write_image", "kinds": ["deploy"]}), "");
    put(path, "c_twice", &json!({"name": "good", "kinds": ["deploy"]}), "");
    put(path, "d_mode", &json!({"name": "mode", "kinds": ["clean"]}), "");
    fs::set_permissions(path.join("d_mode"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path.join("e_alone.json"), r#"{"name": "alone", "kinds": ["clean"]}"#).unwrap();
    fs::write(path.join("f_large.json"), vec![b' '; 100_000]).unwrap();
    fs::write(path.join("README"), "not a manifest").unwrap();
    let shelf = Shelf::read(path, &["write_image".into()]);
    assert_eq!(shelf.of("clean").map(|step| step.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(shelf.of("deploy").count(), 0);
    let words = [
        "b_taken.json is left out: the agent has a step write_image of its own",
        "a_good has the name good, too",
        "d_mode is not a file that may be executed (chmod 755)",
        "e_alone: No such file or directory",
        "f_large.json is left out: it is larger than 65536 bytes",
    ];
    assert_eq!(shelf.faults.len(), words.len(), "{:?}", shelf.faults);
    for (fault, words) in shelf.faults.iter().zip(words) {
        assert!(fault.contains(words), "{fault}");
    }
    assert!(Shelf::read(&path.join("nothing"), &[]).faults.is_empty());
}
