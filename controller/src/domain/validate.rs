//! What a deployment needs, checked before the machine is powered on. Every refusal says what is there and what is needed.

use super::node::{Node, Object};
use ferric_common::ids::{Digest, DigestAlgorithm};
use ferric_common::units::{ByteCount, GIB, MIB};
use ferric_common::wire::command::ImageInfo;
use serde_json::Value;
use url::Url;

/// How the image's content is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Digest(Digest),
    /// A checksum file, which the agent reads.
    Url(String),
}

/// The image that a node asks for, checked as far as that goes without fetching anything.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    pub url: Url,
    pub proof: Proof,
    /// `raw` or `qcow2`; `None` if not said.
    pub format: Option<String>,
}

/// What an image server said about an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Bytes to fetch, where the server says so.
    pub length: Option<u64>,
    /// Bytes on the disk, where the format says so.
    pub virtual_size: Option<u64>,
    pub format: Option<String>,
}

fn word<'a>(info: &'a Object, key: &str) -> Option<&'a str> {
    info.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
}

/// Reads and checks `instance_info`.
///
/// # Errors
/// A sentence that names the field and what it should hold.
pub fn image_request(node: &Node, allow_md5: bool) -> Result<ImageRequest, String> {
    let info = &node.instance_info;
    let source = word(info, "image_source").ok_or(
        "instance_info has no image_source: set it to the http(s) URL of a whole-disk image (raw or qcow2)",
    )?;
    let url = Url::parse(source)
        .map_err(|e| format!("instance_info image_source '{}' is not a URL: {e}", shown(source)))?;
    if !matches!(url.scheme(), "http" | "https") || source.len() > ferric_common::limits::URL {
        return Err(format!(
            "instance_info image_source '{}' cannot be fetched: an http or https URL of at most {} bytes is needed",
            shown(source),
            ferric_common::limits::URL
        ));
    }
    if word(info, "image_type").is_some_and(|t| t != "whole-disk") || word(info, "kernel").is_some() {
        return Err(
            "partition images are not supported: use a whole-disk image, which brings its own boot loader"
                .into(),
        );
    }
    let format = word(info, "image_disk_format").map(str::to_ascii_lowercase);
    if let Some(format) = &format
        && let Err(unknown) = format.parse::<ferric_common::images::ImageFormat>()
    {
        return Err(format!("instance_info image_disk_format: {unknown}"));
    }
    Ok(ImageRequest { url, proof: proof(info, allow_md5)?, format })
}

fn shown(source: &str) -> String {
    super::names::mask_url(&source.chars().take(200).collect::<String>())
}

fn proof(info: &Object, allow_md5: bool) -> Result<Proof, String> {
    let permitted = |digest: Digest| match digest.algorithm {
        DigestAlgorithm::Md5 if !allow_md5 => {
            Err("the image's checksum is md5, which proves nothing against a forger: give \
             image_os_hash_algo sha256 or sha512, or switch on [agent] allow_md5"
                .to_string())
        }
        _ => Ok(Proof::Digest(digest)),
    };
    if let (Some(algo), Some(hex)) = (word(info, "image_os_hash_algo"), word(info, "image_os_hash_value")) {
        let algorithm = algo.parse::<DigestAlgorithm>().map_err(|e| format!("image_os_hash_algo: {e}"))?;
        return permitted(Digest::from_hex(algorithm, hex).map_err(|e| format!("image_os_hash_value: {e}"))?);
    }
    let checksum = word(info, "image_checksum").ok_or(
        "the image has no checksum: set instance_info image_os_hash_algo (sha256 or sha512) and image_os_hash_value, or image_checksum",
    )?;
    if checksum.starts_with("http://") || checksum.starts_with("https://") {
        return Ok(Proof::Url(checksum.to_string()));
    }
    let (algorithm, hex) = match checksum.split_once(':') {
        Some((algo, hex)) => (algo.parse().map_err(|e| format!("image_checksum: {e}"))?, hex),
        None => (
            DigestAlgorithm::from_hex_len(checksum.trim().len()).ok_or_else(|| {
                format!(
                    "image_checksum has {} characters: a sha256 has 64 hexadecimal digits, a sha512 128",
                    checksum.trim().len()
                )
            })?,
            checksum,
        ),
    };
    permitted(Digest::from_hex(algorithm, hex).map_err(|e| format!("image_checksum: {e}"))?)
}

