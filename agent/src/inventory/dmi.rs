//! Firmware, processors and memory modules from the SMBIOS tables (DMTF DSP0134, types 0, 4, 16 and 17), under the labels that
//! `dmidecode` prints, which rules for inspection data were written against. A code that this table does not name is shown as
//! its number.

use super::smbios::{self, Structure};
use serde_json::{Map, Value, json};
use std::path::Path;

const UNKNOWN: &str = "Unknown";
const NOT_PROVIDED: &str = "Not Provided";

/// `None` on a machine without tables.
pub fn read(sys: &Path) -> Option<Value> {
    Some(decode(&smbios::table(sys)?))
}

fn decode(table: &[u8]) -> Value {
    let of = |kind: u8, with: fn(&Structure<'_>) -> Map<String, Value>| -> Vec<Value> {
        smbios::structures(table)
            .filter(|one| one.kind == kind)
            .map(|one| Value::Object(with(&one)))
            .collect()
    };
    let arrays: Vec<Structure<'_>> = smbios::structures(table).filter(|one| one.kind == 16).collect();
    let mut memory = arrays.first().map(array).unwrap_or_default();
    if !arrays.is_empty() {
        let devices: u64 = arrays.iter().filter_map(|one| one.word(0x0d)).map(u64::from).sum();
        memory.insert("Number Of Devices".to_owned(), devices.into());
    }
    memory.insert("devices".to_owned(), of(17, device).into());
    json!({
        "bios": of(0, bios).pop().unwrap_or_else(|| json!({})),
        "cpu": of(4, processor),
        "memory": memory,
    })
}

fn labelled<const N: usize>(one: &Structure<'_>, fields: [(&str, Option<String>); N]) -> Map<String, Value> {
    let handle = format!("Handle 0x{:04X}, DMI type {}, {} bytes", one.handle(), one.kind, one.length());
    let mut found = Map::new();
    found.insert("Handle".to_owned(), handle.into());
    found.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    found
}

fn said(one: &Structure<'_>, at: usize) -> Option<String> {
    one.byte(at)?;
    Some(one.text(at).unwrap_or_else(|| "Not Specified".to_owned()))
}

fn named(names: &[&str], code: Option<u8>) -> Option<String> {
    let code = code?;
    let name = usize::from(code).checked_sub(1).and_then(|at| names.get(at));
    Some(name.map_or_else(|| format!("0x{code:02X}"), |name| (*name).to_owned()))
}

/// A number with its unit; 0 is unknown.
fn measured(value: Option<u64>, unit: &str) -> Option<String> {
    value.map(|value| if value == 0 { UNKNOWN.to_owned() } else { format!("{value} {unit}") })
}

fn bios(one: &Structure<'_>) -> Map<String, Value> {
    let segment = one.word(6).filter(|segment| *segment != 0);
    let runtime = segment.map(|segment| (0x1_0000 - u64::from(segment)) << 4);
    let rom = one.byte(9).map(|units| match (units, one.word(0x18)) {
        (0xff, Some(extended)) => {
            let unit = if extended >> 14 == 1 { "GB" } else { "MB" };
            format!("{} {unit}", extended & 0x3fff)
        }
        (units, _) => size_of_kib((u64::from(units) + 1) * 64),
    });
    let release = |major: usize| match (one.byte(major), one.byte(major + 1)) {
        (Some(0xff), _) | (_, None) | (None, _) => None,
        (Some(major), Some(minor)) => Some(format!("{major}.{minor}")),
    };
    let mut found = labelled(
        one,
        [
            ("Vendor", said(one, 4)),
            ("Version", said(one, 5)),
            ("Release Date", said(one, 8)),
            ("Address", segment.map(|segment| format!("0x{segment:04X}0"))),
            (
                "Runtime Size",
                runtime.map(|bytes| match bytes & 0x3ff {
                    0 => format!("{} kB", bytes >> 10),
                    _ => format!("{bytes} bytes"),
                }),
            ),
            ("ROM Size", rom),
            ("BIOS Revision", release(0x14)),
            ("Firmware Revision", release(0x16)),
        ],
    );
    found.insert("Characteristics".to_owned(), bios_characteristics(one).into());
    found
}

