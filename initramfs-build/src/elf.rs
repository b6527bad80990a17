//! The little of ELF that a builder needs: what a kernel module says about itself (`.modinfo`) and which shared
//! libraries a program names (`DT_NEEDED`, `PT_INTERP`).
//!
//! Read here rather than by `depmod` and `ldd`: the one wants a kernel tree in place, the other runs what it looks at.
//! Specification: System V ABI, ELF-64, little endian only (all targets of the ramdisk are x86-64).

use anyhow::{Context, Result, bail};

const SECTION_DYNAMIC: u32 = 6;
const PROGRAM_INTERPRETER: u32 = 3;
const DYNAMIC_NEEDED: u64 = 1;

/// Values of one module's `.modinfo`, in its order: `("depends", "jbd2,mbcache")`.
pub fn modinfo(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let section = sections(bytes)?
        .into_iter()
        .find(|s| s.name == ".modinfo")
        .context("no section .modinfo: not a kernel module")?;
    Ok(slice(bytes, section.offset, section.size)?
        .split(|b| *b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Names of the shared libraries a program or library wants loaded; empty for a static one.
pub fn needed(bytes: &[u8]) -> Result<Vec<String>> {
    let sections = sections(bytes)?;
    let Some(dynamic) = sections.iter().find(|s| s.kind == SECTION_DYNAMIC) else {
        return Ok(Vec::new());
    };
    let strings = sections.get(dynamic.link).context("the dynamic section names no string table")?;
    let strings = slice(bytes, strings.offset, strings.size)?;
    slice(bytes, dynamic.offset, dynamic.size)?
        .as_chunks::<16>()
        .0
        .iter()
        .map(|entry| Ok((number(entry, 0, 8)?, usize::try_from(number(entry, 8, 8)?)?)))
        .filter(|entry| !matches!(entry, Ok((tag, _)) if *tag != DYNAMIC_NEEDED))
        .map(|entry: Result<_>| text(strings, entry?.1))
        .collect()
}

/// Path of the program's loader; none for a static program or a library.
pub fn interpreter(bytes: &[u8]) -> Result<Option<String>> {
    check(bytes)?;
    let (offset, size, count) = (at(bytes, 32, 8)?, at(bytes, 54, 2)?, at(bytes, 56, 2)?);
    for index in 0..count {
        let header = slice(bytes, offset + index * size, 56)?;
        if number(header, 0, 4)? == u64::from(PROGRAM_INTERPRETER) {
            let path = slice(bytes, at(header, 8, 8)?, at(header, 32, 8)?)?;
            return text(path, 0).map(Some);
        }
    }
    Ok(None)
}

struct Section {
    name: String,
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

fn check(bytes: &[u8]) -> Result<()> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    Ok(())
}

fn sections(bytes: &[u8]) -> Result<Vec<Section>> {
    check(bytes)?;
    let (offset, size, count, names) =
        (at(bytes, 40, 8)?, at(bytes, 58, 2)?, at(bytes, 60, 2)?, at(bytes, 62, 2)?);
    let header = |index: usize| slice(bytes, offset + index * size, 64);
    let names = header(names)?;
    let names = slice(bytes, at(names, 24, 8)?, at(names, 32, 8)?)?;
    (0..count)
        .map(|index| {
            let header = header(index)?;
            Ok(Section {
                name: text(names, at(header, 0, 4)?)?,
                kind: u32::try_from(number(header, 4, 4)?)?,
                offset: at(header, 24, 8)?,
                size: at(header, 32, 8)?,
                link: at(header, 40, 4)?,
            })
        })
        .collect()
}

fn slice(bytes: &[u8], offset: usize, length: usize) -> Result<&[u8]> {
    offset
        .checked_add(length)
        .and_then(|end| bytes.get(offset..end))
        .with_context(|| format!("the file ends before byte {offset} + {length}"))
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
    Ok(slice(bytes, offset, length)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn at(bytes: &[u8], offset: usize, length: usize) -> Result<usize> {
    // A place past 2^40 is no place in a file; refusing it keeps the sums below from overflowing.
    match number(bytes, offset, length)? {
        place @ 0..=0xFF_FFFF_FFFF => Ok(usize::try_from(place)?),
        place => bail!("offset {place} lies outside any file"),
    }
}

fn text(bytes: &[u8], offset: usize) -> Result<String> {
    let rest = bytes.get(offset..).context("a string starts past its table")?;
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    Ok(std::str::from_utf8(rest.get(..end).unwrap_or_default())?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_names_its_libraries_and_loader() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&bytes).unwrap().iter().any(|name| name.starts_with("libc.so")));
        assert!(interpreter(&bytes).unwrap().unwrap().contains("ld-linux"));
        assert!(modinfo(&bytes).unwrap_err().to_string().contains("not a kernel module"));
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in (0..4096).step_by(7) {
            assert!(needed(&bytes[..length]).is_err(), "{length}");
        }
        assert!(needed(b"#!/bin/sh").unwrap_err().to_string().contains("ELF"));
    }
}
