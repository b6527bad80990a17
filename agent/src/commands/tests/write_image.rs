//! Writing an image: what is done once, what is refused, and the real pipeline.

use super::*;
use crate::image::tests::server::{Answer, Server};

#[tokio::test]
async fn an_image_that_is_already_there_is_not_written_again() {
    let lab = lab(SmallMachine::with_disks(&[("/dev/sda", 8)]), Act::Succeed);
    let said =
        |result: &CommandResult| result.command_result.as_ref().unwrap()["deploy_result"]["result"].clone();
    let first = lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(said(&first), "prepare_image: image (debian) written to device /dev/sda root_uuid=0x1234abcd");
    let report = |result: &CommandResult| {
        result.command_result.as_ref().unwrap()["deploy_result"].get("report").cloned()
    };
    assert_eq!(report(&first).unwrap()["bytes_written"], 4096);
    let again = lab.write(json!({"image_info": image_info()})).await;
    assert_eq!(report(&again), None, "nothing was written");
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
    let report = &result.command_result.as_ref().unwrap()["deploy_result"]["report"];
    let figure = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((figure("bytes_received"), figure("virtual_size")), (4 << 20, 4 << 20));
    assert!(figure("bytes_written") >= 1 << 20 && figure("bytes_verified") >= 1 << 20, "{report}");
    let line = report["summary"].as_str().unwrap();
    let limit = format!("; limited by {} (busy: network ", report["limit"].as_str().unwrap());
    assert!(line.starts_with("4 MiB received at ") && line.contains(&limit), "{line}");
    assert!(report["seconds"]["body"].is_f64(), "{report}");
    let disk: &dyn crate::platform::block::BlockDevice = machine.disks[0].as_ref();
    let place = ferric_common::units::DiskOffset(2 << 20);
    let bytes = crate::disk::aligned::read(disk, place, ferric_common::units::ByteCount(5)).unwrap();
    assert_eq!(bytes, b"hello");
}

/// Ironic says `null` for an image whose format the operator did not declare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeclared_format_is_told_by_the_first_bytes_that_the_pipeline_fetches() {
    let (raw, mut other) = (raw_image(), raw_image());
    other[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let written = "prepare_image: image (an image) written to device /dev/sda root_uuid=0xcafe0001";
    let refused = |found: &str, allowed: &str| {
        format!("image an image: Security: Detected image format was {found}, but only {allowed} are allowed")
    };
    let mut bare = raw.clone();
    bare[510..512].fill(0);
    for (image, permitted, script, then, expected) in [
        (&raw, "raw,gpt,qcow2", vec![], Answer::default(), Ok(written)),
        (&raw, "raw,gpt,qcow2", vec![], Answer::no_ranges(), Ok(written)),
        (&raw, "raw,gpt,qcow2", vec![Answer::status(503)], Answer::default(), Ok(written)),
        (&other, "raw", vec![], Answer::default(), Err(refused("qcow2", "raw"))),
        (
            &other,
            "raw,gpt",
            vec![Answer::status(503)],
            Answer::no_ranges(),
            Err(refused("qcow2", "raw, gpt")),
        ),
        (&raw, "raw,qcow2", vec![], Answer::default(), Err(refused("gpt", "raw, qcow2"))),
        (&bare, "qcow2", vec![], Answer::default(), Err(refused("raw", "qcow2"))),
    ] {
        let server = Server::new(image, script, then);
        let machine = Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)]));
        let before = start_of(&machine);
        let mut context = context(machine.clone(), rooms::Pipeline);
        context.rules.permitted_formats = permitted.split(',').map(String::from).collect();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(image);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let info = json!({"id": "an image", "urls": [server.url()], "disk_format": null, "os_hash_algo": "sha256",
                          "os_hash_value": digest});
        let result = Lab::of(context).write(json!({"image_info": info})).await;
        match expected {
            Ok(text) => {
                assert_eq!(result.command_status, CommandStatus::Succeeded, "{result:?}");
                assert_eq!(result.command_result.unwrap()["deploy_result"]["result"], text);
            }
            Err(text) => {
                assert_eq!(failed(&result), ("InvalidImage", text.as_str()));
                assert!(start_of(&machine) == before, "the disk was touched");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configured_patience_is_the_pipelines() {
    let server = Server::honest(&raw_image());
    let mut context = context(Arc::new(SmallMachine::with_disks(&[("/dev/sda", 8)])), rooms::Pipeline);
    context.rules.patience.timeouts.whole = Some(std::time::Duration::ZERO);
    let mut info = image_info();
    (info["urls"], info["disk_format"]) = (json!([server.url()]), json!("raw"));
    let result = Lab::of(context).write(json!({"image_info": info})).await;
    let (kind, details) = failed(&result);
    assert_eq!(kind, "ImageDownloadTimeoutError");
    assert!(details.starts_with("Download of image debian failed: fetching http://127.0.0.1:"), "{details}");
    assert_eq!(result.command_error.unwrap().code, 408);
}

fn start_of(machine: &SmallMachine) -> Vec<u8> {
    let disk: &dyn crate::platform::block::BlockDevice = machine.disks[0].as_ref();
    let (place, size) = (ferric_common::units::DiskOffset(0), ferric_common::units::ByteCount(1 << 20));
    crate::disk::aligned::read(disk, place, size).unwrap()
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
