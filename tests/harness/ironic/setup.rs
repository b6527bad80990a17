//! Which Ironic, how it comes to this machine, and its configuration.

use crate::artifacts::cache_folder;
use crate::process::call;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Ironic's own ports.
pub const API_PORT: u16 = 6385;

/// A release of Ironic and what differs in how it is set up.
#[derive(Debug)]
pub struct Release {
    pub version: &'static str,
    /// Requirements beside Ironic itself: releases of its time, where newer ones break it.
    pub with: &'static [&'static str],
    /// The highest API microversion of the release that the tests use.
    pub api: &'static str,
    /// Its inspection by the ramdisk, where it has one without a second service.
    pub inspect: &'static str,
    /// Lines of `[DEFAULT]` that other releases do not know.
    pub defaults: &'static str,
}

/// The newest.
pub static IRONIC_39: Release = Release {
    version: "39.0.0",
    with: &[],
    api: "1.95",
    inspect: "agent",
    defaults: "enabled_firmware_interfaces = no-firmware\ndefault_firmware_interface = no-firmware\n",
};

/// Debian 12's (2023.1), the oldest that runs on a Python of today; with libraries of its year.
pub static IRONIC_21: Release = Release {
    version: "21.4.4",
    with: &[
        "SQLAlchemy==1.4.54",
        "WebOb==1.8.7",
        "Werkzeug==2.2.3",
        "alembic==1.19.2",
        "eventlet==0.33.3",
        "futurist==3.5.0",
        "ironic-lib==5.4.0",
        "jsonschema==4.17.3",
        "keystonemiddleware==10.2.0",
        "openstacksdk==1.0.2",
        "oslo.concurrency==5.1.1",
        "oslo.config==9.1.1",
        "oslo.context==5.1.1",
        "oslo.db==12.3.2",
        "oslo.log==5.2.0",
        "oslo.messaging==14.1.0",
        "oslo.middleware==5.1.1",
        "oslo.policy==4.1.1",
        "oslo.serialization==5.1.1",
        "oslo.service==3.1.1",
        "oslo.utils==6.1.0",
        "oslo.versionedobjects==3.1.0",
        "pecan==1.4.2",
        "setuptools<70",
        "tooz==9.1.0",
    ],
    api: "1.82",
    inspect: "no-inspect",
    defaults: "",
};

/// Where one Ironic lives and how it is reached.
#[derive(Debug)]
pub struct Settings {
    pub folder: PathBuf,
    /// Address of API and conductor.
    pub address: String,
    /// Kernel parameters that every ramdisk gets.
    pub kernel_parameters: String,
    /// More of the configuration, sections and all.
    pub more: String,
}

impl Settings {
    /// The folder that a network boot reads from.
    pub fn http_root(&self) -> PathBuf {
        self.folder.join("http")
    }
}

/// The folder of a release's virtual environment.
pub fn folder(release: &Release) -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("ironic-{}", release.version)))
}

/// Installs a release unless it is there.
pub fn install(release: &Release) -> Result<PathBuf> {
    let folder = folder(release)?;
    let done = folder.join("installed");
    if !done.exists() {
        eprintln!("installing Ironic {} (once)", release.version);
        // A virtual environment cannot be moved; one without its mark is made anew.
        fs::remove_dir_all(&folder).ok();
        call("/usr/bin/python3", &["-m", "venv", &folder.display().to_string()])?;
        let wanted = format!("ironic=={}", release.version);
        let arguments = [&["install", "--quiet", wanted.as_str()], release.with].concat();
        call(&folder.join("bin/pip").display().to_string(), &arguments)?;
        fs::write(&done, release.version)?;
    }
    Ok(folder)
}

/// Writes the configuration file; its path.
pub fn configure(release: &Release, settings: &Settings) -> Result<PathBuf> {
    for name in ["http", "tftp", "state", "images", "masters", "certificates", "logs"] {
        fs::create_dir_all(settings.folder.join(name))?;
    }
    let path = settings.folder.join("ironic.conf");
    fs::write(&path, text(release, settings)).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn text(release: &Release, settings: &Settings) -> String {
    let Settings { folder, address, kernel_parameters, more } = settings;
    let path = |name: &str| -> String { Path::join(folder, name).display().to_string() };
    let interfaces = [
        ("bios", "no-bios"),
        ("boot", "ipxe"),
        ("console", "no-console"),
        ("deploy", "direct"),
        ("inspect", release.inspect),
        ("management", "ipmitool"),
        ("network", "noop"),
        ("power", "ipmitool"),
        ("raid", "agent"),
        ("rescue", "agent"),
        ("storage", "noop"),
        ("vendor", "no-vendor"),
    ]
    .map(|(kind, name)| format!("enabled_{kind}_interfaces = {name}\ndefault_{kind}_interface = {name}\n"))
    .concat();
    format!(
        "[DEFAULT]\nauth_strategy = noauth\nrpc_transport = none\nhost = judge\nmy_ip = {address}\n\
         state_path = {state}\nenabled_hardware_types = ipmi\n{interfaces}{defaults}\n\
         [api]\nhost_ip = {address}\nport = {API_PORT}\n\n\
         [database]\nconnection = sqlite:///{database}\n\n\
         [service_catalog]\nauth_type = none\nendpoint_override = http://{address}:{API_PORT}\n\n\
         [oslo_concurrency]\nlock_path = {state}\n\n[dhcp]\ndhcp_provider = none\n\n\
         [deploy]\nhttp_url = http://{address}:8080\nhttp_root = {http}\ndefault_boot_mode = bios\n\
         erase_devices_priority = 0\n\n\
         [pxe]\ntftp_root = {tftp}\ntftp_master_path = {masters}\ninstance_master_path = {masters}\n\
         images_path = {images}\nkernel_append_params = {kernel_parameters}\n\n\
         [conductor]\nsync_power_state_interval = 3600\n\n\
         [ipmi]\nmin_command_interval = 1\ncommand_retry_timeout = 20\n\n\
         [agent]\ncertificates_path = {certificates}\ndeploy_logs_local_path = {logs}\n\
         post_deploy_get_power_state_retry_interval = 1\n\n{more}\n",
        state = path("state"),
        defaults = release.defaults,
        database = path("ironic.sqlite"),
        http = settings.http_root().display(),
        tftp = path("tftp"),
        masters = path("masters"),
        images = path("images"),
        certificates = path("certificates"),
        logs = path("logs"),
    )
}
