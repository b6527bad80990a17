//! Takes boot entries of earlier systems out of the firmware (step `clean_uefi_nvram`).

use super::{BootError, path, plan};
use crate::platform::efi::EfiVariables;
use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

/// Entries that an installed system leaves behind: ironic-python-agent's defaults.
const DEFAULTS: &[&str] = &[r"^HD\(", r"shim.*\.efi", r"grub.*\.efi"];
/// Patterns, and bytes of one.
const MOST: usize = 64;
const LONGEST: usize = 1024;

/// The argument `match_patterns`: a list of regular expressions, upper and lower case being the same; absent or null: the
/// defaults. `None` if it is anything else.
pub fn patterns(given: Option<&Value>) -> Option<Vec<Regex>> {
    let compile = |text: &str| {
        let builder = (text.len() <= LONGEST).then(|| RegexBuilder::new(text))?;
        { builder }.case_insensitive(true).build().ok()
    };
    match given {
        None | Some(Value::Null) => DEFAULTS.iter().map(|text| compile(text)).collect(),
        Some(Value::Array(list)) if list.len() <= MOST => {
            list.iter().map(|text| compile(text.as_str()?)).collect()
        }
        Some(_) => None,
    }
}

/// Removes the entries whose device path any of the patterns is found in. What was removed, in words.
///
/// # Errors
/// [`BootError`]. Entries that were taken out of the order are still there then.
pub fn remove(variables: &dyn EfiVariables, patterns: &[Regex]) -> Result<Vec<String>, BootError> {
    let existing = super::existing(variables)?;
    let matching = existing.iter().filter_map(|(number, bytes)| {
        let path = path::text(bytes)?;
        patterns.iter().any(|pattern| pattern.is_match(&path)).then_some((*number, path))
    });
    let gone: Vec<(u16, String)> = matching.collect();
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<u16> = gone.iter().map(|(number, _)| *number).collect();
    for change in plan::without(&super::order(variables)?, &numbers) {
        super::carry_out(variables, change)?;
    }
    Ok(gone.into_iter().map(|(number, path)| format!("Boot{number:04X} {path}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootloader::entry::{Entry, Place, Signature};
    use crate::platform::fake::efi::MemVariables;
    use serde_json::json;

    fn firmware() -> MemVariables {
        let variables = MemVariables::default();
        let disk = |loader: &str| Entry {
            description: "x".into(),
            place: Place { number: 1, first: 2048, sectors: 8, signature: Signature::Gpt([7; 16]) },
            loader: loader.into(),
        };
        // `Pci(0x3,0x0)/MAC(…)`: the network card.
        let card = [1, 0, 0, 0, 10, 0, b'P', 0, 0, 0, 1, 1, 6, 0, 0, 3, 0x7f, 0xff, 4, 0];
        variables.write("Boot0000", &card).unwrap();
        variables.write("Boot0001", &disk("\\EFI\\debian\\shimx64.efi").encode()).unwrap();
        variables.write("Boot0004", &disk("\\EFI\\Microsoft\\bootmgfw.efi").encode()).unwrap();
        variables.write("BootOrder", &[1, 0, 0, 0, 4, 0]).unwrap();
        variables.write("Timeout", &[0, 0]).unwrap();
        variables
    }

    fn after(given: Value) -> (Vec<String>, Vec<u8>, usize) {
        let variables = firmware();
        let gone = remove(&variables, &patterns(Some(&given)).unwrap()).unwrap();
        let names =
            variables.snapshot().keys().filter(|name| plan::number(name).is_some()).cloned().collect();
        (names, variables.read("BootOrder").unwrap().unwrap(), gone.len())
    }

    #[test]
    fn what_was_installed_goes_and_the_network_card_stays() {
        assert_eq!(after(Value::Null), (vec!["Boot0000".into()], vec![0, 0], 2));
        let windows = json!(["BOOTMGFW"]);
        assert_eq!(after(windows), (vec!["Boot0000".into(), "Boot0001".into()], vec![1, 0, 0, 0], 1));
        let nothing = json!(["no such thing"]);
        assert_eq!(after(nothing).1, [1, 0, 0, 0, 4, 0]);
        assert_eq!(after(json!([])).2, 0);
    }

    #[test]
    fn patterns_that_are_none_are_refused() {
        assert_eq!(patterns(None).unwrap().len(), 3);
        for wrong in [json!("^HD"), json!([1]), json!(["("]), json!({"a": 1}), json!(["x".repeat(2000)])] {
            assert!(patterns(Some(&wrong)).is_none(), "{wrong}");
        }
    }
}
