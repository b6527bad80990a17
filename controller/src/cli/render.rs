//! Values to text: tables and lists without colour, safe for a terminal. Pure.

use ferric_common::report::WriteReport;
use serde_json::Value;

/// Removes what could steer a terminal: texts come from machines and from other people. Line breaks stay.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// As [`printable`], in one line.
pub fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text of a field: strings bare, null and absent as `-`, anything else as JSON.
pub fn cell(object: &Value, field: &str) -> String {
    match object.get(field) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(s)) if s.is_empty() => "-".into(),
        Some(Value::String(s)) => one_line(s),
        Some(other) => other.to_string(),
    }
}

/// Columns as wide as their widest cell, two blanks apart.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(&mut head.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

pub fn nodes(nodes: &[Value]) -> String {
    let fields = ["name", "uuid", "power_state", "provision_state", "maintenance"];
    rows(&["NAME", "UUID", "POWER", "STATE", "MAINTENANCE"], &fields, nodes)
}

pub fn ports(ports: &[Value]) -> String {
    rows(&["MAC", "UUID", "NODE"], &["address", "uuid", "node_uuid"], ports)
}

fn rows(head: &[&str], fields: &[&str], objects: &[Value]) -> String {
    let rows: Vec<Vec<String>> =
        objects.iter().map(|o| fields.iter().map(|f| cell(o, f)).collect()).collect();
    table(head, &rows)
}

pub fn drivers(drivers: &[Value]) -> String {
    let hosts = |d: &Value| {
        let list = d.get("hosts").and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(one_line).collect::<Vec<_>>().join(", ")
    };
    let rows: Vec<Vec<String>> = drivers.iter().map(|d| vec![cell(d, "name"), hosts(d)]).collect();
    table(&["DRIVER", "CONTROLLERS"], &rows)
}

/// What is worth knowing of a node, a field a line; objects one key a line.
pub fn node(node: &Value) -> String {
    const FIELDS: [&str; 14] = [
        "name",
        "uuid",
        "driver",
        "provision_state",
        "target_provision_state",
        "power_state",
        "target_power_state",
        "maintenance",
        "maintenance_reason",
        "last_error",
        "resource_class",
        "instance_uuid",
        "created_at",
        "updated_at",
    ];
    let mut rows: Vec<(String, String)> = FIELDS.iter().map(|f| ((*f).to_string(), cell(node, f))).collect();
    if let Some(reason) = wait_reason(node) {
        rows.insert(5, ("waiting for".into(), one_line(&reason)));
    }
    if let Some(line) = image_write(node) {
        rows.push(("image write".into(), line));
    }
    for group in ["driver_info", "properties", "instance_info"] {
        let Some(Value::Object(map)) = node.get(group) else { continue };
        let held = Value::Object(map.clone());
        rows.extend(map.keys().map(|key| (format!("{group}.{}", one_line(key)), cell(&held, key))));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// The account of the last image write in one line, if there is one.
pub fn image_write(node: &Value) -> Option<String> {
    WriteReport::read(node.pointer("/driver_internal_info/image_write")?).map(|report| report.to_string())
}

/// Why the controller waits, if it does.
pub fn wait_reason(node: &Value) -> Option<String> {
    node.pointer("/driver_internal_info/wait/reason").and_then(Value::as_str).map(str::to_string)
}

/// The checks of a node, and whether what a deployment needs is in order.
pub fn validation(checks: &Value) -> (String, bool) {
    const NEEDED: [&str; 4] = ["boot", "deploy", "management", "power"];
    let mut good = true;
    let mut rows = Vec::new();
    for (name, check) in checks.as_object().into_iter().flatten() {
        let result = check.get("result").and_then(Value::as_bool);
        good &= result != Some(false) || !NEEDED.contains(&name.as_str());
        let word = match result {
            Some(true) => "ok",
            Some(false) => "NO",
            None => "-",
        };
        rows.push(vec![one_line(name), word.into(), cell(check, "reason")]);
    }
    (table(&["INTERFACE", "RESULT", "REASON"], &rows), good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let list = [
            json!({"name": "rack1-node7", "uuid": "u1", "power_state": "power on", "provision_state": "active", "maintenance": false}),
            json!({"name": null, "uuid": "u22", "power_state": null, "provision_state": "enroll", "maintenance": true}),
        ];
        assert_eq!(
            nodes(&list),
            "NAME         UUID  POWER     STATE   MAINTENANCE\n\
             rack1-node7  u1    power on  active  false\n\
             -            u22   -         enroll  true\n"
        );
        assert_eq!(ports(&[]), "MAC  UUID  NODE\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let evil = json!({"name": "a\u{1b}[2Jb\nc", "uuid": "u"});
        let out = nodes(&[evil]);
        assert!(out.contains("a?[2Jb c") && !out.contains('\u{1b}'), "{out}");
        assert_eq!(printable("a\r\nb\u{9b}"), "a?\nb?");
    }

    #[test]
    fn a_node_shows_its_error_whole_and_what_it_waits_for() {
        let out = node(
            &json!({"name": "a", "last_error": "first line\nsecond", "driver_info": {"ipmi_address": "10.0.0.9"},
            "driver_internal_info": {"wait": {"reason": "the ramdisk's heartbeat"},
                                     "image_write": WriteReport::default().shown()}}),
        );
        assert!(out.contains("image write               0 MiB received at 0 MiB/s, "), "{out}");
        assert!(out.contains("last_error                first line second\n"), "{out}");
        assert!(out.contains("waiting for               the ramdisk's heartbeat\n"), "{out}");
        assert!(out.contains("driver_info.ipmi_address  10.0.0.9\n"), "{out}");
    }

    #[test]
    fn only_checks_that_a_deployment_needs_make_it_bad() {
        let (text, good) =
            validation(&json!({"power": {"result": true}, "raid": {"result": false, "reason": "none"}}));
        assert!(good && text.contains("raid       NO      none"), "{text}");
        let (_, good) = validation(&json!({"deploy": {"result": false, "reason": "no image_source"}}));
        assert!(!good);
    }
}
