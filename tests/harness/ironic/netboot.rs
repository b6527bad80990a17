//! What Ironic would have a machine boot from the network: its own iPXE script for the machine's MAC, read at power-on.
//!
//! The firmware's part (DHCP option, iPXE, downloads) is left out; kernel, ramdisk and parameters are Ironic's word for
//! word.

use crate::qemu::DirectBoot;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The boot that the script below `root` (the HTTP folder that Ironic writes to) gives the machine with this MAC.
pub fn of(root: &Path, mac: &str) -> Result<DirectBoot> {
    let script = root.join("pxelinux.cfg").join(mac.replace(':', "-"));
    let text = fs::read_to_string(&script).with_context(|| format!("reading {}", script.display()))?;
    read(&text, root, mac).with_context(|| format!("in {}:\n{text}", script.display()))
}

/// Reads the part of a script that its `goto` leads to.
fn read(script: &str, root: &Path, mac: &str) -> Result<DirectBoot> {
    let target = script.lines().find_map(|line| line.trim().strip_prefix("goto ")).context("no goto")?;
    let label = format!(":{}", target.trim());
    let part: Vec<&str> = script.lines().map(str::trim).skip_while(|line| **line != label).skip(1).collect();
    let line = |word: &str| {
        let found =
            part.iter().take_while(|line| !line.starts_with(':')).find_map(|line| line.strip_prefix(word));
        let line = found.with_context(|| format!("no '{word}' below {label}"))?;
        Ok::<_, anyhow::Error>(line.split(" || ").next().unwrap_or_default().replace("${mac}", mac))
    };
    let (kernel, ramdisk) = (line("kernel ")?, line("initrd ")?);
    let (kernel, parameters) = kernel.split_once(' ').context("a kernel without parameters")?;
    let file = |url: &str| -> Result<_> {
        let path = url.trim().splitn(4, '/').nth(3).context("no path in a URL")?;
        // What is there is a link to a file that may be replaced at the next boot.
        fs::canonicalize(root.join(path)).with_context(|| format!("finding {path}"))
    };
    Ok(DirectBoot { kernel: file(kernel)?, ramdisk: file(&ramdisk)?, parameters: parameters.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_gone_to_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("u1")).unwrap();
        for name in ["deploy_kernel", "deploy_ramdisk"] {
            fs::write(folder.path().join("u1").join(name), name).unwrap();
        }
        let script = "#!ipxe\n\nset i:int32 0\n\ngoto deploy\n\n:deploy\nimgfree\n\
            kernel http://10.0.0.1:8080/u1/deploy_kernel text ipa-api-url=http://10.0.0.1:6385 BOOTIF=${mac} initrd=deploy_ramdisk || goto retry\n\n\
            initrd http://10.0.0.1:8080/u1/deploy_ramdisk || goto retry\nboot\n\n:retry\ngoto deploy\n";
        let boot = read(script, folder.path(), "aa:bb").unwrap();
        assert_eq!(
            boot.parameters,
            "text ipa-api-url=http://10.0.0.1:6385 BOOTIF=aa:bb initrd=deploy_ramdisk"
        );
        assert_eq!(fs::read_to_string(boot.ramdisk).unwrap(), "deploy_ramdisk");
        let elsewhere = script.replacen("goto deploy", "goto boot_whole_disk", 1);
        assert!(read(&elsewhere, folder.path(), "aa:bb").is_err());
    }
}