/// Those that tell machines apart today; most of the others speak of floppy disks.
fn bios_characteristics(one: &Structure<'_>) -> Vec<&'static str> {
    let bits = one.quad(0x0a).unwrap_or_default();
    let (first, second) = (one.byte(0x12).unwrap_or_default(), one.byte(0x13).unwrap_or_default());
    [
        (bits & 1 << 3 != 0, "BIOS characteristics not supported"),
        (bits & 1 << 7 != 0, "PCI is supported"),
        (bits & 1 << 11 != 0, "BIOS is upgradeable"),
        (bits & 1 << 12 != 0, "BIOS shadowing is allowed"),
        (bits & 1 << 15 != 0, "Boot from CD is supported"),
        (bits & 1 << 16 != 0, "Selectable boot is supported"),
        (bits & 1 << 19 != 0, "EDD is supported"),
        (first & 1 != 0, "ACPI is supported"),
        (first & 2 != 0, "USB legacy is supported"),
        (second & 1 != 0, "BIOS boot specification is supported"),
        (second & 2 != 0, "Function key-initiated network boot is supported"),
        (second & 4 != 0, "Targeted content distribution is supported"),
        (second & 8 != 0, "UEFI is supported"),
        (second & 16 != 0, "System is a virtual machine"),
    ]
    .into_iter()
    .filter_map(|(set, words)| set.then_some(words))
    .collect()
}

const PROCESSOR_TYPES: &[&str] =
    &["Other", UNKNOWN, "Central Processor", "Math Processor", "DSP Processor", "Video Processor"];
const PROCESSOR_STATES: &[&str] = &["Enabled", "Disabled By User", "Disabled By BIOS", "Idle"];

fn processor(one: &Structure<'_>) -> Map<String, Value> {
    let family = match (one.byte(6), one.word(0x28)) {
        (Some(0xfe), Some(family)) => Some(family),
        (family, _) => family.map(u16::from),
    };
    let id =
        one.bytes(8, 8).map(|id| id.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" "));
    let status = one.byte(0x18).map(|status| match status & 0x40 {
        0 => "Unpopulated".to_owned(),
        _ => {
            let state = named(PROCESSOR_STATES, Some(status & 7)).filter(|_| status & 7 != 0);
            format!("Populated, {}", state.as_deref().unwrap_or(UNKNOWN))
        }
    });
    let voltage = one.byte(0x11).map(|code| match code {
        code if code & 0x80 != 0 => format!("{}.{} V", (code & 0x7f) / 10, (code & 0x7f) % 10),
        code => {
            let listed = [(1, "5.0 V"), (2, "3.3 V"), (4, "2.9 V")];
            let volts: Vec<&str> =
                listed.into_iter().filter(|(bit, _)| code & bit != 0).map(|(_, v)| v).collect();
            if volts.is_empty() { UNKNOWN.to_owned() } else { volts.join(" ") }
        }
    });
    let cache = |at: usize| {
        one.word(at).map(|handle| match handle {
            0xffff => NOT_PROVIDED.to_owned(),
            handle => format!("0x{handle:04X}"),
        })
    };
    let count = |short: usize, long: usize| match (one.byte(short), one.word(long)) {
        (Some(0xff), Some(count)) => Some(count.to_string()),
        (count, _) => count.filter(|count| *count != 0).map(|count| count.to_string()),
    };
    let mhz = |at: usize| measured(one.word(at).map(u64::from), "MHz");
    let mut found = labelled(
        one,
        [
            ("Socket Designation", said(one, 4)),
            ("Type", named(PROCESSOR_TYPES, one.byte(5))),
            ("Family", family.map(family_name)),
            ("Manufacturer", said(one, 7)),
            ("ID", id),
            ("Version", said(one, 0x10)),
            ("Voltage", voltage),
            ("External Clock", mhz(0x12)),
            ("Max Speed", mhz(0x14)),
            ("Current Speed", mhz(0x16)),
            ("Status", status),
            ("Upgrade", named(&["Other", UNKNOWN, "Daughter Board", "ZIF Socket"], one.byte(0x19))),
            ("L1 Cache Handle", cache(0x1a)),
            ("L2 Cache Handle", cache(0x1c)),
            ("L3 Cache Handle", cache(0x1e)),
            ("Serial Number", said(one, 0x20)),
            ("Asset Tag", said(one, 0x21)),
            ("Part Number", said(one, 0x22)),
            ("Core Count", count(0x23, 0x2a)),
            ("Core Enabled", count(0x24, 0x2c)),
            ("Thread Count", count(0x25, 0x2e)),
        ],
    );
    if let Some(bits) = one.word(0x26) {
        let known = [
            (2, "64-bit capable"),
            (3, "Multi-Core"),
            (4, "Hardware Thread"),
            (5, "Execute Protection"),
            (6, "Enhanced Virtualization"),
            (7, "Power/Performance Control"),
        ];
        let set: Vec<&str> =
            known.into_iter().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name).collect();
        let value = if set.is_empty() { json!("None") } else { json!(set) };
        found.insert("Characteristics".to_owned(), value);
    }
    found
}