/// Whether the image and, behind it, a config drive of `drive` bytes fit the disk, as far as the sizes are known.
///
/// The size of the disk is `properties.local_gb` in GiB; 0 or absent means not known. A raw image is as large as its file.
pub fn image_fits(
    node: &Node,
    request: &ImageRequest,
    facts: &ImageFacts,
    drive: Option<u64>,
) -> Result<(), String> {
    if let (Some(said), Some(found)) = (&request.format, &facts.format)
        && said != found
        // A raw image whose name says how it is compressed.
        && !(said == "raw" && found.starts_with("raw."))
    {
        return Err(format!(
            "image_disk_format says {said}, but the image at {} is {found}",
            shown(request.url.as_str())
        ));
    }
    let raw = request.format.as_deref().or(facts.format.as_deref()) == Some("raw");
    let image = facts.virtual_size.or(if raw { facts.length } else { None });
    let disk = node.properties.get("local_gb").and_then(number).filter(|gb| *gb > 0);
    let (Some(image), Some(disk_gb)) = (image, disk) else { return Ok(()) };
    let disk = disk_gb.saturating_mul(GIB);
    if image > disk {
        return Err(format!(
            "the image needs {} on the disk, the node's properties.local_gb gives {}: choose a smaller image, or correct local_gb if the disk is larger",
            ByteCount(image),
            ByteCount(disk)
        ));
    }
    let (left, need) =
        (disk.saturating_sub(image), drive.map_or(0, |size| size.div_ceil(MIB).saturating_mul(MIB)));
    if need > left {
        return Err(format!(
            "behind the image's {} the config drive needs {}, the node's properties.local_gb leaves {}: choose a smaller image, or correct local_gb if the disk is larger (without it, the machine looks for itself)",
            ByteCount(image),
            ByteCount(need),
            ByteCount(left)
        ));
    }
    Ok(())
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(|t| t.parse().ok()))
}

/// A capability by name, from `capabilities` as text (`boot_mode:uefi,x:y`) or object.
fn capability(info: &Object, name: &str) -> Option<String> {
    match info.get("capabilities")? {
        Value::String(text) => text.split(',').find_map(|part| {
            let (key, value) = part.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_string())
        }),
        Value::Object(map) => map.get(name).and_then(Value::as_str).map(str::to_string),
        _ => None,
    }
}

/// `uefi` or `bios` for this node; `default` where nothing says otherwise.
///
/// # Errors
/// Where instance_info contradicts properties, or an unknown mode is named.
pub fn boot_mode(node: &Node, default: &str) -> Result<String, String> {
    let wanted = [
        capability(&node.instance_info, "secure_boot").filter(|v| v == "true").map(|_| "uefi".to_string()),
        capability(&node.instance_info, "boot_mode"),
        word(&node.instance_info, "deploy_boot_mode").map(str::to_string),
    ];
    let instance = wanted.into_iter().flatten().next();
    let machine = capability(&node.properties, "boot_mode");
    if let (Some(a), Some(b)) = (&instance, &machine)
        && a != b
    {
        return Err(format!("instance_info asks for boot mode {a}, properties.capabilities say {b}"));
    }
    let mode = instance.or(machine).unwrap_or_else(|| default.to_string());
    match mode.as_str() {
        "uefi" | "bios" => Ok(mode),
        other => Err(format!("boot mode '{other}' is unknown; bios and uefi exist")),
    }
}

/// The image as the agent's `write_image` step takes it.
pub fn image_info(node: &Node, request: &ImageRequest, configdrive: Option<String>) -> ImageInfo {
    let id = request
        .url
        .path_segments()
        .and_then(|mut s| s.next_back())
        .filter(|s| !s.is_empty())
        .unwrap_or("image");
    let mut info = ImageInfo {
        id: id.to_string(),
        urls: vec![request.url.to_string()],
        disk_format: request.format.clone(),
        stream_raw_images: Some(true),
        node_uuid: Some(node.uuid.to_string()),
        image_type: Some("whole-disk".into()),
        configdrive,
        ..ImageInfo::default()
    };
    match &request.proof {
        Proof::Digest(digest) => {
            info.os_hash_algo = Some(digest.algorithm.to_string());
            info.os_hash_value = Some(digest.hex());
        }
        Proof::Url(url) => info.checksum = Some(url.clone()),
    }
    for (key, scheme) in [("image_http_proxy", "http"), ("image_https_proxy", "https")] {
        if let Some(proxy) = word(&node.driver_info, key) {
            info.proxies.insert(scheme.to_string(), proxy.to_string());
        }
    }
    info.no_proxy = word(&node.driver_info, "image_no_proxy").map(str::to_string);
    info
}

