//! Who may import whom.

use std::fs;

use crate::tree::{Source, assert_none, code_files, root, source, without_tests};

/// A wall: in files below (or at) these paths, none of these words may stand outside comments and tests.
pub struct Wall {
    pub rooms: &'static [&'static str],
    forbidden: &'static [&'static str],
    /// Files below the rooms that the wall does not hold.
    pub but: &'static [&'static str],
    why: &'static str,
}

const CLOCKS: &str = "::now()";

/// Who may import whom. Arrows and reasons are drawn in ARCHITECTURE.md.
pub const WALLS: &[Wall] = &[
    // ---- agent
    Wall {
        rooms: &["agent/src/platform"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
        ],
        but: &[],
        why: "platform is the floor that all rooms stand on",
    },
    Wall {
        rooms: &["agent/src/inventory", "agent/src/network", "agent/src/init"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
        ],
        but: &[],
        why: "these run before the agent's life begins, or without it",
    },
    Wall {
        rooms: &["agent/src/disk"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::executor",
            "crate::image",
            "tokio",
            "reqwest",
        ],
        but: &[],
        why: "disk lays out and wipes; image and commands call it",
    },
    Wall {
        rooms: &[
            "agent/src/disk/layout.rs",
            "agent/src/disk/choose.rs",
            "agent/src/disk/erase/plan.rs",
            "agent/src/disk/erase/settings.rs",
        ],
        forbidden: &["std::fs", "std::io", "platform::block", CLOCKS],
        but: &[],
        why: "pure: bytes and facts in, a plan out",
    },
    Wall {
        rooms: &["agent/src/image"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::executor",
            "crate::inventory",
        ],
        but: &[],
        why: "the pipeline knows nothing of who asked for the image",
    },
    Wall {
        rooms: &["agent/src/bootloader"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::executor",
            "crate::image",
            "tokio",
        ],
        but: &[],
        why: "a boot entry is made from bytes and names; commands join it with the disk",
    },
    Wall {
        rooms: &[
            "agent/src/bootloader/entry.rs",
            "agent/src/bootloader/loader.rs",
            "agent/src/bootloader/path.rs",
            "agent/src/bootloader/plan.rs",
            "agent/src/bootloader/table.rs",
        ],
        forbidden: &["std::fs", "std::io", "crate::platform", CLOCKS],
        but: &[],
        why: "pure: bytes and names in, a decision out",
    },
    Wall {
        rooms: &["agent/src/conductor"],
        forbidden: &["crate::api", "crate::commands", "crate::disk", "crate::executor", "crate::image"],
        but: &[],
        why: "the heartbeat never waits for a command",
    },
    Wall {
        rooms: &["agent/src/conductor/schedule.rs"],
        forbidden: &["tokio", CLOCKS, "std::net"],
        but: &[],
        why: "pure: time comes in as a value",
    },
    Wall {
        rooms: &["agent/src/commands"],
        forbidden: &["crate::api", "crate::conductor"],
        but: &[],
        why: "a command does not know how it was asked for",
    },
    Wall {
        rooms: &["agent/src/api"],
        forbidden: &["crate::disk", "crate::image", "crate::inventory"],
        but: &[],
        why: "the API hands commands to the executor",
    },
    Wall {
        rooms: &["agent/src"],
        forbidden: &["Command::new", "process::Command"],
        but: &["agent/src/platform"],
        why: "only platform starts programs",
    },
    Wall {
        rooms: &["agent/src"],
        forbidden: &["platform::child", "linux::child", "LinuxPrograms", "Programs"],
        but: &[
            "agent/src/platform",
            "agent/src/outside",
            // They hold what starts the programs and hand it to the one function that may.
            "agent/src/commands/context.rs",
            "agent/src/run/context.rs",
        ],
        why: "no program is started but for a step that an operator brought along",
    },
    Wall {
        rooms: &["agent/src/outside"],
        forbidden: &[
            "crate::api",
            "crate::commands",
            "crate::conductor",
            "crate::disk",
            "crate::image",
            "tokio",
        ],
        but: &[],
        why: "a step from outside knows a program and an order; commands say what is in the order",
    },
    Wall {
        rooms: &["agent/src/outside/manifest.rs", "agent/src/outside/protocol.rs"],
        forbidden: &["std::fs", "std::io", "crate::platform", CLOCKS],
        but: &[],
        why: "pure: bytes in, values out",
    },
    Wall {
        rooms: &["agent/src", "common/src"],
        forbidden: &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"],
        but: &["agent/src/platform"],
        why: "unsafe code is for platform alone",
    },
    // ---- controller
    Wall {
        rooms: &["controller/src/domain"],
        forbidden: &[
            "tokio",
            "crate::api",
            "crate::boot",
            "crate::conductor",
            "crate::drivers",
            "crate::ramdisk",
            "crate::store",
            "std::fs",
            "std::process",
            CLOCKS,
        ],
        but: &[],
        why: "domain decides and does nothing",
    },
    Wall {
        rooms: &["controller/src/configdrive.rs", "controller/src/configdrive"],
        forbidden: &["tokio", "std::fs", "crate::", CLOCKS],
        but: &[],
        why: "pure: data in, a medium out",
    },
    Wall {
        rooms: &["controller/src/api"],
        // The words of the drivers (a boot device's name) may be used; the drivers may not.
        forbidden: &[
            "crate::drivers::{",
            "drivers::fake",
            "drivers::ipmi",
            "drivers::registry",
            "PowerInterface",
            "ManagementInterface",
            "crate::ramdisk",
        ],
        but: &[],
        why: "a request becomes an intent; the conductor acts",
    },
    Wall {
        rooms: &["controller/src/drivers"],
        forbidden: &["crate::store", "crate::api", "crate::conductor", "crate::ramdisk", "crate::boot"],
        but: &[],
        why: "a driver never sees the store",
    },
    Wall {
        rooms: &["controller/src/ramdisk"],
        forbidden: &["crate::store", "crate::api", "crate::drivers", "crate::boot"],
        but: &[],
        why: "a client of the agent's API and no more",
    },
    Wall {
        rooms: &["controller/src/store"],
        forbidden: &["crate::api", "crate::boot", "crate::conductor", "crate::drivers", "crate::ramdisk"],
        but: &[],
        why: "the store keeps what it is given",
    },
    Wall {
        rooms: &["controller/src/boot"],
        forbidden: &["crate::api", "crate::drivers", "crate::ramdisk", "crate::store"],
        but: &[],
        why: "machines that boot reach nodes through the conductor only",
    },
    Wall {
        rooms: &[
            "controller/src/boot/dhcp_reply.rs",
            "controller/src/boot/ipxe.rs",
            "controller/src/boot/leases.rs",
        ],
        forbidden: &["tokio", "UdpSocket", "std::fs", CLOCKS],
        but: &[],
        why: "pure: a request in, a reply out",
    },
    Wall {
        rooms: &["controller/src"],
        forbidden: &["rusqlite"],
        but: &["controller/src/store"],
        why: "only the store knows SQL",
    },
    Wall {
        rooms: &["controller/src/cli"],
        forbidden: &["ferric_controller::", "rusqlite"],
        but: &[],
        why: "the command line speaks REST like any other client",
    },
    Wall {
        rooms: &["controller/src"],
        forbidden: &["Command::new", "process::Command"],
        but: &[],
        why: "the controller starts no program: a password in an argument list is readable by all",
    },
    // ---- the others
    Wall {
        rooms: &["initramfs-build/src"],
        forbidden: &["ferric_agent", "ferric_controller"],
        but: &[],
        why: "the ramdisk packs files; what is in them is their crates' business",
    },
    Wall {
        rooms: &["tests"],
        forbidden: &[
            "ferric_common::wire",
            "ferric_common::hints",
            "ferric_common::{",
            "ferric_agent::",
            "ferric_controller::",
        ],
        but: &["tests/tidy"],
        why: "black box: a shared type would hide a shared mistake",
    },
];

