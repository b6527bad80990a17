//! One line that says what a node does: state, what it waits for, and how far the image is. Pure.

use super::render::{image_write, one_line, wait_reason};
use ferric_common::events::Progress;
use ferric_common::units::{GIB, MIB};
use serde_json::Value;

const BAR: usize = 24;

/// What is happening to a node, as far as the API tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub state: String,
    pub target: Option<String>,
    pub reason: Option<String>,
    pub last_error: Option<String>,
    pub progress: Option<Progress>,
    /// What the last image write came to, in one line.
    pub written: Option<String>,
}

impl Status {
    pub fn of(node: &Value) -> Status {
        let text = |field: &str| node.get(field).and_then(Value::as_str).map(str::to_string);
        let progress = node.pointer("/driver_internal_info/progress").cloned();
        Status {
            state: text("provision_state").unwrap_or_else(|| "unknown".into()),
            target: text("target_provision_state"),
            reason: wait_reason(node),
            last_error: text("last_error"),
            progress: progress.and_then(|p| serde_json::from_value(p).ok()),
            written: image_write(node),
        }
    }

    /// The line. Bytes come after the words, so that a terminal too narrow cuts the least.
    pub fn line(&self) -> String {
        let mut parts = vec![one_line(&self.state)];
        // What the image does says more than "waiting for the agent" while it runs.
        match (&self.progress, &self.target) {
            (Some(progress), Some(_)) => parts.push(progress_text(progress)),
            _ => parts.extend(self.reason.as_deref().map(one_line)),
        }
        parts.retain(|part| !part.is_empty());
        parts.join("  ")
    }

    /// What must be shown at once when it changes; progress alone may wait.
    pub fn headline(&self) -> (String, Option<String>, Option<String>) {
        (self.state.clone(), self.reason.clone(), self.progress.as_ref().map(|p| p.stage.clone()))
    }
}

fn progress_text(p: &Progress) -> String {
    let mut out = String::new();
    if let Some(total) = p.bytes_total.filter(|total| *total > 0) {
        let done = p.bytes_done.min(total);
        let part =
            |of: usize| usize::try_from(u128::from(done) * of as u128 / u128::from(total)).unwrap_or(of);
        let full = part(BAR);
        out.push_str(&format!("[{}{}] {:>3}%  ", "#".repeat(full), ".".repeat(BAR - full), part(100)));
    }
    out.push_str(&one_line(&p.stage));
    out.push_str(&format!("  {}", size(p.bytes_done)));
    if let Some(total) = p.bytes_total {
        out.push_str(&format!(" of {}", size(total)));
    }
    if p.rate > 0 {
        out.push_str(&format!("  {}/s", size(p.rate)));
    }
    if p.bytes_written > 0 {
        out.push_str(&format!("  {} on disk", size(p.bytes_written)));
    }
    if !p.note.is_empty() {
        out.push_str(&format!("  {}", one_line(&p.note)));
    }
    out
}

/// Bytes with one decimal in the largest binary unit. For a line that changes each second; exact numbers are elsewhere.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..MIB => (1024, "KiB"),
        MIB..GIB => (MIB, "MiB"),
        _ => (GIB, "GiB"),
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(internal: Value) -> String {
        let node = json!({"provision_state": "deploying", "target_provision_state": "active", "driver_internal_info": internal});
        Status::of(&node).line()
    }

    #[test]
    fn the_line_says_state_reason_or_progress() {
        let wait = json!({"reason": "the ramdisk has not called back yet"});
        assert_eq!(line(json!({"wait": wait})), "deploying  the ramdisk has not called back yet");
        let progress = json!({"stage": "writing", "bytes_done": GIB, "bytes_total": 2 * GIB, "bytes_written": 3 * MIB,
            "rate": 310 * MIB, "seconds": 4, "note": ""});
        assert_eq!(
            line(json!({"wait": wait, "progress": progress})),
            "deploying  [############............]  50%  writing  1.0 GiB of 2.0 GiB  310.0 MiB/s  3.0 MiB on disk"
        );
        let unknown = json!({"stage": "writing", "bytes_done": 500, "bytes_total": null, "rate": 0, "seconds": 1, "note": "try 2"});
        assert_eq!(line(json!({"progress": unknown})), "deploying  writing  500 B  try 2");
        assert_eq!(line(json!({})), "deploying");
    }

    #[test]
    fn numbers_that_cannot_be_are_survived() {
        let more = json!({"stage": "writing", "bytes_done": u64::MAX, "bytes_total": 1, "rate": u64::MAX, "seconds": 0});
        assert!(line(json!({"progress": more})).contains("100%"));
        assert_eq!(line(json!({"progress": {"stage": 7}, "wait": 3})), "deploying");
        assert_eq!(
            line(
                json!({"progress": {"stage": "x", "bytes_done": 1, "bytes_total": 0, "rate": 0, "seconds": 0}})
            ),
            "deploying  x  1 B of 0 B"
        );
    }

    #[test]
    fn progress_of_a_work_that_is_over_is_not_shown() {
        let node = json!({"provision_state": "active", "target_provision_state": null,
            "driver_internal_info": {"progress": {"stage": "writing", "bytes_done": 1, "bytes_total": 1, "rate": 1, "seconds": 1}}});
        assert_eq!(Status::of(&node).line(), "active");
    }
}
