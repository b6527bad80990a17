//! What the conductor wishes about erasing, from a node's `driver_internal_info`. Pure. Names and defaults are
//! ironic-python-agent's.

use serde_json::{Map, Value};

/// Disks that are erased at once, at most.
const MOST_AT_ONCE: u64 = 64;
/// Random passes, at most.
const MOST_PASSES: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Passes of random bytes when a disk is overwritten.
    pub random_passes: u32,
    /// Whether zeros are written last.
    pub zeros_last: bool,
    /// Whether a disk is overwritten when its own erase command failed.
    pub overwrite_after_failure: bool,
    /// Whether a disk may be discarded when its own erase command failed.
    pub discard_after_failure: bool,
    pub nvme: bool,
    pub ata: bool,
    pub at_once: usize,
    pub skip_read_only: bool,
}

impl Settings {
    pub fn read(info: &Map<String, Value>) -> Settings {
        let flag = |name: &str| info.get(name).and_then(Value::as_bool);
        let count = |name: &str, default: u64, most: u64| {
            info.get(name).and_then(Value::as_u64).unwrap_or(default).min(most)
        };
        Settings {
            random_passes: u32::try_from(count("agent_erase_devices_iterations", 1, MOST_PASSES))
                .unwrap_or(1),
            zeros_last: flag("agent_erase_devices_zeroize").unwrap_or(true),
            // The second is the name of conductors before 2022.
            overwrite_after_failure: flag("agent_continue_if_secure_erase_failed")
                .or_else(|| flag("agent_continue_if_ata_erase_failed"))
                .unwrap_or(false),
            discard_after_failure: flag("agent_enable_discard_erase").unwrap_or(false),
            nvme: flag("agent_enable_nvme_secure_erase").unwrap_or(true),
            ata: flag("agent_enable_ata_secure_erase").unwrap_or(true),
            at_once: usize::try_from(count("disk_erasure_concurrency", 1, MOST_AT_ONCE)).unwrap_or(1).max(1),
            skip_read_only: flag("agent_erase_skip_read_only").unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn without_a_word_the_drive_erases_and_nothing_falls_back() {
        let none = Settings::read(&Map::new());
        let expected = Settings {
            random_passes: 1,
            zeros_last: true,
            overwrite_after_failure: false,
            discard_after_failure: false,
            nvme: true,
            ata: true,
            at_once: 1,
            skip_read_only: false,
        };
        assert_eq!(none, expected);
    }

    #[test]
    fn what_a_conductor_sends_is_followed_within_bounds() {
        let read = |value: Value| Settings::read(value.as_object().unwrap());
        let all = read(json!({
            "agent_erase_devices_iterations": 3, "agent_erase_devices_zeroize": false,
            "agent_continue_if_secure_erase_failed": true, "agent_enable_discard_erase": true,
            "agent_enable_nvme_secure_erase": false, "agent_enable_ata_secure_erase": false,
            "disk_erasure_concurrency": 4, "agent_erase_skip_read_only": true,
        }));
        assert_eq!((all.random_passes, all.zeros_last, all.at_once), (3, false, 4));
        assert!(all.overwrite_after_failure && all.discard_after_failure && all.skip_read_only);
        assert!(!all.nvme && !all.ata);
        assert!(read(json!({"agent_continue_if_ata_erase_failed": true})).overwrite_after_failure);
        let newer = json!({"agent_continue_if_ata_erase_failed": true, "agent_continue_if_secure_erase_failed": false});
        assert!(!read(newer).overwrite_after_failure, "the newer name counts");
        let wild = read(json!({"disk_erasure_concurrency": 0, "agent_erase_devices_iterations": u64::MAX}));
        assert_eq!((wild.at_once, wild.random_passes), (1, 100));
    }
}
