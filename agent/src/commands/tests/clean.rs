//! Clean steps: how they are published, and what they do to the disks.

use super::*;

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
