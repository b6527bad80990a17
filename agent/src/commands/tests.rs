//! Commands against a small machine and a scripted writer, and the executor's rules that HTTP does not show.

mod servers;

use super::*;
use crate::executor::Executor;
use crate::testing::{Act, ScriptedWriter, SmallMachine, context, image_info};
use ferric_common::wire::command::{CommandResult, CommandStatus};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

struct Lab {
    executor: Arc<Executor>,
    machine: Arc<SmallMachine>,
    ended: Arc<Notify>,
    orders: Arc<std::sync::Mutex<Vec<(image_info::Image, usize)>>>,
}

fn lab(machine: SmallMachine, act: Act) -> Lab {
    let (machine, writer) = (Arc::new(machine), ScriptedWriter::new(act));
    let (orders, ended) = (writer.orders.clone(), Arc::new(Notify::new()));
    let context = Arc::new(context(machine.clone(), writer));
    Lab {
        executor: Arc::new(Executor::new(context, Vec::new(), None, ended.clone())),
        machine,
        ended,
        orders,
    }
}

impl Lab {
    /// On a context of the test's own; what was written and asked of the machine is not kept.
    fn of(context: Context) -> Lab {
        let ended = Arc::new(Notify::new());
        Lab {
            executor: Arc::new(Executor::new(Arc::new(context), Vec::new(), None, ended.clone())),
            machine: Arc::default(),
            ended,
            orders: Arc::default(),
        }
    }
    async fn run(&self, name: &str, params: Value) -> CommandResult {
        let params = params.as_object().cloned().unwrap();
        self.executor.run(name, params, true).await.unwrap()
    }
    async fn write(&self, args: Value) -> CommandResult {
        let step = json!({"interface": "deploy", "step": "write_image", "args": args});
        let node = json!({"uuid": "n", "instance_info": {}, "properties": {}});
        self.run("deploy.execute_deploy_step", json!({"step": step, "node": node, "ports": []})).await
    }
}

fn failed(result: &CommandResult) -> (&str, &str) {
    assert_eq!(result.command_status, CommandStatus::Failed, "{result:?}");
    let error = result.command_error.as_ref().unwrap();
    (&error.kind, &error.details)
}

#[tokio::test]
async fn an_image_that_is_already_there_is_not_written_again() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let said =
        |result: &CommandResult| result.command_result.as_ref().unwrap()["deploy_result"]["result"].clone();
    let first = lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(said(&first), "prepare_image: image (debian) written to device /dev/sda root_uuid=0x1234abcd");
    let again = lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(
        said(&again),
        "prepare_image: image (debian) already present on device /dev/sda root_uuid=0x1234abcd"
    );
    assert_eq!(lab.orders.lock().unwrap().len(), 1);
    // The same image with another config drive is another disk.
    let drive = "H4sIAAAAAAAC/8tIzcnJBwCGphA2BQAAAA==";
    let third = lab.write(json!({"image_info": image_info(), "configdrive": drive})).await;
    assert_eq!(lab.orders.lock().unwrap().len(), 2, "{third:?}");
    assert_eq!(lab.orders.lock().unwrap()[1].1, 5, "the drive was decoded");
}

#[tokio::test]
async fn an_image_is_written_again_after_a_step_was_at_the_disk() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    lab.write(json!({"image_info": image_info()})).await;
    let step = json!({"interface": "deploy", "step": "inject_files",
                      "args": {"files": [{"path": "/etc/motd", "content": "aGk="}]}});
    let params = json!({"step": step, "node": {"uuid": "n"}, "ports": []});
    let result = lab.run("deploy.execute_deploy_step", params).await;
    assert_eq!(
        failed(&result),
        ("DeviceNotFound", "No partition found with path etc, scanned: no partition")
    );
    let uuids = lab.run("standby.get_partition_uuids", json!({})).await.command_result;
    assert_eq!(uuids, Some(json!({"root uuid": "0x1234abcd"})), "the system is still there");
    lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(lab.orders.lock().unwrap().len(), 2);
    lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(lab.orders.lock().unwrap().len(), 2, "now it is the image's copy again");
}

