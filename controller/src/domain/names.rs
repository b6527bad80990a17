//! Rules for names that clients choose, and which keys hold secrets.

use serde_json::Value;

/// Words that are sub-resources of a node and therefore no names.
const RESERVED: &[&str] = &[
    "detail",
    "validate",
    "states",
    "vendor_passthru",
    "management",
    "maintenance",
    "ports",
    "portgroups",
    "traits",
    "vifs",
    "bios",
    "firmware",
    "history",
    "inventory",
    "children",
    "vmedia",
    "allocation",
    "volume",
];

/// Why a node cannot have this name, or `None` if it can: RFC 3986 unreserved characters, at most 255, not like a UUID.
pub fn refuse_name(name: &str) -> Option<String> {
    let fits = !name.is_empty()
        && name.len() <= ferric_common::limits::NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if !fits || uuid::Uuid::parse_str(name).is_ok() || RESERVED.contains(&name) {
        let shown: String = name.chars().take(64).collect();
        return Some(format!(
            "Cannot create node with invalid name '{shown}'. A name has 1 to 255 of the characters a-z A-Z 0-9 - . _ ~, \
             does not look like a UUID and is not a reserved word"
        ));
    }
    None
}

const SECRET_PARTS: &[&str] = &[
    "adminpass",
    "admin_pass",
    "password",
    "auth_token",
    "new_pass",
    "secret",
    "sys_pswd",
    "token",
    "configdrive",
    "chappassword",
    "encrypted_key",
    "private_key",
    "fernetkey",
    "sslkey",
    "passphrase",
    "snmp_community",
    "snmp_auth_key",
    "snmp_priv_key",
];

/// What clients see instead of a secret.
pub const MASK: &str = "******";

/// Whether a key names a secret: its lower-cased name contains one of the known words.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// Replaces every secret in a document, at any depth, by [`MASK`]. URLs with a user or a query are cut after the host and path.
pub fn mask(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| {
                    let shown =
                        if is_secret(k) && !v.is_null() { Value::String(MASK.into()) } else { mask(v) };
                    (k.clone(), shown)
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(mask).collect()),
        Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
            Value::String(mask_url(text))
        }
        other => other.clone(),
    }
}

/// A URL without what may be a credential: user info and query become the mask.
pub fn mask_url(text: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(text) else { return text.to_string() };
    let has_user = !parsed.username().is_empty() || parsed.password().is_some();
    if !has_user && parsed.query().is_none() {
        return text.to_string();
    }
    if has_user {
        let _ = parsed.set_username(MASK);
        let _ = parsed.set_password(None);
    }
    if parsed.query().is_some() {
        parsed.set_query(Some(MASK));
    }
    parsed.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_that_break_paths_are_refused() {
        for good in ["node-1", "metal3~node-1", "a.b_c", "N"] {
            assert_eq!(refuse_name(good), None, "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", "a b", "a/b", "states", "6d85b1a0-0000-4000-8000-000000000000", "ö", long.as_str()] {
            assert!(refuse_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_masked_at_any_depth() {
        let shown = mask(&json!({
            "ipmi_password": "hunter2", "ipmi_address": "10.0.0.1", "nested": [{"Agent_Secret_Token": "x"}],
            "image_source": "http://user:pw@host/x?sig=1", "empty_password": null,
        }));
        assert_eq!(shown["ipmi_password"], MASK);
        assert_eq!(shown["nested"][0]["Agent_Secret_Token"], MASK);
        assert_eq!(shown["ipmi_address"], "10.0.0.1");
        let url = shown["image_source"].as_str().unwrap();
        assert!(!url.contains("pw") && !url.contains("sig=1") && url.contains("host/x"), "{url}");
    }
}