fn family_name(code: u16) -> String {
    let names = [
        (0x01, "Other"),
        (0x02, UNKNOWN),
        (0x6b, "Zen"),
        (0xb3, "Xeon"),
        (0xc6, "Core i7"),
        (0xcd, "Core i5"),
        (0xce, "Core i3"),
        (0x101, "ARMv8"),
        (0x102, "ARMv9"),
    ];
    names
        .into_iter()
        .find(|(number, _)| *number == code)
        .map_or_else(|| format!("0x{code:02X}"), |(_, name)| name.into())
}

const LOCATIONS: &[&str] = &["Other", UNKNOWN, "System Board Or Motherboard"];
const USES: &[&str] =
    &["Other", UNKNOWN, "System Memory", "Video Memory", "Flash Memory", "Non-volatile RAM", "Cache Memory"];
const CORRECTIONS: &[&str] = &["Other", UNKNOWN, "None", "Parity", "Single-bit ECC", "Multi-bit ECC", "CRC"];

fn array(one: &Structure<'_>) -> Map<String, Value> {
    let capacity = match one.double(7) {
        Some(0x8000_0000) => one.quad(0x0f).map(|bytes| size_of_kib(bytes >> 10)),
        kib => kib.map(|kib| size_of_kib(kib.into())),
    };
    let mut found = labelled(
        one,
        [
            ("Location", named(LOCATIONS, one.byte(4))),
            ("Use", named(USES, one.byte(5))),
            ("Error Correction Type", named(CORRECTIONS, one.byte(6))),
            ("Maximum Capacity", capacity),
            ("Error Information Handle", error_handle(one.word(0x0b))),
        ],
    );
    // As the reference agent: the sum below speaks for several arrays.
    found.remove("Handle");
    found
}

const FORMS: &[&str] = &[
    "Other",
    UNKNOWN,
    "SIMM",
    "SIP",
    "Chip",
    "DIP",
    "ZIP",
    "Proprietary Card",
    "DIMM",
    "TSOP",
    "Row Of Chips",
    "RIMM",
    "SODIMM",
    "SRIMM",
    "FB-DIMM",
    "Die",
];
const TYPES: &[&str] = &[
    "Other",
    UNKNOWN,
    "DRAM",
    "EDRAM",
    "VRAM",
    "SRAM",
    "RAM",
    "ROM",
    "Flash",
    "EEPROM",
    "FEPROM",
    "EPROM",
    "CDRAM",
    "3DRAM",
    "SDRAM",
    "SGRAM",
    "RDRAM",
    "DDR",
    "DDR2",
    "DDR2 FB-DIMM",
    "0x15",
    "0x16",
    "0x17",
    "DDR3",
    "FBD2",
    "DDR4",
    "LPDDR",
    "LPDDR2",
    "LPDDR3",
    "LPDDR4",
    "Logical non-volatile device",
    "HBM",
    "HBM2",
    "DDR5",
    "LPDDR5",
    "HBM3",
];
const DETAILS: &[(u32, &str)] = &[
    (1, "Other"),
    (2, UNKNOWN),
    (3, "Fast-paged"),
    (4, "Static Column"),
    (5, "Pseudo-static"),
    (6, "RAMBus"),
    (7, "Synchronous"),
    (8, "CMOS"),
    (9, "EDO"),
    (10, "Window DRAM"),
    (11, "Cache DRAM"),
    (12, "Non-Volatile"),
    (13, "Registered (Buffered)"),
    (14, "Unbuffered (Unregistered)"),
    (15, "LRDIMM"),
];