/// Checks a text that becomes kernel parameters: printable ASCII, bounded, nothing that a boot script would expand.
pub fn kernel_parameters(text: &str) -> Result<String, String> {
    if text.len() > ferric_common::limits::KERNEL_PARAMETERS {
        return Err(format!(
            "kernel parameters are {} bytes long; {} are allowed",
            text.len(),
            ferric_common::limits::KERNEL_PARAMETERS
        ));
    }
    if let Some(bad) = text.chars().find(|c| !(' '..='~').contains(c)) {
        return Err(format!("kernel parameters hold the character {bad:?}; only printable ASCII is allowed"));
    }
    if text.contains("${") {
        return Err("kernel parameters hold '${', which a boot script would expand".to_string());
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(instance_info: Value, properties: Value) -> Node {
        Node {
            instance_info: instance_info.as_object().unwrap().clone(),
            properties: properties.as_object().unwrap().clone(),
            ..Node::default()
        }
    }

    #[test]
    fn what_is_missing_or_weak_is_named() {
        let sha = "ab".repeat(32);
        for (info, words) in [
            (json!({}), "no image_source"),
            (json!({"image_source": "x"}), "is not a URL"),
            (json!({"image_source": "ftp://h/x", "image_checksum": sha}), "http or https"),
            (json!({"image_source": "http://h/x"}), "no checksum"),
            (json!({"image_source": "http://h/x", "image_checksum": "ab".repeat(16)}), "md5"),
            (
                json!({"image_source": "http://h/x", "image_os_hash_algo": "md5", "image_os_hash_value": "ab".repeat(16)}),
                "md5",
            ),
            (
                json!({"image_source": "http://h/x", "image_os_hash_algo": "sha512", "image_os_hash_value": sha}),
                "128 hexadecimal digits",
            ),
            (json!({"image_source": "http://h/x", "image_checksum": "zz"}), "2 characters"),
            (
                json!({"image_source": "http://h/x", "image_checksum": sha, "image_disk_format": "vmdk"}),
                "vmdk",
            ),
            (
                json!({"image_source": "http://h/x", "image_checksum": sha, "image_type": "partition"}),
                "partition images",
            ),
        ] {
            let error = image_request(&node(info.clone(), json!({})), false).unwrap_err();
            assert!(error.contains(words), "{info}: {error}");
        }
        let md5 = json!({"image_source": "http://h/x", "image_checksum": "ab".repeat(16)});
        assert!(image_request(&node(md5, json!({})), true).is_ok());
    }

    #[test]
    fn an_image_too_large_names_both_numbers() {
        let info = json!({"image_source": "http://h/x", "image_checksum": "ab".repeat(32), "image_disk_format": "qcow2"});
        for (local_gb, size, fits) in [
            (json!(4), 4 * GIB, true),
            (json!("3"), 4 * GIB, false),
            (json!(0), 4 * GIB, true),
            (Value::Null, 1 << 50, true),
        ] {
            let node = node(info.clone(), json!({"local_gb": local_gb}));
            let request = image_request(&node, false).unwrap();
            let facts = ImageFacts { virtual_size: Some(size), ..ImageFacts::default() };
            match image_fits(&node, &request, &facts, None) {
                Ok(()) => assert!(fits),
                Err(text) => {
                    assert!(!fits);
                    assert!(text.contains("4294967296 bytes") && text.contains("3221225472 bytes"), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_config_drive_needs_room_behind_the_image() {
        let info = json!({"image_source": "http://h/x", "image_checksum": "ab".repeat(32), "image_disk_format": "qcow2"});
        for (local_gb, free, drive, fits) in [
            (json!(4), 64 * MIB, Some(64 * MIB), true),
            (json!(4), 64 * MIB, Some(64 * MIB + 1), false),
            (json!(4), MIB, Some(300_000), true),
            (json!(4), MIB - 1, Some(300_000), false),
            (json!(4), 0, Some(1), false),
            (json!(4), 0, None, true),
            (json!(0), 0, Some(1), true),
            (Value::Null, 0, Some(1), true),
        ] {
            let node = node(info.clone(), json!({"local_gb": local_gb}));
            let request = image_request(&node, false).unwrap();
            let facts = ImageFacts { virtual_size: Some(4 * GIB - free), ..ImageFacts::default() };
            let said = image_fits(&node, &request, &facts, drive);
            assert_eq!(said.is_ok(), fits, "{local_gb} {free} {drive:?}: {said:?}");
            if let Err(text) = said {
                assert!(text.contains(&format!("leaves {}", ByteCount(free))), "{text}");
            }
        }
    }

    #[test]
    fn a_format_that_lies_is_refused() {
        let node = node(
            json!({"image_source": "http://h/x", "image_checksum": "ab".repeat(32), "image_disk_format": "raw"}),
            json!({}),
        );
        let request = image_request(&node, false).unwrap();
        let facts = ImageFacts { format: Some("qcow2".into()), ..ImageFacts::default() };
        assert!(image_fits(&node, &request, &facts, None).unwrap_err().contains("says raw"));
    }

    #[test]
    fn the_boot_mode_comes_from_the_most_specific_place() {
        for (info, properties, want) in [
            (json!({}), json!({}), Ok("uefi")),
            (json!({}), json!({"capabilities": "a:b,boot_mode:bios"}), Ok("bios")),
            (json!({"capabilities": {"secure_boot": "true"}}), json!({}), Ok("uefi")),
            (json!({"deploy_boot_mode": "bios"}), json!({}), Ok("bios")),
            (json!({"deploy_boot_mode": "bios"}), json!({"capabilities": "boot_mode:uefi"}), Err(())),
            (json!({"deploy_boot_mode": "efi"}), json!({}), Err(())),
        ] {
            let found = boot_mode(&node(info.clone(), properties), "uefi").map_err(|_| ());
            assert_eq!(found.as_deref(), want.as_ref().map(|s| *s).map_err(|_| &()), "{info}");
        }
    }

    #[test]
    fn kernel_parameters_cannot_break_out_of_a_boot_script() {
        assert!(kernel_parameters("console=ttyS0 ipa-debug=1").is_ok());
        for bad in ["a\nshell", "a ${net0/mac}", "ä", &"x".repeat(5000)] {
            assert!(kernel_parameters(bad).is_err(), "{bad}");
        }
    }
}