#[tokio::test]
async fn files_of_the_node_and_of_the_step_are_checked_before_anything_is_touched() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let run = |properties: Value, args: Value| {
        let step = json!({"interface": "deploy", "step": "inject_files", "args": args});
        let node = json!({"uuid": "n", "properties": properties});
        lab.run("service.execute_service_step", json!({"step": step, "node": node, "ports": []}))
    };
    let result = run(json!({"inject_files": [{"path": "/etc/a"}]}), json!({})).await;
    assert_eq!(
        failed(&result),
        (
            "InvalidCommandParamsError",
            "Validation of files failed: file 1 ('/etc/a'): it needs content, a text, or deleted"
        )
    );
    let file = json!([{"path": "/etc/a", "content": ""}]);
    let result = run(json!({}), json!({"files": file, "verify_ca": "/ca"})).await;
    assert_eq!(failed(&result), ("InvalidCommandParamsError", "verify_ca must be true or false"));
    let result = run(json!({"inject_files": null}), json!({"files": []})).await;
    assert_eq!(result.command_result.unwrap()["service_result"], Value::Null, "nothing to do is no failure");
}

#[tokio::test]
async fn failures_carry_class_and_words() {
    let none = lab(SmallMachine::with_disks(&[("/dev/sda", 2)]), Act::Succeed);
    let result = none.write(json!({"image_info": image_info()})).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "DeviceNotFound");
    assert!(details.contains("/dev/sda") || details.contains("4294967296"), "{details}");

    let reason = failure::IMAGE_CHECKSUM.with("Image failed to verify against checksum");
    let broken = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Fail(reason));
    let result = broken.write(json!({"image_info": image_info()})).await;
    assert_eq!(failed(&result), ("ImageChecksumError", "Image failed to verify against checksum"));
    assert_eq!(
        broken.run("standby.get_partition_uuids", json!({})).await.command_result,
        Some(json!({})),
        "nothing was written"
    );

    let result = broken.write(json!({})).await;
    assert_eq!(
        failed(&result),
        ("InvalidCommandParamsError", "the step write_image needs the argument 'image_info'")
    );
    let result = broken.write(json!({"image_info": image_info(), "configdrive": "@"})).await;
    let (kind, details) = failed(&result);
    assert!(kind == "DeploymentError" && details.contains("is not base64 encoded"), "{kind}: {details}");
}