fn breaches(walls: &[Wall], source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for wall in walls {
        let is_held = wall.rooms.iter().any(|room| source.is_below(room));
        if !is_held || wall.but.iter().any(|room| source.is_below(room)) {
            continue;
        }
        for (number, line) in source.code() {
            for word in wall.forbidden.iter().filter(|word| has_word(line, word)) {
                faults.push(format!("{}:{number}: {word}: {}", source.path, wall.why));
            }
        }
    }
    faults
}

/// Whether `word` stands in the line and does not go on as a longer name (`crate::api` is not in `crate::apiary`).
fn has_word(line: &str, word: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(goes_on) || !before.is_some_and(goes_on);
        starts && !(word.ends_with(goes_on) && after.is_some_and(goes_on))
    })
}

#[test]
fn no_room_reaches_through_a_wall() {
    assert_none(code_files().iter().flat_map(|s| breaches(WALLS, s)).collect());
}

#[test]
fn common_is_no_std() {
    let lib = fs::read_to_string(root().join("common/src/lib.rs")).unwrap();
    assert!(lib.contains("\n#![no_std]\n"), "common must not be able to open a file, a socket or a clock");
    let outside_tests: String =
        without_tests(&lib).into_iter().map(|(_, line)| format!("{line}\n")).collect();
    assert!(!outside_tests.contains("extern crate std"));
}

#[test]
fn a_wall_falls_to_an_import_and_not_to_a_comment_or_a_test() {
    let fault = |path: &str, text: &str| breaches(WALLS, &source(path, text)).len();
    assert_eq!(fault("controller/src/domain/node.rs", "//! x\nuse crate::store::Node;\n"), 1);
    assert_eq!(fault("controller/src/domain/node.rs", "//! x\nlet t = Instant::now();\n"), 1);
    assert_eq!(fault("controller/src/domain.rs", "use crate::store::Node;"), 0);
    assert_eq!(
        fault(
            "controller/src/domain/node.rs",
            "// not crate::store\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n"
        ),
        0
    );
    assert_eq!(
        fault("controller/src/domain/node.rs", "#[cfg(test)]\nmod tests {\n    a();\n}\nuse tokio::time;\n"),
        1
    );
    assert_eq!(fault("controller/src/domain/node.rs", "use crate::storehouse;"), 0);
    assert_eq!(fault("agent/src/image/x.rs", "Command::new(\"sh\")"), 1);
    assert_eq!(fault("agent/src/platform/x.rs", "Command::new(\"sh\")"), 0);
    assert_eq!(fault("agent/src/disk/x.rs", "unsafe { x() }"), 1);
}
