//! Looks at software RAID on a machine's disks from outside: partitions by sfdisk, superblocks by Debian's mdadm.

use crate::artifacts::cache_folder;
use crate::process::call;
use anyhow::{Context, Result, ensure};
use ferric_initramfs::build;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR: u64 = 512;

/// A partition, in bytes.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    /// As the table says it: a GUID, or two hexadecimal digits in an MBR.
    pub kind: String,
    pub start: u64,
    pub size: u64,
}

/// The kind of table (`gpt`, `dos`) and its partitions in their order.
pub fn partitions(disk: &Path) -> Result<(String, Vec<Part>)> {
    let said: Value = serde_json::from_str(&call("sfdisk", &["--json", &disk.display().to_string()])?)?;
    let table = &said["partitiontable"];
    let number = |part: &Value, key: &str| part[key].as_u64().with_context(|| format!("no {key}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parts = table["partitions"].as_array().context("no partitions")?.iter().map(|part| {
        Ok(Part {
            name: text(&part["name"]),
            kind: text(&part["type"]),
            start: number(part, "start")? * SECTOR,
            size: number(part, "size")? * SECTOR,
        })
    });
    Ok((text(&table["label"]), parts.collect::<Result<_>>()?))
}

/// Debian's mdadm, unpacked: installing it would have this host look for arrays.
#[derive(Debug)]
pub struct Mdadm(PathBuf);

impl Mdadm {
    pub fn obtain() -> Result<Self> {
        let packages = build::unpack(&cache_folder()?, &["mdadm"])?;
        let program = packages.first().context("no mdadm")?.join("sbin/mdadm");
        ensure!(program.exists(), "{} is not in Debian's package", program.display());
        Ok(Self(program))
    }

    /// What it says of the superblock of a partition.
    pub fn examine(&self, disk: &Path, part: &Part) -> Result<Examined> {
        let (offset, size) = (part.start.to_string(), part.size.to_string());
        let file = disk.display().to_string();
        let words = ["--find", "--show", "--read-only", "--offset", &offset, "--sizelimit", &size, &file];
        let device = call("losetup", &words)?.trim().to_owned();
        // It ends with 1 where there is no superblock, and says so.
        let out = Command::new(&self.0).args(["--examine", &device]).env("LC_ALL", "C").output();
        call("losetup", &["--detach", &device])?;
        let out = out.context("running mdadm")?;
        let words = [out.stdout, out.stderr].concat();
        Ok(Examined(String::from_utf8_lossy(&words).into_owned()))
    }

    pub fn expect_nothing(&self, disk: &Path, part: &Part) -> Result<()> {
        let Examined(told) = self.examine(disk, part)?;
        ensure!(told.contains("No md superblock detected"), "{told}");
        Ok(())
    }
}

/// What mdadm said of one member.
#[derive(Debug)]
pub struct Examined(String);

impl Examined {
    /// What stands behind the colon.
    pub fn field(&self, name: &str) -> Result<&str> {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(" : "));
        let found = fields.find(|(key, _)| key.trim() == name);
        Ok(found.with_context(|| format!("no '{name}' in {}", self.0))?.1.trim())
    }

    /// Where the data begin, in bytes from the start of the member.
    pub fn data_offset(&self) -> Result<u64> {
        let sectors = self.field("Data Offset")?.split_whitespace().next().context("no data offset")?;
        Ok(sectors.parse::<u64>()? * SECTOR)
    }

    /// Fields that begin so.
    pub fn expect(&self, fields: &[(&str, &str)]) -> Result<()> {
        for (name, wanted) in fields {
            let found = self.field(name)?;
            ensure!(found.starts_with(wanted), "{name} is '{found}', not '{wanted}': {}", self.0);
        }
        ensure!(self.field("Checksum")?.ends_with("- correct"), "{}", self.0);
        Ok(())
    }

    /// With or without the name of the host that made it: `Name : ferric:system  (local to host …)`.
    pub fn expect_name(&self, name: &str) -> Result<()> {
        let found = self.field("Name")?.split_whitespace().next().and_then(|word| word.rsplit(':').next());
        ensure!(found == Some(name), "not called {name}: {}", self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let told = "   Name : ferric:data\n  Raid Level : raid6\n    Checksum : 4f - correct\n Raid Devices : 4\n\
                    Data Offset : 2048 sectors\n";
        let told = Examined(told.to_owned());
        told.expect(&[("Raid Level", "raid6"), ("Raid Devices", "4")]).unwrap();
        told.expect_name("data").unwrap();
        assert_eq!(told.data_offset().unwrap(), 1 << 20);
        assert!(told.expect(&[("Raid Level", "raid5")]).is_err() && told.field("Level").is_err());
    }
}