/// 4 MiB with an MBR of one partition and a disk signature.
fn raw_image() -> Vec<u8> {
    let mut image = vec![0u8; 4 << 20];
    image[440..444].copy_from_slice(&0xcafe_0001_u32.to_le_bytes());
    image[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[2 << 20..(2 << 20) + 5].copy_from_slice(b"hello");
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_pipeline_writes_what_the_step_asks_for_and_names_what_went_wrong() {
    let image = raw_image();
    let digest: String =
        <sha2::Sha256 as sha2::Digest>::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
    let sums = format!("{digest}  disk.raw\n{}  other\n", "0".repeat(64)).into_bytes();
    let server = crate::testing::serve_files(vec![("/disk.raw", image), ("/SHA256SUMS", sums)]).await;
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8), ("/dev/sdb", 6)]));
    let context = Arc::new(context(machine.clone(), rooms::Pipeline));
    let executor = Arc::new(Executor::new(context, Vec::new(), None, Arc::new(Notify::new())));
    let write = async |info: Value| {
        let step = json!({"interface": "deploy", "step": "write_image", "args": {"image_info": info}});
        let node = json!({"uuid": "n", "properties": {"root_device": {"name": "/dev/sda"}}});
        let params = json!({"step": step, "node": node, "ports": []});
        executor.run("deploy.execute_deploy_step", params.as_object().cloned().unwrap(), true).await.unwrap()
    };
    let info = |path: &str, checksum: &str| json!({"id": "disk.raw", "urls": [format!("{server}{path}")], "disk_format": "raw", "checksum": checksum});

    let result = write(info("/disk.raw", &"0".repeat(64))).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "ImageChecksumError");
    assert!(details.contains(&digest) && details.contains("blanked at both ends"), "{details}");

    let result = write(info("/nosuch", &digest)).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "ImageDownloadFatalError");
    assert!(
        details.starts_with("Download of image disk.raw failed: ") && details.contains("404"),
        "{details}"
    );

    let result = write(info("/disk.raw", &format!("{server}/SHA256SUMS"))).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
    let text = &result.command_result.as_ref().unwrap()["deploy_result"]["result"];
    assert_eq!(text, "prepare_image: image (disk.raw) written to device /dev/sda root_uuid=0xcafe0001");
    let disk: &dyn crate::platform::block::BlockDevice = machine.disks[0].as_ref();
    let place = ferric_common::units::DiskOffset(2 << 20);
    let bytes = crate::disk::aligned::read(disk, place, ferric_common::units::ByteCount(5)).unwrap();
    assert_eq!(bytes, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn md5_needs_leave_in_whatever_field_it_comes() {
    let image = raw_image();
    let digest: String =
        <md5::Md5 as md5::Digest>::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
    let sums = format!("{digest}  disk.raw\n").into_bytes();
    let server = crate::testing::serve_files(vec![("/disk.raw", image), ("/MD5SUMS", sums)]).await;
    let url = format!("{server}/disk.raw");
    for value in [digest.clone(), format!("{server}/MD5SUMS")] {
        for allowed in [false, true] {
            let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
            let mut context = context(machine.clone(), rooms::Pipeline);
            context.rules.md5 = allowed;
            let executor =
                Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
            let info = json!({"id": "disk.raw", "urls": [url], "disk_format": "raw", "checksum": value});
            let step = json!({"interface": "deploy", "step": "write_image", "args": {"image_info": info}});
            let params = json!({"step": step, "node": {"uuid": "n"}, "ports": []});
            let params = params.as_object().cloned().unwrap();
            let result = executor.run("deploy.execute_deploy_step", params, true).await.unwrap();
            if allowed {
                assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
            } else {
                assert_eq!(failed(&result), ("InvalidCommandParamsError", image_info::MD5_REFUSED));
            }
        }
    }
}

#[tokio::test]
async fn cleaning_blanks_the_disks_and_forgets_what_was_written() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    lab.write(json!({"image_info": image_info()})).await;
    let node = json!({"uuid": "n", "properties": {}, "driver_internal_info": {}});
    let step = json!({"interface": "deploy", "step": "erase_devices_metadata", "priority": 99});
    let result = lab.run("clean.execute_clean_step", json!({"step": step, "node": node, "ports": []})).await;
    assert_eq!(
        result.command_result,
        Some(
            json!({"clean_result": null, "clean_step": {"interface": "deploy", "step": "erase_devices_metadata", "priority": 99}})
        )
    );
    let disk: &dyn crate::platform::block::BlockDevice = lab.machine.disks[0].as_ref();
    let head = ferric_common::units::ByteCount(4096);
    let bytes = crate::disk::aligned::read(disk, ferric_common::units::DiskOffset(0), head).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(lab.run("standby.get_partition_uuids", json!({})).await.command_result, Some(json!({})));
}

impl Lab {
    async fn clean(&self, step: &str, args: Value, node: Value) -> CommandResult {
        let step = json!({"interface": "deploy", "step": step, "args": args});
        self.run("clean.execute_clean_step", json!({"step": step, "node": node, "ports": []})).await
    }
}

#[tokio::test]
async fn clean_steps_are_published_as_conductors_know_them() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let result =
        lab.run("clean.get_clean_steps", json!({"node": {}, "ports": []})).await.command_result.unwrap();
    let steps = result["clean_steps"]["GenericHardwareManager"].as_array().unwrap();
    let told: Vec<(&str, u64)> =
        steps.iter().map(|s| (s["step"].as_str().unwrap(), s["priority"].as_u64().unwrap())).collect();
    let expected = [
        ("erase_devices", 10),
        ("erase_devices_metadata", 99),
        ("erase_devices_express", 0),
        ("erase_pstore", 0),
        ("clean_uefi_nvram", 0),
        ("delete_configuration", 0),
        ("create_configuration", 0),
    ];
    assert_eq!(told, expected);
    for step in steps {
        let plain = (&step["interface"], &step["abortable"], &step["reboot_requested"]);
        let interface =
            if step["step"].as_str().unwrap().ends_with("_configuration") { "raid" } else { "deploy" };
        assert_eq!(plain, (&json!(interface), &json!(true), &json!(false)), "{step}");
        assert_eq!(step.get("argsinfo").is_some(), step["step"] == "clean_uefi_nvram");
    }
    assert_eq!(steps[4]["argsinfo"]["match_patterns"]["required"], json!(false));
}

