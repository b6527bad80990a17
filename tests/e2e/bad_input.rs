//! Images that must not end up on a disk, and BMCs that do not play along: each ends in words an operator understands, and
//! the disk is untouched or blank at both ends.

use anyhow::{Context, Result, ensure};
use ferric_initramfs::Profile;
use ferric_tests::artifacts::Artifacts;
use ferric_tests::debian::Image;
use ferric_tests::httpd::Fault;
use ferric_tests::machine::Firmware;
use ferric_tests::scene::{Cleaning, NODE, Scene, Script, borrowed};
use ferric_tests::{diskcheck, images, netns, process};
use std::fs;
use std::path::Path;
use std::time::Duration;

const DEPLOY: Duration = Duration::from_secs(300);

/// One image that must be refused.
struct Case {
    name: &'static str,
    image: Image,
    format: &'static str,
    fault: Fault,
    /// Each of these stands in `last_error`.
    words: &'static [&'static str],
}

#[test]
fn bad_images_end_in_words_and_leave_no_half_disk() -> Result<()> {
    let artifacts = Artifacts::obtain(Profile::Vm)?;
    let mut script = Script::new("bad-images", Firmware::Bios);
    script.tables = String::new();
    let scene = Scene::open(&artifacts, script)?;
    scene.explain(refuse_all(&scene))
}

fn refuse_all(scene: &Scene) -> Result<()> {
    scene.enrol(Cleaning::None)?;
    let mut failures = Vec::new();
    for case in cases(&scene.folder)? {
        match refuse(scene, &case) {
            Ok(error) => println!("{}: {error}", case.name),
            Err(error) => failures.push(format!("{}: {error:#}", case.name)),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Deploys and expects a failure; the `last_error` of the node.
fn refuse(scene: &Scene, case: &Case) -> Result<String> {
    let operator = scene.operator();
    let arguments = scene.deploy(&case.image, case.format, case.fault, "never", None);
    // Refused at once, or later by the agent.
    let error = match operator.ferric(&borrowed(&arguments)) {
        Err(refused) => format!("{refused:#}"),
        Ok(_) => {
            let node = operator.wait_for_state(NODE, &["deploy failed", "active"], DEPLOY)?;
            ensure!(node["provision_state"] == "deploy failed", "it was deployed");
            node["last_error"].as_str().context("no last_error")?.to_owned()
        }
    };
    for word in case.words {
        ensure!(error.to_lowercase().contains(&word.to_lowercase()), "'{word}' is not in: {error}");
    }
    diskcheck::expect_blank_ends(&scene.root_disk())?;
    diskcheck::expect_untouched(&scene.other_disk())?;
    Ok(error)
}

fn cases(folder: &Path) -> Result<Vec<Case>> {
    let probe = images::probe()?;
    let make = |arguments: &[&str]| process::call("qemu-img", arguments);
    let path = |name: &str| folder.join(name).display().to_string();
    let wrong = Image { sha256: "0".repeat(64), ..probe.qcow2.clone() };
    fs::write(folder.join("base.raw"), vec![1_u8; 1 << 20])?;
    make(&["create", "-q", "-f", "qcow2", "-b", &path("base.raw"), "-F", "raw", &path("backing.qcow2")])?;
    make(&["create", "-q", "-f", "qcow2", &path("large.qcow2"), "100G"])?;
    let of = |name: &str| Image::of(&folder.join(name));
    Ok(vec![
        Case {
            name: "truncated download",
            image: probe.qcow2.clone(),
            format: "qcow2",
            fault: Fault::Truncate(5_000_000),
            words: &["bytes"],
        },
        Case {
            name: "wrong checksum",
            image: wrong,
            format: "qcow2",
            fault: Fault::None,
            words: &["sha256", "expected"],
        },
        Case {
            name: "server resets mid-body",
            image: probe.qcow2.clone(),
            format: "qcow2",
            fault: Fault::Reset(5_000_000),
            words: &["reset"],
        },
        Case {
            name: "image larger than the disk",
            image: of("large.qcow2")?,
            format: "qcow2",
            fault: Fault::None,
            words: &["100", "8"],
        },
        Case {
            name: "backing file",
            image: of("backing.qcow2")?,
            format: "qcow2",
            fault: Fault::None,
            words: &["backing file"],
        },
        Case {
            name: "raw that is qcow2",
            image: probe.qcow2.clone(),
            format: "raw",
            fault: Fault::None,
            words: &["qcow2"],
        },
        Case {
            name: "image not there",
            image: probe.qcow2.clone(),
            format: "qcow2",
            fault: Fault::NotFound,
            words: &["404"],
        },
    ])
}

#[test]
fn a_bmc_that_is_silent_or_has_another_password_is_told_apart() -> Result<()> {
    let artifacts = Artifacts::obtain(Profile::Vm)?;
    let scene = Scene::open(&artifacts, Script::new("bad-bmc", Firmware::Bios))?;
    let operator = scene.operator();
    let password = scene.folder.join("other-password");
    fs::write(&password, "not-the-password")?;
    let file = password.display().to_string();
    let create = |name: &str, changes: &[(&str, &str)]| -> Result<String> {
        let mut arguments = scene.create();
        for (option, value) in [("create", name)].iter().chain(changes) {
            if let Some(at) = arguments.iter().position(|a| a == option) {
                arguments[at + 1] = (*value).to_owned();
            }
        }
        operator.ferric(&borrowed(&arguments))?;
        let refused =
            operator.ferric(&["node", "manage", name, "--wait", "120"]).err().context("manage succeeded")?;
        let node = operator.node(name)?;
        ensure!(node["provision_state"] == "enroll", "{node}");
        println!("{name}: {refused:#}");
        Ok(node["last_error"].as_str().context("no last_error")?.to_owned())
    };
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case; 3] = [
        (
            "silent",
            &[("--bmc-address", netns::NOBODY), ("--mac", "52:54:00:77:00:02")],
            &["no answer", netns::NOBODY],
        ),
        ("wrong-port", &[("--bmc-port", "624"), ("--mac", "52:54:00:77:00:03")], &["624", "623"]),
        ("wrong-password", &[("--bmc-password-file", &file), ("--mac", "52:54:00:77:00:04")], &["password"]),
    ];
    for (name, changes, words) in cases {
        let error = create(name, changes)?;
        for word in words {
            ensure!(error.contains(word), "{name}: '{word}' is not in: {error}");
        }
        ensure!(!error.contains("not-the-password"), "the error shows the password");
    }
    Ok(())
}