fn device(one: &Structure<'_>) -> Map<String, Value> {
    let width = |at: usize| {
        one.word(at).map(|bits| match bits {
            0 | 0xffff => UNKNOWN.to_owned(),
            bits => format!("{bits} bits"),
        })
    };
    let size = one.word(0x0c).map(|size| match size {
        0 => "No Module Installed".to_owned(),
        0xffff => UNKNOWN.to_owned(),
        0x7fff => size_of_kib(u64::from(one.double(0x1c).unwrap_or_default() & 0x7fff_ffff) << 10),
        kib if kib & 0x8000 != 0 => size_of_kib(u64::from(kib & 0x7fff)),
        mib => size_of_kib(u64::from(mib) << 10),
    });
    let set = one.byte(0x0f).map(|set| match set {
        0 => "None".to_owned(),
        0xff => UNKNOWN.to_owned(),
        set => set.to_string(),
    });
    let detail = one.word(0x13).map(|bits| {
        let set: Vec<&str> = DETAILS
            .iter()
            .filter(|(bit, _)| bits.checked_shr(*bit).unwrap_or(0) & 1 == 1)
            .map(|(_, name)| *name)
            .collect();
        if set.is_empty() { "None".to_owned() } else { set.join(" ") }
    });
    let speed = |short: usize, long: usize| match (one.word(short), one.double(long)) {
        (Some(0xffff), Some(long)) => measured(Some(long.into()), "MT/s"),
        (speed, _) => measured(speed.map(u64::from), "MT/s"),
    };
    let rank = one.byte(0x1b).map(|rank| match rank & 0x0f {
        0 => UNKNOWN.to_owned(),
        rank => rank.to_string(),
    });
    let volts = |at: usize| {
        one.word(at).map(|millivolts| match millivolts {
            0 => UNKNOWN.to_owned(),
            whole if whole % 100 == 0 => format!("{}.{} V", whole / 1000, whole % 1000 / 100),
            fine => format!("{}.{:03} V", fine / 1000, fine % 1000),
        })
    };
    labelled(
        one,
        [
            ("Array Handle", one.word(4).map(|handle| format!("0x{handle:04X}"))),
            ("Error Information Handle", error_handle(one.word(6))),
            ("Total Width", width(8)),
            ("Data Width", width(0x0a)),
            ("Size", size),
            ("Form Factor", named(FORMS, one.byte(0x0e))),
            ("Set", set),
            ("Locator", said(one, 0x10)),
            ("Bank Locator", said(one, 0x11)),
            ("Type", named(TYPES, one.byte(0x12))),
            ("Type Detail", detail),
            ("Speed", speed(0x15, 0x54)),
            ("Manufacturer", said(one, 0x17)),
            ("Serial Number", said(one, 0x18)),
            ("Asset Tag", said(one, 0x19)),
            ("Part Number", said(one, 0x1a)),
            ("Rank", rank),
            ("Configured Memory Speed", speed(0x20, 0x58)),
            ("Minimum Voltage", volts(0x22)),
            ("Maximum Voltage", volts(0x24)),
            ("Configured Voltage", volts(0x26)),
        ],
    )
}

fn error_handle(handle: Option<u16>) -> Option<String> {
    handle.map(|handle| match handle {
        0xfffe => NOT_PROVIDED.to_owned(),
        0xffff => "No Error".to_owned(),
        handle => format!("0x{handle:04X}"),
    })
}