#[tokio::test]
async fn erasing_names_each_disk_and_the_kernel_parameters_count() {
    let shared = |rules: Rules| {
        let machine = Arc::new(SmallMachine {
            disks: vec![crate::testing::SparseDisk::new("/dev/sda", 4 << 20)],
            ..SmallMachine::default()
        });
        // The superblock of GFS2, which other machines share.
        let mut block = vec![0; 4096];
        block[..8].copy_from_slice(b"\x01\x16\x19\x70\0\0\0\x01");
        let disk: &dyn crate::platform::block::BlockDevice = machine.disks[0].as_ref();
        disk.write_at(ferric_common::units::DiskOffset(65_536), &block).unwrap();
        let context = Context { rules, ..context(machine, ScriptedWriter::new(Act::Succeed)) };
        Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())))
    };
    let node = json!({"uuid": "n", "driver_internal_info": {"wipe_special_filesystems": false}});
    let params = json!({"step": {"interface": "deploy", "step": "erase_devices"}, "node": node, "ports": []});
    let params = params.as_object().unwrap();
    let result =
        shared(Rules::default()).run("clean.execute_clean_step", params.clone(), true).await.unwrap();
    assert_eq!(failed(&result).0, "ProtectedDeviceError");
    let rules = Rules { wipe_special_filesystems: true, ..Rules::default() };
    let result = shared(rules).run("clean.execute_clean_step", params.clone(), true).await.unwrap();
    assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
    let told = &result.command_result.unwrap()["clean_result"]["/dev/sda"];
    assert_eq!(told["method"], "overwriting (1 random passes, zeros last)");
}

#[tokio::test]
async fn boot_entries_are_nothing_to_a_bios_and_bad_patterns_are_refused() {
    let bios = lab(SmallMachine::default(), Act::Succeed);
    let result = bios.clean("clean_uefi_nvram", json!({}), json!({})).await;
    assert_eq!(result.command_result.unwrap()["clean_result"], json!({"removed": []}));
    let result = bios.clean("clean_uefi_nvram", json!({"match_patterns": ["("]}), json!({})).await;
    assert_eq!(
        failed(&result),
        ("InvalidCommandParamsError", "The match_patterns must be a list of strings: ['(']")
    );
    let uefi = lab(SmallMachine { boot_mode: "uefi", ..SmallMachine::default() }, Act::Succeed);
    let result = uefi.clean("clean_uefi_nvram", json!({}), json!({})).await;
    assert_eq!(failed(&result).0, "CleaningError", "firmware that cannot be reached is told");
    let result = uefi.clean("erase_pstore", json!({}), json!({})).await;
    assert_eq!(failed(&result).0, "CleaningError", "a workstation's crash records stay");
}

#[tokio::test]
async fn a_step_for_another_version_is_a_mismatch_and_null_is_none() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let with = |version: Value| json!({"step": {"step": "prepare_instance_boot", "interface": "deploy"}, "node": {}, "ports": [], "deploy_version": version});
    let result = lab.run("deploy.execute_deploy_step", with(json!({"generic_hardware_manager": "0"}))).await;
    assert_eq!(result.command_status, CommandStatus::VersionMismatch);
    assert_eq!(result.command_error.unwrap().kind, "VersionMismatch");
    for version in [Value::Null, steps::hardware_manager_version()] {
        let result = lab.run("deploy.execute_deploy_step", with(version)).await;
        assert_eq!(result.command_status, CommandStatus::Succeeded);
    }
}

