//! Options of config files that do nothing here: those of the reference agent with the reason, all others as misspelt. Pure.

use super::ini::Written;
use super::kernel::{self, Does};
use std::collections::BTreeSet;

/// An option that ironic-python-agent 13.0.0 has, what to know about it, and the values that ask for what happens anyway.
struct Known {
    name: &'static str,
    words: &'static str,
    anyway: &'static [&'static str],
}

const OFF: &[&str] = &["", "0", "false", "off", "no"];
const ON: &[&str] = &["", "1", "true", "on", "yes"];

const fn known(name: &'static str, anyway: &'static [&'static str], words: &'static str) -> Known {
    Known { name, words, anyway }
}

const KNOWN: &[Known] = &[
    known("auto_tls_allowed_clock_skew", &[], "the certificate always begins 24 hours in the past"),
    known("disable_deep_image_inspection", OFF, "every image is looked through before it is written"),
    known("disable_bootc_deploy", ON, "there are no bootc deployments"),
    known("enable_bios_bootloader_install", OFF, "no boot loader is installed for a BIOS"),
    known("introspection_daemon", OFF, "the agent inspects once, at its start"),
    known("introspection_daemon_post_interval", &[], "the agent inspects once, at its start"),
    known("log_file", &[], "the log goes to the console and, by collect_system_logs, to the controller"),
    known("log_dir", &[], "the log goes to the console and, by collect_system_logs, to the controller"),
    known(
        "mdns.use_mdns",
        OFF,
        "multicast DNS is not asked, as anybody may answer; name the controller in api_url",
    ),
];

/// Groups of the reference agent whose options all do nothing here.
const GROUPS: [(&str, &str); 6] = [
    ("container.", "there are no steps in containers; see docs/steps.md for steps of your own"),
    ("disk_partitioner.", "no program partitions the disk, so nothing is waited for"),
    ("disk_utils.", "partition images are not deployed and no program converts images"),
    ("mdns.", "multicast DNS is not asked, as anybody may answer; name the controller in api_url"),
    ("metrics.", "there are no metrics by statsd"),
    ("metrics_statsd.", "there are no metrics by statsd"),
];

/// A line for each option that nobody asked for, unless it asks for what happens anyway.
pub(super) fn told(written: &Written, asked: &BTreeSet<&'static str>) -> Vec<String> {
    let line = |(name, value): (&String, &String)| match asked.contains(name.as_str()) {
        true => None,
        false => reason(name, value).map(|why| format!("option {name} {why}")),
    };
    written.iter().filter_map(line).collect()
}

fn reason(name: &str, value: &str) -> Option<String> {
    if let Some(known) = KNOWN.iter().find(|known| known.name == name) {
        let value = value.to_ascii_lowercase();
        let anyway = known.anyway.contains(&value.as_str());
        return (!anyway).then(|| format!("does nothing here: {}", known.words));
    }
    if let Some((_, words)) = GROUPS.iter().find(|(group, _)| name.starts_with(group)) {
        return Some(format!("does nothing here: {words}"));
    }
    let parameter = format!("ipa-{}", name.replace('_', "-"));
    if kernel::PARAMETERS.iter().any(|known| known.name == parameter && known.does == Does::Read) {
        return Some(format!("does nothing in a config file: give {parameter} to the kernel"));
    }
    Some("is not known; check its spelling".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn options_of_the_python_agent_have_their_reason_and_others_are_misspelt() {
        for (file, said) in [
            ("introspection_daemon = False", None),
            (
                "disable_deep_image_inspection = yes",
                Some("does nothing here: every image is looked through before it is written"),
            ),
            (
                "[container]\nrunner = docker",
                Some(
                    "does nothing here: there are no steps in containers; see docs/steps.md for steps of your own",
                ),
            ),
            (
                "enable_vlan_interfaces = eth0.5",
                Some("does nothing in a config file: give ipa-enable-vlan-interfaces to the kernel"),
            ),
            ("lokup_timeout = 3", Some("is not known; check its spelling")),
            ("lookup_timeout = 3", None),
        ] {
            let told = parse("ipa-api-url=http://a", &[("a.conf".into(), file.into())], &[]).unwrap().told;
            let wanted: Vec<&str> = said.into_iter().collect();
            let found: Vec<&str> = told.iter().filter_map(|line| line.splitn(3, ' ').nth(2)).collect();
            assert_eq!(found, wanted, "{file}");
        }
    }
}
