//! Boot set-up after writing.

use super::*;

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