#[tokio::test]
async fn service_steps_are_published_run_and_told_from_those_of_another_version() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let told =
        lab.run("service.get_service_steps", json!({"node": {}, "ports": []})).await.command_result.unwrap();
    assert_eq!(told["hardware_manager_version"], steps::hardware_manager_version());
    let published = &told["service_steps"]["GenericHardwareManager"];
    let write = published.as_array().unwrap().iter().find(|step| step["step"] == "write_image").unwrap();
    assert_eq!((&write["interface"], &write["priority"]), (&json!("deploy"), &json!(0)));
    let needed = |name: &str| write["argsinfo"][name]["required"].clone();
    assert_eq!((needed("image_info"), needed("configdrive")), (json!(true), json!(false)));

    let run = async |step: Value, version: Value| {
        let node = json!({"uuid": "n", "instance_info": {}, "properties": {}});
        let params = json!({"step": step, "node": node, "ports": [], "service_version": version});
        lab.run("service.execute_service_step", params).await
    };
    let args = json!({"image_info": image_info()});
    let step = json!({"interface": "deploy", "step": "write_image", "priority": 0, "args": args});
    let stale = run(step.clone(), json!({"generic_hardware_manager": "0"})).await;
    assert_eq!(stale.command_status, CommandStatus::VersionMismatch);
    assert!(lab.orders.lock().unwrap().is_empty(), "nothing was written");

    let result = run(step, told["hardware_manager_version"].clone()).await;
    assert_eq!(result.command_name, "execute_service_step");
    let text = "prepare_image: image (debian) written to device /dev/sda root_uuid=0x1234abcd";
    let echo = json!({"interface": "deploy", "step": "write_image", "priority": 0});
    assert_eq!(
        result.command_result,
        Some(json!({"service_result": {"result": text}, "service_step": echo}))
    );

    let result = run(json!({"interface": "deploy", "step": "nosuch"}), Value::Null).await;
    assert_eq!(failed(&result), ("HardwareManagerMethodNotFound", "Could not find method: nosuch"));
    let result = run(json!({"interface": "deploy"}), Value::Null).await;
    assert!(failed(&result).1.starts_with("Malformed service_step, no \"step\" key: "), "{result:?}");
}

#[tokio::test]
async fn a_rescue_and_a_lockdown_are_answered_and_then_the_agent_leaves() {
    for (name, params, done) in [
        ("rescue.finalize_rescue", json!({"rescue_password": "secret"}), "rescue by a sha512 hash"),
        ("system.lockdown", json!({}), "lockdown"),
    ] {
        let (machine, writer) = (Arc::new(SmallMachine::default()), ScriptedWriter::new(Act::Succeed));
        let context = Arc::new(context(machine.clone(), writer));
        let ended = Arc::new(Notify::new());
        let executor = Arc::new(Executor::new(context.clone(), Vec::new(), None, ended));
        let bad = json!({"rescue_password": "", "x": 1});
        executor.run(name, bad.as_object().cloned().unwrap(), false).await.unwrap();
        let waiting = std::time::Duration::from_millis(50);
        let left = tokio::time::timeout(waiting, context.leave.notified()).await;
        assert!(left.is_err() && machine.done().is_empty(), "a refused command ends nothing");

        let params = params.as_object().cloned().unwrap();
        let result = executor.run(name, params, false).await.unwrap();
        assert_eq!((result.command_status, &result.command_result), (CommandStatus::Succeeded, &None));
        assert_eq!(result.command_name, name.split_once('.').unwrap().1);
        tokio::time::timeout(std::time::Duration::from_secs(10), context.leave.notified()).await.unwrap();
        assert_eq!(machine.done(), [done]);
    }
}

#[tokio::test]
async fn a_rescue_with_a_bad_password_says_what_is_wrong() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let params = json!({"rescue_password": "x", "hashed": true}).as_object().cloned().unwrap();
    let refused = lab.executor.run("rescue.finalize_rescue", params, false).await.unwrap_err().to_string();
    assert!(refused.starts_with("Invalid command parameters: ") && refused.contains("crypt(5)"), "{refused}");
    assert!(lab.machine.done().is_empty());
}

