//! Hardware types and the interface names that each knows, first name = default. Pure data; what an interface does is in
//! `drivers` and `conductor`.

/// A way to manage machines, as `node.driver` names it.
pub struct HardwareType {
    pub name: &'static str,
    pub interfaces: &'static [(&'static str, &'static [&'static str])],
    /// `driver_info` keys with their descriptions.
    pub properties: &'static [(&'static str, &'static str)],
}

/// The 13 kinds, in the order in which clients list them.
pub const KINDS: &[&str] = &[
    "bios",
    "boot",
    "console",
    "deploy",
    "firmware",
    "inspect",
    "management",
    "network",
    "power",
    "raid",
    "rescue",
    "storage",
    "vendor",
];

/// First microversion that shows `<kind>_interface`.
pub fn since(kind: &str) -> u16 {
    match kind {
        "network" => 20,
        "storage" => 33,
        "rescue" => 38,
        "bios" => 40,
        "firmware" => 86,
        _ => 31,
    }
}

const BOOT_PROPERTIES: &[(&str, &str)] = &[
    ("deploy_kernel", "path or file:// URL of the ramdisk's kernel, if not the configured one. Optional."),
    ("deploy_ramdisk", "path or file:// URL of the ramdisk, if not the configured one. Optional."),
    (
        "kernel_append_params",
        "further kernel parameters for the ramdisk; %default% stands for the configured ones. Optional.",
    ),
];

pub const HARDWARE_TYPES: &[HardwareType] = &[
    HardwareType {
        name: "fake-hardware",
        interfaces: &[
            ("bios", &["fake", "no-bios"]),
            ("boot", &["fake", "ipxe"]),
            ("console", &["fake", "no-console"]),
            ("deploy", &["fake", "direct", "autodetect"]),
            ("firmware", &["fake", "no-firmware"]),
            ("inspect", &["fake", "agent", "no-inspect"]),
            ("management", &["fake", "noop"]),
            ("network", &["noop", "flat"]),
            ("power", &["fake"]),
            ("raid", &["fake", "agent", "no-raid"]),
            ("rescue", &["fake", "agent", "no-rescue"]),
            ("storage", &["noop", "fake"]),
            ("vendor", &["fake", "no-vendor"]),
        ],
        properties: BOOT_PROPERTIES,
    },
    HardwareType {
        name: "ipmi",
        interfaces: &[
            ("bios", &["no-bios"]),
            ("boot", &["ipxe", "pxe"]),
            ("console", &["no-console"]),
            ("deploy", &["autodetect", "direct"]),
            ("firmware", &["no-firmware"]),
            ("inspect", &["agent", "no-inspect"]),
            ("management", &["ipmitool", "noop"]),
            ("network", &["noop", "flat"]),
            ("power", &["ipmitool"]),
            ("raid", &["no-raid", "agent"]),
            ("rescue", &["no-rescue", "agent"]),
            ("storage", &["noop"]),
            ("vendor", &["no-vendor", "ipmitool"]),
        ],
        properties: &[
            ("ipmi_address", "IP address or hostname of the BMC. Required."),
            ("ipmi_username", "user name; defaults to the null user. Optional."),
            ("ipmi_password", "password of that user. Optional."),
            ("ipmi_port", "UDP port of the BMC. Default: 623."),
            (
                "ipmi_priv_level",
                "privilege asked for: ADMINISTRATOR, OPERATOR, USER. Default: ADMINISTRATOR.",
            ),
            ("ipmi_cipher_suite", "cipher suite to use instead of 17, then 3. Optional."),
            ("ipmi_hex_kg_key", "BMC key Kg, 40 hexadecimal digits. Optional."),
            (
                "deploy_kernel",
                "path or file:// URL of the ramdisk's kernel, if not the configured one. Optional.",
            ),
            ("deploy_ramdisk", "path or file:// URL of the ramdisk, if not the configured one. Optional."),
            (
                "kernel_append_params",
                "further kernel parameters for the ramdisk; %default% stands for the configured ones. Optional.",
            ),
        ],
    },
];

/// The hardware type of this name.
pub fn hardware_type(name: &str) -> Option<&'static HardwareType> {
    HARDWARE_TYPES.iter().find(|t| t.name == name)
}

impl HardwareType {
    /// Interface names of a kind, the default first.
    pub fn names(&self, kind: &str) -> &'static [&'static str] {
        self.interfaces.iter().find(|(k, _)| *k == kind).map_or(&[], |(_, names)| names)
    }
    /// The name that a node gets where none is given.
    pub fn default_for(&self, kind: &str) -> &'static str {
        self.names(kind).first().copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hardware_type_has_a_default_for_every_kind() {
        for hardware in HARDWARE_TYPES {
            for kind in KINDS {
                assert!(!hardware.default_for(kind).is_empty(), "{} {kind}", hardware.name);
            }
            assert_eq!(hardware.interfaces.len(), KINDS.len());
        }
    }
}
