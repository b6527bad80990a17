//! The sockets: DHCP, TFTP, HTTP. Everything is bound before [`spawn`] returns, so that a port in use stops the start.

mod dhcp;
mod files;
mod http;
mod interface;
mod neighbour;
mod range;
mod router;
mod store;
#[cfg(test)]
mod tests;
mod tftp;

use crate::boot::config::{BootConfig, BootConfigError, DhcpConfig};
use crate::boot::leases::Leases;
use crate::boot::{BootDirectory, BootPlan, NoPlan};
use crate::images::boot_file::{self, BootFileError};
use ferric_common::ids::{MacAddress, NodeUuid};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Boot programs served by name over TFTP and HTTP, and no others: who needs each.
const BOOT_PROGRAMS: &[&str] = &["undionly.kpxe", "snponly.efi", "ipxe.efi"];

/// Longest wait for the word whether a machine is enrolled; for what it boots: longer than a busy database may take.
const DIRECTORY_TIME: Duration = Duration::from_secs(2);
const PLAN_TIME: Duration = Duration::from_secs(8);

/// Why the boot services do not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Config(#[from] BootConfigError),
    #[error(transparent)]
    BootFile(#[from] BootFileError),
    #[error("{} is missing or cannot be read; install the Debian package ipxe or set [boot] ipxe_dir", path.display())]
    BootProgram {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("[boot] images_dir {} cannot be read", path.display())]
    ImagesDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening {protocol} port {} on {} for {service}: {}", address.port(), address.ip(), advice(source, *address))]
    Bind {
        service: &'static str,
        protocol: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("binding the DHCP server to interface {name}; `ip link` lists the interfaces of this machine")]
    Interface {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("reading the DHCP leases in {}", path.display())]
    Leases {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn advice(source: &io::Error, address: SocketAddr) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program uses it; `ss -lntup sport = :{}` names it", address.port())
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine; see [boot] address", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE, DHCP also CAP_NET_RAW".to_owned()
        }
        _ => "the system refused".to_owned(),
    }
}

fn late(longest: Duration) -> String {
    format!("the database gave no answer within {} s", longest.as_secs())
}

/// What all three servers share.
struct Context {
    boot: BootConfig,
    directory: Arc<dyn BootDirectory>,
    leases: Option<Mutex<Leases>>,
    discovery: bool,
}

impl Context {
    /// Whether a machine is enrolled; `Err` says in words why there is no word about it.
    async fn knows(&self, mac: MacAddress) -> Result<bool, String> {
        let word = timeout(DIRECTORY_TIME, self.directory.knows(mac)).await;
        word.unwrap_or_else(|_| Err(late(DIRECTORY_TIME)))
    }
    /// Whether a machine is answered before it has an address.
    async fn serves(&self, mac: MacAddress) -> bool {
        self.discovery || self.knows(mac).await == Ok(true)
    }
    async fn plan_for_mac(&self, mac: MacAddress) -> Result<BootPlan, NoPlan> {
        let word = timeout(PLAN_TIME, self.directory.plan_for_mac(mac)).await;
        word.unwrap_or_else(|_| Err(NoPlan::Unknown(late(PLAN_TIME))))
    }
    async fn plan_for_node(&self, node: NodeUuid) -> Result<BootPlan, NoPlan> {
        let word = timeout(PLAN_TIME, self.directory.plan_for_node(node)).await;
        word.unwrap_or_else(|_| Err(NoPlan::Unknown(late(PLAN_TIME))))
    }
    /// The machine behind an address, if this server gave it out.
    fn mac_of(&self, peer: IpAddr) -> Option<MacAddress> {
        let IpAddr::V4(address) = peer.to_canonical() else { return None };
        self.leases.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).mac_of(address)
    }
    /// The place of a boot program; `None` for every name that is not in the table.
    fn boot_program(&self, name: &str) -> Option<PathBuf> {
        BOOT_PROGRAMS.iter().find(|known| **known == name).map(|known| self.boot.ipxe_dir.join(known))
    }
}