#[tokio::test]
async fn the_end_of_an_asynchronous_command_forces_a_heartbeat() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    lab.run("standby.sync", json!({})).await;
    let waiting = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(waiting, lab.ended.notified()).await.is_err(), "a synchronous one does not");
    lab.run("standby.power_off", json!({})).await;
    tokio::time::timeout(std::time::Duration::from_secs(10), lab.ended.notified()).await.unwrap();
    assert_eq!(lab.machine.done(), ["sync", "sync", "power off"]);
}

#[tokio::test]
async fn a_synchronous_failure_is_stored_with_its_long_name() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    let result = lab.run("standby.sync", json!({"x": 1})).await;
    assert_eq!(result.command_name, "standby.sync");
    assert_eq!(failed(&result), ("CommandExecutionError", "standby.sync has no parameter 'x'"));
    assert_eq!(lab.executor.results(), [result]);
}

#[tokio::test]
async fn boot_setup_is_nothing_for_whole_disks_and_refused_for_partitions() {
    let lab = lab(SmallMachine::default(), Act::Succeed);
    for uuid in [Value::Null, json!("0x00000000"), json!("")] {
        let result = lab.run("image.install_bootloader", json!({"root_uuid": uuid})).await;
        assert_eq!(result.command_status, CommandStatus::Succeeded, "{uuid}");
    }
    let uuid = "0f3b2a10-0000-4000-8000-000000000000";
    let result = lab.run("image.install_bootloader", json!({"root_uuid": uuid})).await;
    let (kind, details) = failed(&result);
    assert!(kind == "InvalidImage" && details.contains(uuid), "{kind} {details}");
    let ignored = json!({"root_uuid": uuid, "ignore_bootloader_failure": true});
    let result = lab.run("image.install_bootloader", ignored).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded);
}

#[tokio::test]
async fn an_array_that_a_bios_could_not_boot_from_is_refused_before_anything_is_written() {
    for (boot_mode, refused) in [("bios", true), ("uefi", false)] {
        let machine = SmallMachine { boot_mode, ..SmallMachine::with_disks(&[("/dev/md0", 8)]) };
        let lab = lab(machine, Act::Succeed);
        let result = lab.write(json!({"image_info": image_info()})).await;
        assert_eq!(result.command_status == CommandStatus::Failed, refused, "{result:?}");
        if refused {
            let (kind, details) = failed(&result);
            assert!(
                kind == "InvalidImage" && details.contains("/dev/md0, from which a BIOS cannot boot"),
                "{details}"
            );
        }
        assert_eq!(lab.orders.lock().unwrap().is_empty(), refused, "{boot_mode}");
    }
}

#[tokio::test]
async fn a_uefi_machine_needs_a_system_partition_to_boot_from() {
    let machine = SmallMachine { boot_mode: "uefi", ..SmallMachine::with_disks(&[("/dev/sda", 8)]) };
    let lab = lab(machine, Act::Succeed);
    lab.write(json!({"image_info": image_info()})).await;
    let result = lab.run("image.install_bootloader", json!({"root_uuid": "0x1234abcd"})).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "DeviceNotFound");
    assert!(details.starts_with("No EFI partition could be detected on device /dev/sda "), "{details}");
    let ignored = json!({"root_uuid": null, "ignore_bootloader_failure": true});
    let result = lab.run("image.install_bootloader", ignored).await;
    assert_eq!(result.command_status, CommandStatus::Succeeded);
}

#[test]
fn a_missing_namespace_is_told_from_a_missing_command() {
    assert!(find("standby", "sync").is_ok());
    assert_eq!(find("standby", "nosuch").err(), Some(Unknown::Command));
    assert_eq!(find("flow", "start_flow").err(), Some(Unknown::Extension));
}

