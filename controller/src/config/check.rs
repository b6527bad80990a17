//! Which values of the file cannot be meant, a table at a time. Pure.

use super::{AgentTable, ApiTable, DeployTable, File, IpmiTable};
use crate::boot::config::BootConfigError;
use std::path::Path;

/// Why a value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{key} is {found}; {allowed}")]
    Value { key: &'static str, found: String, allowed: &'static str },
    #[error(transparent)]
    Boot(#[from] BootConfigError),
}

impl Fault {
    pub(super) fn of(key: &'static str, found: impl ToString, allowed: &'static str) -> Fault {
        Fault::Value { key, found: found.to_string(), allowed }
    }
}

/// The first value that cannot be used.
pub(super) fn check(file: &File) -> Result<(), Fault> {
    state_dir(&file.state_dir)?;
    waits(file)?;
    erasing(&file.deploy)?;
    boot_mode(&file.deploy.default_boot_mode)?;
    logs(&file.agent)?;
    ipmi(&file.ipmi)?;
    public_url(&file.api)?;
    boot(file)
}

fn state_dir(path: &Path) -> Result<(), Fault> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(Fault::of("state_dir", format!("'{}'", path.display()), "an absolute path is needed")),
    }
}

/// A week is longer than any of these waits can mean.
fn waits(file: &File) -> Result<(), Fault> {
    for (key, seconds) in [
        ("[deploy] callback_timeout", file.deploy.callback_timeout),
        ("[deploy] clean_callback_timeout", file.deploy.clean_callback_timeout),
        ("[agent] heartbeat_timeout", file.agent.heartbeat_timeout),
        ("[power] change_timeout", file.power.change_timeout),
        ("[power] soft_off_timeout", file.power.soft_off_timeout),
    ] {
        if !(1..=604_800).contains(&seconds) {
            return Err(Fault::of(key, seconds, "1 to 604800 seconds are allowed"));
        }
    }
    Ok(())
}

fn erasing(deploy: &DeployTable) -> Result<(), Fault> {
    let at_once = deploy.disk_erasure_concurrency;
    if !(1..=64).contains(&at_once) {
        let key = "[deploy] disk_erasure_concurrency";
        return Err(Fault::of(key, at_once, "1 to 64 disks at once are allowed"));
    }
    let passes = deploy.shred_random_overwrite_iterations;
    if passes > 100 {
        let key = "[deploy] shred_random_overwrite_iterations";
        return Err(Fault::of(key, passes, "0 to 100 passes are allowed"));
    }
    Ok(())
}

fn boot_mode(mode: &str) -> Result<(), Fault> {
    match mode {
        "uefi" | "bios" => Ok(()),
        other => {
            let key = "[deploy] default_boot_mode";
            Err(Fault::of(key, format!("'{other}'"), "'uefi' and 'bios' are allowed"))
        }
    }
}

fn logs(agent: &AgentTable) -> Result<(), Fault> {
    if agent.logs_kept > 100_000 {
        return Err(Fault::of("[agent] logs_kept", agent.logs_kept, "0 to 100000 archives are allowed"));
    }
    if !(1..=1_048_576).contains(&agent.logs_mib) {
        return Err(Fault::of("[agent] logs_mib", agent.logs_mib, "1 to 1048576 MiB are allowed"));
    }
    Ok(())
}

fn ipmi(ipmi: &IpmiTable) -> Result<(), Fault> {
    if !(1..=10).contains(&ipmi.tries) || !(1..=600).contains(&ipmi.talk_seconds) {
        let found = format!("{} / {}", ipmi.tries, ipmi.talk_seconds);
        let allowed = "1 to 10 tries and 1 to 600 seconds are allowed";
        return Err(Fault::of("[ipmi] tries / talk_seconds", found, allowed));
    }
    // Without a wait no BMC would ever have answered in time.
    if !(1..=60_000).contains(&ipmi.first_wait_ms) {
        return Err(Fault::of(
            "[ipmi] first_wait_ms",
            ipmi.first_wait_ms,
            "1 to 60000 milliseconds are allowed",
        ));
    }
    Ok(())
}

fn public_url(api: &ApiTable) -> Result<(), Fault> {
    let Some(text) = &api.public_url else { return Ok(()) };
    let good = |url: url::Url| matches!(url.scheme(), "http" | "https") && url.query().is_none();
    match url::Url::parse(text).is_ok_and(good) {
        true => Ok(()),
        false => Err(Fault::of(
            "[api] public_url",
            format!("'{text}'"),
            "an http or https URL is needed, for instance http://10.0.0.1:6385",
        )),
    }
}

fn boot(file: &File) -> Result<(), Fault> {
    let dhcp = file.dhcp.as_ref().filter(|dhcp| dhcp.enabled);
    match (&file.boot, dhcp) {
        (Some(boot), Some(dhcp)) => boot.check().and_then(|()| dhcp.check(boot)).map_err(Fault::Boot),
        (Some(boot), None) => boot.check().map_err(Fault::Boot),
        (None, Some(_)) => Err(Fault::of("[dhcp] enabled", true, "a [boot] table is needed with it")),
        (None, None) => Ok(()),
    }
}
