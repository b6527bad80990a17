//! `ferric node deploy`: what the image is goes into `instance_info`, then the node is asked to become active.

use super::args::DeployArgs;
use super::client::{Api, node_path};
use super::drive;
use super::error::CliError;
use super::wait::{self, Verb};
use ferric_common::ids::DigestAlgorithm;
use ferric_common::images::ImageFormat;
use serde_json::{Map, Value, json};

/// Keys of `instance_info` that describe an image; those not given now are of an earlier deployment and go.
const IMAGE_KEYS: [&str; 5] =
    ["image_source", "image_checksum", "image_os_hash_algo", "image_os_hash_value", "image_disk_format"];

pub fn deploy(api: &Api, args: &DeployArgs) -> Result<(), CliError> {
    let image = image_info(&args.image, &args.checksum, args.format)?;
    let drive = drive::build(&args.drive, &args.at.node)?;
    let node = api.get(&node_path(&args.at.node, ""))?;
    let before = node.get("instance_info").and_then(Value::as_object).cloned().unwrap_or_default();
    api.patch(&node_path(&args.at.node, ""), &patch(&before, &image))?;
    let mut body = json!({"target": Verb::Deploy.target()});
    if let (Some(drive), Value::Object(body)) = (drive, &mut body) {
        body.insert("configdrive".into(), drive);
    }
    api.put(&node_path(&args.at.node, "/states/provision"), &body)?;
    wait::finish(api, &args.at, Verb::Deploy)
}

/// The image in Ironic's words. Pure.
fn image_info(
    image: &str,
    checksum: &str,
    format: Option<ImageFormat>,
) -> Result<Map<String, Value>, CliError> {
    let mut out = Map::new();
    let mut put = |key: &str, value: &str| out.insert(key.to_string(), value.into());
    put("image_source", image);
    let is_url = |s: &str| s.starts_with("http://") || s.starts_with("https://");
    match checksum.split_once(':') {
        _ if is_url(checksum) => {
            put("image_checksum", checksum);
        }
        Some((name, value)) => {
            let algorithm: DigestAlgorithm = name.parse().map_err(|_| {
                CliError::Usage(format!(
                    "--checksum: '{name}' is no algorithm that is known; use sha256 or sha512"
                ))
            })?;
            if !is_url(value) {
                check_hex(value, Some(algorithm))?;
            }
            put("image_os_hash_algo", &algorithm.to_string());
            put("image_os_hash_value", &value.to_ascii_lowercase());
        }
        None => {
            let algorithm = check_hex(checksum, None)?;
            put("image_os_hash_algo", &algorithm.to_string());
            put("image_os_hash_value", &checksum.to_ascii_lowercase());
        }
    }
    if let Some(format) = format {
        put("image_disk_format", &format.to_string());
    }
    Ok(out)
}

fn check_hex(text: &str, wanted: Option<DigestAlgorithm>) -> Result<DigestAlgorithm, CliError> {
    let found =
        DigestAlgorithm::from_hex_len(text.len()).filter(|_| text.chars().all(|c| c.is_ascii_hexdigit()));
    match (found, wanted) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(wanted)) if found == wanted => Ok(found),
        _ => Err(CliError::Usage(format!(
            "--checksum: '{}' is not a checksum: give sha256:HEX (64 digits), sha512:HEX (128 digits), HEX alone, or the URL of a checksum file",
            text.chars().take(140).collect::<String>()
        ))),
    }
}

fn patch(before: &Map<String, Value>, image: &Map<String, Value>) -> Value {
    let old = IMAGE_KEYS.iter().filter(|key| before.contains_key(**key) && !image.contains_key(**key));
    let mut ops: Vec<Value> =
        old.map(|key| json!({"op": "remove", "path": format!("/instance_info/{key}")})).collect();
    ops.extend(IMAGE_KEYS.iter().filter_map(|key| {
        let value = image.get(*key)?;
        Some(json!({"op": "add", "path": format!("/instance_info/{key}"), "value": value}))
    }));
    Value::Array(ops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{At, DriveArgs};
    use crate::testing::{Server, answer};

    const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_checksum_may_be_named_bare_or_elsewhere() {
        let info =
            |sum: &str| image_info("http://h/i.qcow2", sum, Some(ImageFormat::Qcow2)).map(Value::Object);
        let named = json!({"image_source": "http://h/i.qcow2", "image_os_hash_algo": "sha256", "image_os_hash_value": SHA256,
            "image_disk_format": "qcow2"});
        for sum in
            [format!("sha256:{SHA256}"), SHA256.to_string(), format!("sha256:{}", SHA256.to_uppercase())]
        {
            assert_eq!(info(&sum).unwrap(), named);
        }
        assert_eq!(info("https://h/SUMS").unwrap()["image_checksum"], "https://h/SUMS");
        assert_eq!(info("sha512:https://h/SUMS").unwrap()["image_os_hash_algo"], "sha512");
        for bad in ["", "abc", "sha256:abc", "sha512:e3b0", "crc32:00", &format!("sha512:{SHA256}")] {
            assert!(info(bad).unwrap_err().to_string().contains("--checksum"), "{bad}");
        }
    }

    #[test]
    fn a_deployment_patches_the_image_and_then_asks_for_active() {
        let server = Server::start(vec![
            answer(
                200,
                json!({"instance_info": {"image_checksum": "old", "image_source": "old", "mine": 1}}),
            ),
            answer(200, json!({})),
            answer(202, Value::Null),
        ]);
        let drive = DriveArgs { hostname: Some("web1".into()), ..DriveArgs::default() };
        let (image, checksum) = ("http://h/i.raw".into(), SHA256.into());
        let at = At { node: "n".into(), wait: None };
        deploy(&server.api(), &DeployArgs { at, image, checksum, format: Some(ImageFormat::Raw), drive })
            .unwrap();
        let seen = server.seen();
        assert_eq!(
            server.lines(),
            ["GET /v1/nodes/n", "PATCH /v1/nodes/n", "PUT /v1/nodes/n/states/provision"]
        );
        let add = |key: &str, value: &str| json!({"op": "add", "path": format!("/instance_info/{key}"), "value": value});
        assert_eq!(
            seen[1].body,
            json!([{"op": "remove", "path": "/instance_info/image_checksum"}, add("image_source", "http://h/i.raw"),
                add("image_os_hash_algo", "sha256"), add("image_os_hash_value", SHA256), add("image_disk_format", "raw")])
        );
        assert_eq!(
            seen[2].body,
            json!({"target": "active", "configdrive": {"meta_data": {"hostname": "web1", "local-hostname": "web1", "name": "n"}}})
        );
    }
}