#[test]
fn parameters_are_checked_by_name() {
    let check = |extension, name, params: Value| {
        let params = params.as_object().cloned().unwrap();
        find(extension, name).unwrap().check_names(&params).map_err(|f| f.details)
    };
    assert_eq!(check("standby", "sync", json!({})), Ok(()));
    assert_eq!(check("standby", "sync", json!({"x": 1})), Err("standby.sync has no parameter 'x'".into()));
    assert_eq!(
        check("clean", "get_clean_steps", json!({"node": {}})),
        Err("clean.get_clean_steps needs the parameter 'ports'".into())
    );
    assert_eq!(
        check("deploy", "execute_deploy_step", json!({"step": {}, "node": {}, "ports": [], "new": 1})),
        Ok(())
    );
}

#[tokio::test]
async fn a_step_from_outside_stands_in_the_list_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({"name": "tune", "kinds": ["deploy", "clean", "service"], "priority": 30, "interface": "bios",
                          "args": {"profile": {"description": "which", "required": true}}});
    let script = r#"printf '{"result": '; cat; echo '}'"#;
    crate::outside::tests::put(folder.path(), "tune", &manifest, script);
    let own = crate::commands::steps::own_names();
    assert!(own.contains(&"erase_devices".into()) && own.contains(&"write_image".into()), "{own:?}");
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let context = Context {
        shelf: crate::outside::Shelf::read(folder.path(), &own),
        ..context(machine, ScriptedWriter::new(Act::Succeed))
    };
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    let run = async |name: &str, params: Value| {
        executor.run(name, params.as_object().cloned().unwrap(), true).await.unwrap()
    };
    for kind in ["deploy", "clean", "service"] {
        let asked = run(&format!("{kind}.get_{kind}_steps"), json!({"node": {}, "ports": []})).await;
        let list = &asked.command_result.unwrap()[format!("{kind}_steps")]["GenericHardwareManager"];
        let step = list.as_array().unwrap().iter().find(|step| step["step"] == "tune").unwrap();
        assert_eq!((&step["priority"], &step["interface"]), (&json!(30), &json!("bios")));
        assert_eq!(step["argsinfo"]["profile"]["required"], json!(true));
    }
    let params = |args: Value| {
        let step = json!({"interface": "bios", "step": "tune", "priority": 30, "args": args});
        json!({"step": step, "node": {"uuid": "n", "driver_info": {"x": 1}}, "ports": []})
    };
    let result = run("deploy.execute_deploy_step", params(json!({"profile": "fast"}))).await;
    let result = result.command_result.unwrap();
    assert_eq!(result["deploy_step"], json!({"interface": "bios", "step": "tune", "priority": 30}));
    let order = &result["deploy_result"];
    assert_eq!((&order["kind"], &order["args"]), (&json!("deploy"), &json!({"profile": "fast"})));
    assert_eq!((&order["root_disk"], &order["disks"][0]["name"]), (&json!("/dev/sda"), &json!("/dev/sda")));
    assert_eq!(order["node"], json!({"uuid": "n"}));
    let result = run("clean.execute_clean_step", params(json!({}))).await;
    let error = result.command_error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.details.as_str()),
        ("InvalidCommandParamsError", "the step tune needs the argument 'profile'")
    );
}

#[tokio::test]
async fn a_step_from_outside_fails_with_the_class_of_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({"name": "tune", "kinds": ["clean", "deploy", "service"]});
    crate::outside::tests::put(folder.path(), "tune", &manifest, "echo 'no such profile' >&2; exit 3");
    let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
    let context = Context {
        shelf: crate::outside::Shelf::read(folder.path(), &[]),
        ..context(machine, ScriptedWriter::new(Act::Succeed))
    };
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    for (kind, class) in
        [("clean", "CleaningError"), ("deploy", "DeploymentError"), ("service", "ServicingError")]
    {
        let params = json!({"step": {"interface": "deploy", "step": "tune"}, "node": {}, "ports": []});
        let params = params.as_object().cloned().unwrap();
        let result = executor.run(&format!("{kind}.execute_{kind}_step"), params, true).await.unwrap();
        let (kind, details) = failed(&result);
        assert_eq!(kind, class);
        assert!(details.ends_with("tune ended with code 3; its last words: no such profile"), "{details}");
    }
}
