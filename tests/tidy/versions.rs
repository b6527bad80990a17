//! Versions of dependencies stand in one place.

use crate::tree::{Source, assert_none, files, source};

fn own_versions(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let mut in_dependencies = false;
    for (line, number) in source.text.lines().map(str::trim).zip(1..) {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.trim_end_matches(']').contains("dependencies");
            // `[dependencies.name]` would hide a version on a line of its own.
            if in_dependencies && section.contains("dependencies.") {
                faults.push(format!("{}:{number}: write dependencies as name.workspace = true", source.path));
            }
            continue;
        }
        let is_entry = in_dependencies && !line.is_empty() && !line.starts_with('#') && line.contains('=');
        if is_entry && !line.contains(".workspace = true") && !line.contains("workspace = true") {
            faults.push(format!(
                "{}:{number}: {line}: versions stand in the root Cargo.toml only",
                source.path
            ));
        }
    }
    faults
}

#[test]
fn dependency_versions_stand_in_the_root_only() {
    let crates =
        files(&["Cargo.toml"]).into_iter().filter(|s| s.path != "Cargo.toml" && !s.path.contains("fuzz/"));
    assert_none(crates.flat_map(|s| own_versions(&s)).collect());
}

#[test]
fn a_version_outside_the_root_is_seen() {
    let fault = |text: &str| own_versions(&source("a/Cargo.toml", text)).len();
    assert_eq!(fault("[package]\nversion = \"1\"\n[dependencies]\nserde = \"1\"\n"), 1);
    assert_eq!(fault("[dev-dependencies]\nserde = { version = \"1\", features = [] }\n"), 1);
    assert_eq!(fault("[dependencies.serde]\nversion = \"1\"\n"), 2);
    assert_eq!(
        fault("[dependencies]\n# why\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n"),
        0
    );
}
