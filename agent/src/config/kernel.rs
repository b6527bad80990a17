//! The kernel parameters: one table of all that is read, by whom, and of those that are known and do nothing. Pure.
//!
//! `docs/kernel-parameters.md` shows the same table; a test below holds them together.

use std::collections::{BTreeMap, BTreeSet};

/// What a parameter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Is the default of this option; a config file beats it.
    Option(&'static str),
    /// Read where it is needed; no config file can set it.
    Read,
    /// Known, and not acted on. Said at the start, so that nobody waits for its effect.
    Nothing,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub does: Does,
    /// For an operator: what it is for, or what happens in its place.
    pub words: &'static str,
}

const fn option(name: &'static str, option: &'static str, words: &'static str) -> Parameter {
    Parameter { name, does: Does::Option(option), words }
}

const fn read(name: &'static str, words: &'static str) -> Parameter {
    Parameter { name, does: Does::Read, words }
}

const fn nothing(name: &'static str, words: &'static str) -> Parameter {
    Parameter { name, does: Does::Nothing, words }
}

/// Every parameter, in the order of the document.
pub const PARAMETERS: &[Parameter] = &[
    // whom to call
    option(
        "ipa-api-url",
        "api_url",
        "addresses of the controller, with commas; the next is tried when one does not answer",
    ),
    option("ipa-agent-token", "agent_token", "the token of this boot, where the boot medium carries it"),
    option("ipa-ironic-api-version", "ironic_api_version", "API version, in place of asking for it"),
    option("ipa-global-request-id", "global_request_id", "sent as X-OpenStack-Request-ID with every call"),
    option(
        "ipa-lookup-timeout",
        "lookup_timeout",
        "seconds until a lookup without success ends the agent, which starts again; 600",
    ),
    option("ipa-lookup-interval", "lookup_interval", "shortest pause between lookups, seconds; 1"),
    option("ipa-http-request-timeout", "http_request_timeout", "seconds for one call to the controller; 30"),
    option("ipa-insecure", "insecure", "checks no server's certificate; said at each start"),
    option("ipa-debug", "debug", "more words; the one parameter that beats the config files"),
    // where we are
    option("ipa-listen-host", "listen_host", "address of the command API; all, IPv6 and IPv4"),
    option("ipa-listen-port", "listen_port", "port of the command API; 9999"),
    option(
        "ipa-advertise-host",
        "advertise_host",
        "address or name told to the controller; that of the route to it",
    ),
    option("ipa-advertise-port", "advertise_port", "port told to the controller; the one listened on"),
    option(
        "ipa-advertise-protocol",
        "advertise_protocol",
        "http or https; https wherever there is a certificate",
    ),
    option(
        "ipa-network-interface",
        "network_interface",
        "tells the controller the address of this interface",
    ),
    option("ipa-ip-lookup-attempts", "ip_lookup_attempts", "tries to find the own address; 6"),
    option("ipa-ip-lookup-timeout", "ip_lookup_sleep", "seconds between them; 10"),
    option("ipa-tls-min-version", "tls_min_version", "1.2 or 1.3, both directions; 1.2"),
    option(
        "ipa-tls-cipher-suites",
        "tls_cipher_suites",
        "suites of TLS 1.2 by OpenSSL's full names, with colons; all, and where none is named (HIGH): ECDHE with AES-GCM or ChaCha20-Poly1305",
    ),
    option("ipa-tls-certificate-curve", "tls_certificate_curve", "p256, p384 or p521 (made as p384); p384"),
    // network
    read("BOOTIF", "MAC of the interface the machine was booted from: its default route is preferred"),
    read(
        "ipa-enable-vlan-interfaces",
        "tagged interfaces to make, with commas: IFACE.ID or MAC.ID; IFACE, MAC or all alone: those that a switch names by LLDP",
    ),
    read(
        "boot_method",
        "vmedia: parameters, config files and network_data.json are taken from the boot medium first",
    ),
    read("ir_pub_id", "a boot medium whose publisher is another is left alone"),
    option(
        "ipa-ntp-server",
        "ntp_server",
        "time servers, with commas; asked before the certificate is made, and before the machine is switched off",
    ),
    // disks and images
    option(
        "ipa-hardware-initialization-delay",
        "hardware_initialization_delay",
        "seconds before anything else; 0",
    ),
    option("ipa-disk-wait-attempts", "disk_wait_attempts", "looks for the root disk; 10"),
    option("ipa-disk-wait-delay", "disk_wait_delay", "seconds between them; 3"),
    option(
        "ipa-image-download-connection-timeout",
        "image_download_connection_timeout",
        "seconds without a connection, or without a byte, that end a try; 20 and 60",
    ),
    option(
        "ipa-image-download-connection-retries",
        "image_download_connection_retries",
        "tries after the first that bring less than 1 MiB, for each address, and of the whole; 4",
    ),
    option(
        "ipa-image-download-connection-retry-interval",
        "image_download_connection_retry_interval",
        "seconds before the second of them, doubling up to 60; 1",
    ),
    option(
        "ipa-image-download-max-duration",
        "image_download_max_duration",
        "seconds that a whole image may take; 0, no such limit",
    ),
    option(
        "ipa-ignore-bootloader-failure",
        "ignore_bootloader_failure",
        "an image without a boot entry is no failure",
    ),
    option(
        "ferric-config-drive-rebuild",
        "config_drive_rebuild",
        "every config drive is made anew as FAT, not only one that Linux would not mount from the disk; off",
    ),
    option("ferric-verify", "verify", "sample or all: how much of an image is read back from the disk"),
    read("ferric-ssh-key", "developer SSH for these keys, TYPE:BASE64 with commas; off without it"),
    option(
        "ipa-guard-special-filesystems",
        "guard_special_filesystems",
        "file systems that other machines share are not erased; on",
    ),
    option(
        "ipa-enable-discard-erase",
        "enable_discard_erase",
        "a disk whose own erase command failed may be discarded",
    ),
    option(
        "ipa-inject-files-priority",
        "inject_files_priority",
        "priority at which each deployment injects files, up to 99; 0: where a template asks for it",
    ),
    // inspection
    option(
        "ipa-inspection-callback-url",
        "inspection_callback_url",
        "addresses that take the data, with commas; asks for inspection",
    ),
    option(
        "ipa-inspection-collectors",
        "inspection_collectors",
        "what is collected, with commas; default,logs",
    ),
    option(
        "ipa-inspection-dhcp-wait-timeout",
        "inspection_dhcp_wait_timeout",
        "seconds that interfaces may take to get an address; 60",
    ),
    option(
        "ipa-inspection-dhcp-all-interfaces",
        "inspection_dhcp_all_interfaces",
        "waits for all interfaces, not only the one that was booted from",
    ),
    option("ipa-collect-lldp", "collect_lldp", "LLDP frames also go into the inventory"),
    option("ipa-lldp-timeout", "lldp_timeout", "seconds in which all interfaces listen to LLDP; 30"),
    // known, and not acted on
    nothing("ipa-inspection-benchmarks", "no benchmarks are built in"),
    nothing(
        "ipa-use-mdns",
        "multicast DNS is not asked, as anybody may answer; name the controller in ipa-api-url",
    ),
    nothing("ipa-standalone", "the agent always has a controller; ferric-agent write deploys without one"),
    nothing("ipa-driver-name", "drivers are the controller's; no Python agent of today reads it either"),
    nothing("ipa-agent-token-required", "a token is always required"),
    nothing("sshkey", "of the Python agent's ramdisk; here ferric-ssh-key=TYPE:BASE64 lets a developer in"),
    nothing(
        "rootpwd",
        "of the Python agent's ramdisk; nobody gets in by a password here, see ferric-ssh-key",
    ),
];

