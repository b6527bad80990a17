//! Error bodies. The controller's are JSON inside a JSON string (a historical quirk that every client expects);
//! the agent's are flat.

use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Flat error body of the agent's API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// `Client` below status 500, else `Server`.
    pub faultcode: String,
    pub faultstring: String,
}

impl Fault {
    pub fn new(status: u16, text: impl Into<String>) -> Fault {
        let faultcode = if status < 500 { "Client" } else { "Server" };
        Fault { faultcode: faultcode.to_string(), faultstring: text.into() }
    }
}

/// Renders the controller's error body for a status and a text.
/// Source: Ironic's `error_message`, a JSON document encoded once more as a string.
pub fn ironic_body(status: u16, text: &str) -> String {
    let fault = Fault::new(status, text);
    let inner = json!({"faultcode": fault.faultcode, "faultstring": fault.faultstring, "debuginfo": null});
    json!({"error_message": inner.to_string()}).to_string()
}

/// Finds the words for a person in an error body of any known shape; the body itself (cut) if there are none.
pub fn ironic_text(body: &str) -> String {
    fn words(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                Ok(inner @ Value::Object(_)) => words(&inner),
                _ => Some(text.clone()),
            },
            Value::Object(map) => ["error_message", "faultstring", "title", "message", "error"]
                .iter()
                .find_map(|key| map.get(*key).and_then(words)),
            _ => None,
        }
    }
    serde_json::from_str::<Value>(body)
        .ok()
        .as_ref()
        .and_then(words)
        .unwrap_or_else(|| body.chars().take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_found_in_every_shape() {
        for body in [
            ironic_body(404, "Node x could not be found."),
            r#"{"error_message": {"faultstring": "Node x could not be found."}}"#.to_string(),
            r#"{"faultcode": "Client", "faultstring": "Node x could not be found."}"#.to_string(),
            "Node x could not be found.".to_string(),
        ] {
            assert_eq!(ironic_text(&body), "Node x could not be found.", "{body}");
        }
    }
}