/// The running services; they end when this is dropped.
#[derive(Debug)]
pub struct BootServices {
    tasks: Vec<JoinHandle<()>>,
    http: SocketAddr,
    tftp: SocketAddr,
}

impl BootServices {
    /// Where scripts, kernels and images are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }
    /// Where boot programs are served.
    pub fn tftp_address(&self) -> SocketAddr {
        self.tftp
    }
    /// Stops and waits until the sockets are closed.
    pub async fn shutdown(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Cancelled is what it shall be.
            let _ = task.await;
        }
    }
}

impl Drop for BootServices {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Checks the configuration and the files it names, binds every port, and starts serving.
///
/// Must be called within a tokio runtime. Without `dhcp`, or with it switched off, another server hands out addresses and
/// names this one's boot files.
///
/// # Errors
/// [`BootError`] says which setting, file, port or interface is at fault and what to do.
pub fn spawn(
    boot: BootConfig,
    dhcp: Option<DhcpConfig>,
    state_dir: &Path,
    directory: Arc<dyn BootDirectory>,
) -> Result<BootServices, BootError> {
    let dhcp = dhcp.filter(|d| d.enabled);
    boot.check()?;
    if let Some(dhcp) = &dhcp {
        dhcp.check(&boot)?;
    }
    check_files(&boot, dhcp.is_some())?;

    let tftp_socket = tftp::bind(SocketAddrV4::new(boot.address, boot.tftp_port))?;
    let http_listener = http::bind(SocketAddrV4::new(boot.address, boot.http_port))?;
    let dhcp_server = dhcp.as_ref().map(|d| dhcp::Server::bind(&boot, d)).transpose()?;
    let discovery = dhcp.as_ref().is_some_and(|d| d.discovery);
    let (leases, lease_file) = match dhcp {
        Some(config) => {
            let file = store::LeaseStore::new(state_dir);
            let kept = file.load().map_err(|source| BootError::Leases { path: file.path(), source })?;
            (Some(Mutex::new(Leases::new(config, boot.address, kept))), Some(file))
        }
        None => (None, None),
    };
    let local = |service, protocol, port: u16, got: io::Result<SocketAddr>| {
        let address = SocketAddr::from((boot.address, port));
        got.map_err(|source| BootError::Bind { service, protocol, address, source })
    };
    let http = local("HTTP", "TCP", boot.http_port, http_listener.local_addr())?;
    let tftp = local("TFTP", "UDP", boot.tftp_port, tftp_socket.local_addr())?;

    let context = Arc::new(Context { boot, directory, leases, discovery });
    let mut tasks = vec![
        tokio::spawn(tftp::run(tftp_socket, context.clone())),
        tokio::spawn(http::run(http_listener, context.clone())),
    ];
    if let Some((server, file)) = dhcp_server.zip(lease_file) {
        match router::Router::bind(&context.boot.interface) {
            Ok(router) => tasks.push(tokio::spawn(router.run(context.clone()))),
            Err(error) => {
                tracing::warn!(%error, "no IPv6 on the interface; iPXE waits 16 s for a router at each boot")
            }
        }
        tasks.push(tokio::spawn(server.run(context, file)));
    }
    Ok(BootServices { tasks, http, tftp })
}

fn check_files(boot: &BootConfig, dhcp: bool) -> Result<(), BootError> {
    boot_file::check_kernel(&boot.kernel)?;
    for ramdisk in std::iter::once(&boot.ramdisk).chain(&boot.extra_ramdisks) {
        boot_file::check_ramdisk(ramdisk)?;
    }
    if let Some(path) = &boot.images_dir {
        std::fs::read_dir(path).map_err(|source| BootError::ImagesDir { path: path.clone(), source })?;
    }
    // `ipxe.efi` is never named by the DHCP answers; it is served for other people's.
    for name in BOOT_PROGRAMS.iter().filter(|name| **name != "ipxe.efi") {
        let path = boot.ipxe_dir.join(name);
        match std::fs::File::open(&path) {
            Ok(_) => {}
            Err(source) if dhcp => return Err(BootError::BootProgram { path, source }),
            Err(source) => tracing::warn!(path = %path.display(), %source, "boot program is missing"),
        }
    }
    Ok(())
}