/// Splits a kernel command line: white space, first `=`, later duplicates win, no quotes.
pub fn parameters(cmdline: &str) -> BTreeMap<String, String> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// Parameters that are defaults of options, with the option.
pub fn options() -> impl Iterator<Item = (&'static str, &'static str)> {
    PARAMETERS.iter().filter_map(|parameter| match parameter.does {
        Does::Option(option) => Some((parameter.name, option)),
        Does::Read | Does::Nothing => None,
    })
}

/// A line for each parameter that was given and does nothing, or that nobody knows, or that has no value. One that asks for
/// what happens anyway (`ipa-use-mdns=0`) is none.
pub fn told(cmdline: &str) -> Vec<String> {
    let given = parameters(cmdline);
    let bare = cmdline.split_whitespace().filter(|word| is_ours(word) && !word.contains('='));
    let bare: BTreeSet<&str> = bare.filter(|word| !given.contains_key(*word)).collect();
    let valueless = bare.into_iter().map(|name| {
        let name = printable(name);
        format!(
            "kernel parameter {name} is without a value and not heeded; write {name}=1 or what it is to be"
        )
    });
    given.iter().filter_map(|(name, value)| unheeded(name, value)).chain(valueless).collect()
}

fn unheeded(name: &str, value: &str) -> Option<String> {
    match PARAMETERS.iter().find(|parameter| parameter.name == name) {
        Some(Parameter { does: Does::Nothing, words, .. }) if !happens_anyway(name, value) => {
            Some(format!("kernel parameter {name} does nothing here: {words}"))
        }
        Some(_) => None,
        None if is_ours(name) => {
            let name = printable(name);
            Some(match meant(&name) {
                Some(meant) => format!("kernel parameter {name} is not known; is {meant} meant?"),
                None => format!("kernel parameter {name} is not known; check its spelling"),
            })
        }
        None => None,
    }
}

