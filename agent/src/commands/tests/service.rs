//! Service steps.

use super::*;
use crate::testing::scripted_report;

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
        Some(
            json!({"service_result": {"result": text, "report": scripted_report().shown()}, "service_step": echo})
        )
    );

    let result = run(json!({"interface": "deploy", "step": "nosuch"}), Value::Null).await;
    assert_eq!(failed(&result), ("HardwareManagerMethodNotFound", "Could not find method: nosuch"));
    let result = run(json!({"interface": "deploy"}), Value::Null).await;
    assert!(failed(&result).1.starts_with("Malformed service_step, no \"step\" key: "), "{result:?}");
}
