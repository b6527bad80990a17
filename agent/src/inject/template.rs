//! An address with places for what is known of the node: `{node[uuid]}`, `{ports[0][address]}`. Pure.
//!
//! Only keys and numbers in brackets are followed; `{{` and `}}` stand for the braces themselves, as in Python's `format`.

use serde_json::Value;

/// The address with all places filled.
///
/// # Errors
/// Words for a person: which place has nothing to put in.
pub fn fill(text: &str, node: &Value, ports: &Value) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            filled.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            filled.push('}');
            rest = after;
        } else {
            let (place, after) = from
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or("it has a brace without its counterpart")?;
            filled.push_str(&value(place, node, ports)?);
            rest = after;
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(place: &str, node: &Value, ports: &Value) -> Result<String, String> {
    let (name, mut keys) = place.split_at(place.find('[').unwrap_or(place.len()));
    let mut at = match name {
        "node" => node,
        "ports" => ports,
        _ => return Err(format!("'{{{place}}}' begins neither with node nor with ports")),
    };
    while !keys.is_empty() {
        let (key, rest) = keys
            .strip_prefix('[')
            .and_then(|inner| inner.split_once(']'))
            .ok_or_else(|| format!("'{{{place}}}' is not made of keys in brackets"))?;
        let next = match at {
            Value::Array(list) => key.parse::<usize>().ok().and_then(|index| list.get(index)),
            other => other.get(key),
        };
        at = next.ok_or_else(|| format!("'{{{place}}}': there is no '{key}'"))?;
        keys = rest;
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("'{{{place}}}' is neither a text nor a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(text: &str) -> Result<String, String> {
        let node = json!({"uuid": "n1", "properties": {"cpus": 4}});
        fill(text, &node, &json!([{"address": "52:54:00:00:00:01"}]))
    }

    #[test]
    fn places_are_filled_from_node_and_ports() {
        assert_eq!(
            filled("http://h/{node[uuid]}/{ports[0][address]}?c={node[properties][cpus]}&{{x}}").unwrap(),
            "http://h/n1/52:54:00:00:00:01?c=4&{x}"
        );
    }

    #[test]
    fn a_place_without_a_value_is_named() {
        for (text, why) in [
            ("{node[name]}", "'{node[name]}': there is no 'name'"),
            ("{ports[1][address]}", "'{ports[1][address]}': there is no '1'"),
            ("{node}", "'{node}' is neither a text nor a number"),
            ("{node.uuid}", "'{node.uuid}' begins neither with node nor with ports"),
            ("{node[uuid}", "'{node[uuid}' is not made of keys in brackets"),
            ("{node[uuid]", "it has a brace without its counterpart"),
            ("a}b", "it has a brace without its counterpart"),
        ] {
            assert_eq!(filled(text).unwrap_err(), why, "{text}");
        }
    }
}