/// In the largest unit that is exact, from kB up.
fn size_of_kib(kib: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB"];
    let steps = if kib == 0 { 0 } else { (kib.trailing_zeros() / 10).min(4) };
    let unit = usize::try_from(steps).ok().and_then(|at| units.get(at)).copied().unwrap_or("kB");
    format!("{} {unit}", kib >> (10 * steps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A structure of `length` zeros but for the bytes given, and its texts.
    fn structure(kind: u8, handle: u16, length: u8, bytes: &[(usize, &[u8])], texts: &str) -> Vec<u8> {
        let mut out = vec![0; usize::from(length)];
        out[0] = kind;
        out[1] = length;
        out[2..4].copy_from_slice(&handle.to_le_bytes());
        for (at, bytes) in bytes {
            out[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        out.extend_from_slice(texts.as_bytes());
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// The machine of the recorded inspection, as its firmware describes it.
    fn recorded() -> Vec<u8> {
        let bios = structure(
            0,
            0,
            24,
            &[(4, &[1, 2, 0, 0xe8, 3, 0, 8]), (0x13, &[4, 0, 0, 0xff, 0xff])],
            "SeaBIOS\x001.16.3-debian-1.16.3-2~bpo12+1\x0004/01/2014",
        );
        let cpu = structure(
            4,
            0x400,
            42,
            &[
                (4, &[1, 3, 1, 2, 0xb1, 0x0f, 6, 0, 0xfd, 0xfb, 0x8b, 0x17, 3, 0, 0, 0]),
                (0x14, &[0xd0, 7, 0xd0, 7, 0x41, 1]),
                (0x1a, &[0xff; 6]),
                (0x23, &[2, 2, 2]),
                (0x28, &[1, 0]),
            ],
            "CPU 0\0QEMU\0pc-i440fx-10.0",
        );
        let array = structure(16, 0x1000, 23, &[(4, &[1, 3, 6, 0, 0, 0x30, 0, 0xfe, 0xff, 1, 0])], "");
        let module = structure(
            17,
            0x1100,
            40,
            &[(4, &[0, 0x10, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x0c, 9, 0, 1, 0, 7, 2]), (0x17, &[2])],
            "DIMM 0\0QEMU",
        );
        [bios, cpu, array, module, structure(127, 0x7f00, 4, &[], "")].concat()
    }

    #[test]
    fn the_recorded_machine_is_described_as_dmidecode_described_it() {
        let lines = include_str!("../../../tests/golden/traces/vm-inspect-all-collectors.jsonl").lines();
        let exchange = lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|exchange| exchange["url"] == "/v1/continue_inspection")
            .unwrap();
        assert_eq!(decode(&recorded()), exchange["req_body"]["dmi"]);
    }

    #[test]
    fn a_server_module_has_its_numbers_in_large_units() {
        let module = structure(
            17,
            0x20,
            0x5c,
            &[
                (8, &[72, 0, 64, 0, 0xff, 0x7f, 9, 0, 1, 2, 0x22]),
                (0x13, &[0x80, 0x20, 0xff, 0xff]),
                (0x1b, &[2, 0, 0, 1, 0]),
                (0x20, &[0xc0, 0x12, 0x4c, 4, 0x4c, 4, 0x4c, 4]),
                (0x54, &[0xc0, 0x12, 0, 0]),
            ],
            "A1\0Bank",
        );
        let found = &decode(&module)["memory"]["devices"][0];
        for (label, value) in [
            ("Size", "64 GB"),
            ("Total Width", "72 bits"),
            ("Type", "DDR5"),
            ("Type Detail", "Synchronous Registered (Buffered)"),
            ("Speed", "4800 MT/s"),
            ("Configured Memory Speed", "4800 MT/s"),
            ("Configured Voltage", "1.1 V"),
            ("Rank", "2"),
            ("Bank Locator", "Bank"),
        ] {
            assert_eq!(found[label], value, "{label}");
        }
    }

    proptest! {
        #[test]
        fn no_table_makes_the_reader_panic(table in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..4) {
            let mut table = table;
            if let Some(first) = table.first_mut() {
                *first = [0, 4, 16, 17][kind];
            }
            let _ = decode(&table);
        }
    }
}
