//! Which files of an EFI system partition are loaders, and under which names they are entered. Pure.
//!
//! Source: ironic-python-agent's `BOOTLOADERS_EFI`, without the loaders of other processors: firmware cannot start those.

use super::esp::Esp;

/// Files that say which loader is meant and what it is called (shim's `BOOTX64.CSV`, rEFInd's `BOOT.CSV`).
const HINTS: &[&str] =
    if cfg!(target_arch = "aarch64") { &["bootaa64.csv", "boot.csv"] } else { &["bootx64.csv", "boot.csv"] };
/// Loaders by name.
const LOADERS: &[&str] = if cfg!(target_arch = "aarch64") {
    &["bootaa64.efi", "grubaa64.efi"]
} else {
    &["bootx64.efi", "winload.efi"]
};

/// A loader, as it goes into an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    pub label: String,
    pub path: String,
}

/// Whether the content of this file is asked for.
pub fn is_hint(path: &str) -> bool {
    is_one_of(HINTS, path)
}

/// The loaders, the one to try first in front: the one that a hint names, else every known one.
pub fn loaders(esp: &Esp) -> Vec<Loader> {
    if let Some(loader) = esp.hints.iter().find_map(|(path, bytes)| hinted(esp, path, bytes)) {
        return vec![loader];
    }
    let known = esp.files.iter().filter(|path| is_one_of(LOADERS, path));
    known
        .zip(1..)
        .map(|(path, number)| Loader { label: format!("ironic{number}"), path: on_disk(path) })
        .collect()
}

fn is_one_of(names: &[&str], path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The loader that a hint names, `file,label,options,description`, if it is there. An entry for a file that is missing
/// would be tried first and fail.
fn hinted(esp: &Esp, path: &str, bytes: &[u8]) -> Option<Loader> {
    let text = text_of(bytes);
    let mut fields = text.lines().next()?.split(',').map(str::trim);
    let (file, label) = (fields.next().filter(|f| !f.is_empty())?, fields.next().filter(|l| !l.is_empty())?);
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let wanted = format!("{folder}{}", file.replace('\\', "/").trim_start_matches('/'));
    let found = esp.files.iter().find(|known| known.eq_ignore_ascii_case(&wanted))?;
    Some(Loader { label: label.to_owned(), path: on_disk(found) })
}

/// UTF-16 with or without its mark, as the format wants it; else UTF-8, which some make all the same.
fn text_of(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| read(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ if bytes.contains(&0) => utf16(bytes, u16::from_le_bytes),
        _ => String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}').to_owned(),
    }
}

fn on_disk(path: &str) -> String {
    format!("\\{}", path.replace('/', "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esp(files: &[&str], hints: &[(&str, Vec<u8>)]) -> Esp {
        Esp {
            files: files.iter().map(|path| path.to_string()).collect(),
            hints: hints.iter().map(|(path, bytes)| (path.to_string(), bytes.clone())).collect(),
        }
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn named(loaders: &[Loader]) -> Vec<(&str, &str)> {
        loaders.iter().map(|loader| (loader.label.as_str(), loader.path.as_str())).collect()
    }

    const DEBIAN: &[&str] = &[
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/BOOT/fbx64.efi",
        "EFI/debian/BOOTX64.CSV",
        "EFI/debian/grubx64.efi",
        "EFI/debian/shimx64.efi",
    ];

    #[test]
    fn a_hint_names_loader_and_label_in_every_encoding() {
        let text = "shimx64.efi,debian,,This is the boot entry for debian\n";
        for bytes in [
            utf16(text),
            [vec![0xff, 0xfe], utf16(text)].concat(),
            [vec![0xfe, 0xff], text.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat(),
            text.as_bytes().to_vec(),
        ] {
            let esp = esp(DEBIAN, &[("EFI/debian/BOOTX64.CSV", bytes)]);
            assert_eq!(named(&loaders(&esp)), [("debian", "\\EFI\\debian\\shimx64.efi")]);
        }
        let shouting = esp(DEBIAN, &[("EFI/debian/BOOTX64.CSV", utf16("SHIMX64.EFI, Debian"))]);
        assert_eq!(named(&loaders(&shouting)), [("Debian", "\\EFI\\debian\\shimx64.efi")]);
    }

    #[test]
    fn a_hint_that_leads_nowhere_is_passed_over() {
        for text in ["gone.efi,debian,,", "", ",debian", "shimx64.efi", "shimx64.efi,", "\u{feff}"] {
            let esp = esp(DEBIAN, &[("EFI/debian/BOOTX64.CSV", utf16(text))]);
            assert_eq!(named(&loaders(&esp)), [("ironic1", "\\EFI\\BOOT\\BOOTX64.EFI")], "{text:?}");
        }
        let second = [
            ("EFI/BOOT/BOOT.CSV", utf16("gone.efi,x")),
            ("EFI/debian/BOOTX64.CSV", utf16("grubx64.efi,debian")),
        ];
        assert_eq!(named(&loaders(&esp(DEBIAN, &second))), [("debian", "\\EFI\\debian\\grubx64.efi")]);
    }

    #[test]
    fn without_a_hint_every_known_loader_counts_and_those_of_other_processors_do_not() {
        for (files, expected) in [
            (vec!["EFI/BOOT/BOOTX64.EFI"], vec![("ironic1", "\\EFI\\BOOT\\BOOTX64.EFI")]),
            (
                vec!["EFI/boot/bootx64.efi", "EFI/boot/bootia32.efi", "EFI/boot/bootaa64.efi"],
                vec![("ironic1", "\\EFI\\boot\\bootx64.efi")],
            ),
            (
                vec!["EFI/Boot/bootx64.efi", "Windows/winload.efi"],
                vec![("ironic1", "\\EFI\\Boot\\bootx64.efi"), ("ironic2", "\\Windows\\winload.efi")],
            ),
            (vec!["bootx64.efi"], vec![("ironic1", "\\bootx64.efi")]),
            (vec!["EFI/debian/grubx64.efi", "vmlinuz"], vec![]),
            (vec![], vec![]),
        ] {
            assert_eq!(named(&loaders(&esp(&files, &[]))), expected, "{files:?}");
        }
    }
}