/// Whether a parameter that does nothing asks for what happens without it.
fn happens_anyway(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match name {
        "ipa-agent-token-required" => matches!(value.as_str(), "" | "1" | "true" | "on" | "yes"),
        _ => matches!(value.as_str(), "" | "0" | "false" | "off" | "no"),
    }
}

/// Whether a word of the command line speaks to an agent, right or wrong.
fn is_ours(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["ipa-", "ipa_", "ferric-", "ferric_"].iter().any(|prefix| word.starts_with(prefix))
}

/// The parameter whose name is at most two slips away.
fn meant(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let near = PARAMETERS.iter().map(|parameter| (slips(&name, parameter.name), parameter.name));
    near.filter(|(slips, _)| *slips <= 2).min().map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn slips(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (at, letter) in from.chars().enumerate() {
        let (mut diagonal, mut left) = (at, at.saturating_add(1));
        for (cell, other) in row.iter_mut().skip(1).zip(to.chars()) {
            let changed = diagonal.saturating_add(usize::from(letter != other));
            diagonal = *cell;
            left = changed.min(left.min(diagonal).saturating_add(1));
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at.saturating_add(1);
        }
    }
    row.last().copied().unwrap_or_default()
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn what_has_no_effect_is_told_and_what_asks_for_nothing_is_not() {
        for (words, said) in [
            (
                "quiet root=x BOOTIF=a ipa-debug=1 ipa-collect-lldp=false ipa-guard-special-filesystems=no",
                None,
            ),
            ("ipa-inspection-benchmarks= ipa-use-mdns=False ipa-agent-token-required=True", None),
            (
                "ipa-use-mdns=1",
                Some(
                    "ipa-use-mdns does nothing here: multicast DNS is not asked, as anybody may answer; name the controller in \
                     ipa-api-url",
                ),
            ),
            (
                "ipa-agent-token-required=0",
                Some("ipa-agent-token-required does nothing here: a token is always required"),
            ),
            (
                "rootpwd=secret",
                Some(
                    "rootpwd does nothing here: of the Python agent's ramdisk; nobody gets in by a password here, see \
                     ferric-ssh-key",
                ),
            ),
            ("ipa-lokup-timeout=3", Some("ipa-lokup-timeout is not known; is ipa-lookup-timeout meant?")),
            ("ipa_api_url=http://a", Some("ipa_api_url is not known; is ipa-api-url meant?")),
            ("IPA-DEBUG=1", Some("IPA-DEBUG is not known; is ipa-debug meant?")),
            ("ferric-verfy=all", Some("ferric-verfy is not known; is ferric-verify meant?")),
            ("ipa-colour=red", Some("ipa-colour is not known; check its spelling")),
            (
                "ipa-debug",
                Some("ipa-debug is without a value and not heeded; write ipa-debug=1 or what it is to be"),
            ),
            ("ipa-debug ipa-debug=1", None),
        ] {
            let said: Vec<String> = said.iter().map(|said| format!("kernel parameter {said}")).collect();
            assert_eq!(told(words), said, "{words}");
        }
    }

    /// The parameters that any ironic-python-agent from 1.0.0 to 13.0.0 read, as its sources name them.
    #[test]
    fn every_parameter_of_the_python_agent_is_in_the_table() {
        for name in "advertise-host advertise-port advertise-protocol agent-token agent-token-required api-url collect-lldp debug \
                     disk-wait-attempts disk-wait-delay driver-name enable-discard-erase enable-vlan-interfaces \
                     global-request-id guard-special-filesystems hardware-initialization-delay http-request-timeout \
                     ignore-bootloader-failure image-download-connection-retries image-download-connection-retry-interval \
                     image-download-connection-timeout image-download-max-duration inject-files-priority insecure \
                     inspection-benchmarks inspection-callback-url inspection-collectors inspection-dhcp-all-interfaces \
                     inspection-dhcp-wait-timeout ip-lookup-attempts ip-lookup-timeout ironic-api-version listen-host \
                     listen-port lldp-timeout lookup-interval lookup-timeout network-interface ntp-server standalone \
                     tls-certificate-curve tls-cipher-suites tls-min-version use-mdns"
            .split_whitespace()
        {
            assert!(PARAMETERS.iter().any(|p| p.name == format!("ipa-{name}")), "ipa-{name}");
        }
    }

    #[test]
    fn the_later_duplicate_wins_and_the_first_equals_sign_splits() {
        let found = parameters("a=1 b a=2=3\tc=\n");
        assert_eq!(found.get("a").map(String::as_str), Some("2=3"));
        assert_eq!((found.get("c").map(String::as_str), found.len()), (Some(""), 2));
    }

    #[test]
    fn no_parameter_stands_in_the_table_twice() {
        let names: BTreeSet<&str> = PARAMETERS.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PARAMETERS.len());
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    /// The page is the table, row by row, in the same order: change either and this names the row.
    #[test]
    fn the_page_shows_every_parameter_and_no_other() {
        let page = fs::read_to_string(repository().join("docs/kernel-parameters.md")).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted: Vec<String> = PARAMETERS
            .iter()
            .map(|p| match p.does {
                Does::Option(option) => format!("| `{}` | `{option}` | {} |", p.name, p.words),
                Does::Read => format!("| `{}` | – | {} |", p.name, p.words),
                Does::Nothing => format!("| `{}` | no effect | {} |", p.name, p.words),
            })
            .collect();
        for (row, wanted) in rows.iter().zip(&wanted) {
            assert_eq!(row, wanted);
        }
        assert_eq!(rows.len(), wanted.len(), "the page and the table differ in length");
    }

    /// Whatever parameter the agent's code names is in the table.
    #[test]
    fn no_code_reads_a_parameter_that_the_table_does_not_name() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap();
                    for name in named(code) {
                        seen += 1;
                        let known = PARAMETERS.iter().any(|p| p.name == name);
                        assert!(known, "{} names {name}, which is not in the table", path.display());
                    }
                }
            }
        }
        assert!(seen > PARAMETERS.len() / 2, "the search found only {seen} names");
    }

    /// Words that begin with `ipa-`, and `ferric-…=` in string literals.
    fn named(code: &str) -> Vec<String> {
        let word = |at: &str| -> String {
            at.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
        };
        let mut found = Vec::new();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("ipa-") {
                found.extend(Some(word(&line[at..])).filter(|w| w.len() > 4));
            }
            for (at, _) in line.match_indices("\"ferric-") {
                let name = word(&line[at + 1..]);
                if line[at + 1 + name.len()..].starts_with('=') {
                    found.push(name);
                }
            }
        }
        found
    }
}
