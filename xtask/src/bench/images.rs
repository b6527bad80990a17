//! The images of the benchmark, made once and kept, with what is known of each.

use super::recipes::{self, DEBIAN};
use anyhow::{Context, Result};
use ferric_tests::artifacts::cache_folder;
use ferric_tests::process::call;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

pub use super::recipes::Picture;

pub const MIB: u64 = 1 << 20;
/// A block of zeros this big need not be written.
const BLOCK: usize = 64 << 10;

/// Other sources, other images.
const RECIPE: [&str; 2] = [include_str!("recipes.rs"), include_str!("scatter.rs")];

/// An image that is there, and what is known of it.
#[derive(Clone, Debug)]
pub struct Made {
    pub picture: Picture,
    pub path: PathBuf,
    /// Of the file.
    pub bytes: u64,
    pub virtual_bytes: u64,
    /// What a writer that skips zeros has to write.
    pub data_bytes: u64,
    pub sha256: String,
    pub sha512: String,
}

impl Made {
    /// The disk that it is written to. The raw image is the start of a disk of 8 GiB, and its partition table says so.
    pub fn disk_bytes(&self) -> u64 {
        match self.picture.format() {
            "raw" => DEBIAN.virtual_bytes,
            _ => self.virtual_bytes.next_multiple_of(4096),
        }
    }
}

/// The folder of this recipe's images.
pub fn folder() -> Result<PathBuf> {
    let folder = cache_folder()?.join(format!("bench-{}", key()));
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Changes with everything that the images are made from.
fn key() -> String {
    // FNV-1a: a name, not a proof.
    let texts = [RECIPE[0], RECIPE[1], &DEBIAN.key()].concat();
    let hash = texts.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The image, made if it is not there yet.
pub fn obtain(picture: Picture) -> Result<Made> {
    let path = file(picture)?;
    let facts = folder()?.join(format!("{}.facts.json", picture.name()));
    if !facts.exists() {
        let text = facts_of(picture, &path)?.to_string();
        put(&facts, |aside| Ok(fs::write(aside, text)?))?;
    }
    let facts: Value = serde_json::from_str(&fs::read_to_string(&facts)?)?;
    read_facts(picture, path, &facts)
        .with_context(|| format!("the facts about {} are not whole", picture.name()))
}

fn read_facts(picture: Picture, path: PathBuf, facts: &Value) -> Option<Made> {
    let number = |name: &str| facts.get(name)?.as_u64();
    let text = |name: &str| Some(facts.get(name)?.as_str()?.to_owned());
    Some(Made {
        picture,
        path,
        bytes: number("bytes")?,
        virtual_bytes: number("virtual_bytes")?,
        data_bytes: number("data_bytes")?,
        sha256: text("sha256")?,
        sha512: text("sha512")?,
    })
}

fn facts_of(picture: Picture, path: &Path) -> Result<Value> {
    let sum = |program| -> Result<String> {
        let printed = call(program, &[&words(path)])?;
        Ok(printed.split_whitespace().next().unwrap_or_default().to_owned())
    };
    let (virtual_bytes, data_bytes) = match picture.format() {
        "qcow2" => mapped(&call("qemu-img", &["map", "--output=json", &words(path)])?)?,
        _ => not_zero(&file(picture.content())?)?,
    };
    Ok(json!({
        "bytes": fs::metadata(path)?.len(),
        "virtual_bytes": virtual_bytes,
        "data_bytes": data_bytes,
        "sha256": sum("sha256sum")?,
        "sha512": sum("sha512sum")?,
    }))
}

/// Virtual size and allocated bytes by the answer of `qemu-img map --output=json`.
fn mapped(answer: &str) -> Result<(u64, u64)> {
    let pieces: Vec<Value> = serde_json::from_str(answer).context("reading the answer of qemu-img map")?;
    let mut sums = (0, 0);
    for piece in &pieces {
        let length = piece.get("length").and_then(Value::as_u64).context("a piece without length")?;
        let says = |name: &str| piece.get(name).and_then(Value::as_bool).unwrap_or(false);
        sums.0 += length;
        sums.1 += if says("data") && !says("zero") { length } else { 0 };
    }
    Ok(sums)
}

/// Length of a raw image, and how many of its bytes lie in blocks that are not all zeros.
fn not_zero(path: &Path) -> Result<(u64, u64)> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    let (length, mut data) = (file.metadata()?.len(), 0);
    for _ in 0..length / BLOCK as u64 {
        file.read_exact(&mut block)?;
        data += if block == zeros { 0 } else { BLOCK as u64 };
    }
    Ok((length, data))
}

/// Reads a file once, so that the server has it in memory.
pub fn read_through(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut piece = vec![0; MIB as usize];
    while file.read(&mut piece)? > 0 {}
    Ok(())
}

/// The image's file, made if it is not there yet.
pub fn file(picture: Picture) -> Result<PathBuf> {
    let path = folder()?.join(picture.name());
    if !path.exists() {
        eprintln!("making {} (once)", path.display());
        put(&path, |aside| recipes::make(picture, aside))?;
    }
    Ok(path)
}

/// Makes a file aside and moves it to its place when it is whole.
fn put(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("a file without a name")?;
    let aside = path.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
    let made = make(&aside).and_then(|()| Ok(fs::rename(&aside, path)?));
    if made.is_err() {
        fs::remove_file(&aside).ok();
    }
    made.with_context(|| format!("making {}", path.display()))
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_what_has_data_and_is_not_zero() {
        let answer = r#"[{"start": 0, "length": 100, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true},
            {"start": 100, "length": 50, "depth": 0, "present": true, "zero": true, "data": true},
            {"start": 150, "length": 7, "depth": 0, "present": false, "zero": true, "data": false}]"#;
        assert_eq!(mapped(answer).unwrap(), (157, 100));
        assert!(mapped("[{}]").is_err());
    }

    #[test]
    fn blocks_of_zeros_are_not_data() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 4 * BLOCK];
        bytes[BLOCK] = 1;
        bytes[4 * BLOCK - 1] = 1;
        fs::write(file.path(), bytes).unwrap();
        assert_eq!(not_zero(file.path()).unwrap(), (4 * BLOCK as u64, 2 * BLOCK as u64));
    }

    #[test]
    fn a_file_that_could_not_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.raw");
        let failed = put(&path, |aside| {
            fs::write(aside, "half")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        put(&path, |aside| Ok(fs::write(aside, "whole")?)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
    }
}
