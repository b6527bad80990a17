//! The agent's life on one page: settings → node → certificate → command API and heartbeats, until told to stop.
//!
//! Process 1 starts this as a child and starts it again when it ends; what must survive that is in [`crate::state`].

mod context;
mod disks;
mod inspection;
mod narrate;
mod node;

use self::node::{Node, identify};
use crate::api::{self, Api, ReadRule};
use crate::commands::failure;
use crate::commands::rooms::ImageWriter;
use crate::conductor::client::ApiClient;
use crate::conductor::heartbeat;
use crate::conductor::ntp::Clock;
use crate::conductor::{address, ntp, tls};
use crate::config::{self, Config, TlsRules};
use crate::disk::wait::Wanted;
use crate::executor::Executor;
use crate::logging;
use crate::media;
use crate::platform::linux;
use crate::platform::linux::machine::{LinuxMachine, NamedDisk};
use crate::platform::machine::Machine;
use crate::state::{Advertised, Identity, StateDir};
use crate::timeline;
use ferric_common::ids::AgentToken;
use ferric_common::wire::inventory::Inventory;
use ferric_common::wire::version::ApiVersion;
use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// The configuration cannot be used; starting again will not help.
const EXIT_CONFIG: u8 = 2;
/// A machine without any network interface is given this long.
const NIC_WAIT: Duration = Duration::from_secs(60);
const NIC_PAUSE: Duration = Duration::from_secs(2);
/// How long a power command waits for its own answer to get out.
const REPLY_GRACE: Duration = Duration::from_secs(1);

/// What ends a process or a life.
type Fatal = Box<dyn Error + Send + Sync>;

/// What we call ourselves in heartbeats and `/v1/status`.
pub const AGENT_VERSION: &str = concat!("ferric-", env!("CARGO_PKG_VERSION"));

/// Options of `ferric-agent run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// Folder of *.conf files, read in alphabetical order
    #[arg(long, default_value = "/etc/ironic-python-agent.d")]
    pub config_dir: PathBuf,
    /// File with kernel parameters
    #[arg(long, default_value = "/proc/cmdline")]
    pub cmdline: PathBuf,
    /// Folder for what must survive a crash
    #[arg(long, default_value = "/run/ferric")]
    pub state_dir: PathBuf,
    /// A disk (or a file standing for one) that may be written: PATH[,serial=X]. Outside the ramdisk no other is touched
    #[arg(long = "disk", value_name = "PATH[,serial=X]")]
    pub disks: Vec<NamedDisk>,
    /// Port of the command API
    #[arg(long)]
    pub listen_port: Option<u16>,
    /// Address of the command API [default: all]
    #[arg(long)]
    pub listen_host: Option<String>,
    /// Address under which the controller reaches us [default: found by the route to it]
    #[arg(long)]
    pub advertise_host: Option<String>,
    /// Address of the controller's API
    #[arg(long)]
    pub api_url: Option<String>,
}

/// Reads the settings, then lives until a signal. Never returns success while the controller still needs us.
pub fn run(options: RunOptions) -> ExitCode {
    let config = settings(&options);
    logging::start(logging::level(config.as_ref().is_ok_and(|config| config.debug)));
    let config = match config {
        Ok(config) => {
            tracing::debug!("settings: {}", config.given);
            for line in &config.told {
                tracing::warn!("{line}");
            }
            config
        }
        Err(error) => {
            tracing::error!("the agent's configuration cannot be used: {}", failure::chain(error.as_ref()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let machine: Arc<dyn Machine> = Arc::new(LinuxMachine::new(options.disks.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(|error| Box::new(error) as Fatal).and_then(|runtime| {
        let lived = runtime.block_on(async {
            let state = StateDir::open(&options.state_dir)?;
            let writer = Box::new(crate::commands::rooms::Pipeline);
            let time = ntp::Patience::default();
            let began = Instant::now();
            life(Parts { config, machine, writer, state, time, reply_grace: REPLY_GRACE, began }, stopped())
                .await
        });
        // A disk command that ignores its cancellation must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(5));
        lived
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", failure::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn settings(options: &RunOptions) -> Result<Config, Fatal> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    let cmdline = match linux::in_ramdisk() {
        true => media::command_line(&read(&options.cmdline)?),
        false => read(&options.cmdline)?,
    };
    let mut files = Vec::new();
    if let Ok(entries) = std::fs::read_dir(&options.config_dir) {
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "conf"));
        paths.sort();
        for path in paths {
            files.push((path.display().to_string(), read(&path)?));
        }
    }
    let arguments: Vec<(&str, String)> = [
        ("api_url", options.api_url.clone()),
        ("listen_port", options.listen_port.map(|port| port.to_string())),
        ("listen_host", options.listen_host.clone()),
        ("advertise_host", options.advertise_host.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    Ok(config::parse(&cmdline, &files, &arguments)?)
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

/// What a life is made of; tests bring their own machine and writer.
pub struct Parts {
    pub config: Config,
    pub machine: Arc<dyn Machine>,
    pub writer: Box<dyn ImageWriter>,
    pub state: StateDir,
    /// How time servers are asked.
    pub time: ntp::Patience,
    pub reply_grace: Duration,
    /// Disks that are slow are waited for from here on.
    pub began: Instant,
}

/// Hardware that the settings call slow is left alone first: that is no part of the wait for its disks.
async fn settle(parts: &mut Parts) {
    tokio::time::sleep(parts.config.hardware_delay).await;
    parts.began = Instant::now();
}

/// From inventory to the end.
///
/// # Errors
/// What makes this life pointless: no node, no address, no port, no certificate. Process 1 starts another one.
pub async fn life(mut parts: Parts, stop: impl Future<Output = ()>) -> Result<(), Fatal> {
    let (config, machine) = (parts.config.clone(), Arc::clone(&parts.machine));
    settle(&mut parts).await;
    let earlier = parts.state.identity()?;
    // A life after a crash has waited for its disks.
    let patient = async {
        if earlier.is_none() {
            disks::wait_for(&config, &machine, Wanted::default(), parts.began).await;
        }
    };
    tokio::join!(address::wait_for_route(&machine, &config), patient);
    let clock = clock(&parts, earlier.as_ref()).await?;
    let inventory = inventory(&machine).await;
    timeline::mark(timeline::INVENTORY);

    let outgoing = outgoing(&config, &config.tls)?;
    // A life after a crash has been through this.
    let inspected = match &earlier {
        None => inspection::inspect(&config, &machine, &outgoing).await,
        Some(_) => None,
    };
    if config.api_urls.is_empty() {
        return inspection::stay(parts, outgoing, stop).await;
    }
    let api = ApiClient::new(
        config.api_urls.clone(),
        Arc::clone(&outgoing),
        config.request_timeout,
        config.request_id.as_deref(),
    );
    let node = identify(&api, &config, &machine, &inventory, earlier, inspected, clock).await?;
    parts.state.save_identity(&node.identity)?;
    timeline::mark(timeline::LOOKUP);
    let wanted = node.disks();
    if !node.resumed && wanted.is_particular() {
        disks::wait_for(&config, &machine, wanted, parts.began).await;
    }

    let ready = advertise(&config, &machine, &inventory, &api, &node).await?;
    parts.state.save_identity(&ready.identity)?;
    serve(parts, api, outgoing, node, ready, stop).await
}

/// The clock is set before any certificate is made or looked at; one that was made before a crash stays.
async fn clock(parts: &Parts, earlier: Option<&Identity>) -> Result<Clock, ntp::NotSet> {
    match earlier.is_some_and(|identity| identity.advertised.is_some()) {
        true => Ok(Clock::Unknown),
        false => ntp::synchronise(&parts.machine, &parts.config, &parts.time).await,
    }
}

fn outgoing(config: &Config, rules: &TlsRules) -> Result<Arc<rustls::ClientConfig>, Fatal> {
    Ok(tls::client_config_with(&config.trust, rules, config.client_identity.as_ref())?)
}

/// The command API and the heartbeats, side by side, until the work is done or `stop` comes.
async fn serve(
    parts: Parts,
    api: ApiClient,
    outgoing: Arc<rustls::ClientConfig>,
    node: Node,
    ready: Ready,
    stop: impl Future<Output = ()>,
) -> Result<(), Fatal> {
    let (config, state) = (parts.config.clone(), parts.state.clone());
    let Ready { identity, server_tls, rules } = ready;
    let advertised = identity.advertised.clone().unwrap_or_default();
    let token = AgentToken::new(identity.token.clone()).ok_or("the saved agent token is too short")?;
    let outgoing = match rules == config.tls {
        true => outgoing,
        false => self::outgoing(&config, &rules)?,
    };
    let earlier = if node.resumed { state.commands()? } else { Vec::new() };
    let context = context::context(parts, &node.lookup, identity, outgoing);
    let (context, ended) = (Arc::new(context), Arc::new(Notify::new()));
    let executor = Arc::new(Executor::new(Arc::clone(&context), earlier, Some(state), Arc::clone(&ended)));

    let listener = listen(&config).await?;
    let base = advertised.callback_url.clone();
    let served = served(Arc::clone(&executor), token.clone(), node.read_rule(), base);
    let beat = node.beat(token, advertised);
    tokio::select! {
        () = api::server::serve(listener, server_tls, Arc::new(served)) => {}
        () = heartbeat::run(&api, beat, &ended) => {}
        () = narrate::narrate(&executor) => {}
        () = context.left() => tracing::info!("the agent's work in this boot is done"),
        () = stop => tracing::info!("stopping"),
    }
    executor.cancel();
    Ok(())
}

async fn listen(config: &Config) -> Result<TcpListener, Fatal> {
    let port = config.listen_port;
    let bound = api::server::bind(config.listen_host, port).await;
    Ok(bound.map_err(|error| format!("opening port {port} for the command API: {error}"))?)
}

fn served(executor: Arc<Executor>, token: AgentToken, read_rule: ReadRule, base: String) -> Api {
    let started_at =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Api::new(executor, token, read_rule, base, AGENT_VERSION.to_string(), started_at)
}

async fn inventory(machine: &Arc<dyn Machine>) -> Inventory {
    let began = tokio::time::Instant::now();
    loop {
        let machine = Arc::clone(machine);
        let found = tokio::task::spawn_blocking(move || machine.inventory()).await.unwrap_or_default();
        if found.interfaces.iter().any(|nic| !nic.mac_address.is_empty()) || began.elapsed() >= NIC_WAIT {
            return found;
        }
        tracing::warn!("no network interface yet");
        tokio::time::sleep(NIC_PAUSE).await;
    }
}

/// An identity that can be reached, and how its API is served (none: plain HTTP); what is spoken by TLS from now on.
struct Ready {
    identity: Identity,
    server_tls: Option<Arc<rustls::ServerConfig>>,
    rules: TlsRules,
}

/// Address, certificate and callback URL: those of this boot if there are any, else new ones.
async fn advertise(
    config: &Config,
    machine: &Arc<dyn Machine>,
    inventory: &Inventory,
    api: &ApiClient,
    node: &Node,
) -> Result<Ready, Fatal> {
    let mut identity = node.identity.clone();
    if identity.advertised.is_none() {
        let host = address::advertised(machine, config, &api.urls()).await?;
        let api_takes_certificates =
            node.version.is_none_or(|version| version >= ApiVersion::AGENT_VERIFY_CA);
        let auto = config.auto_tls && config.listen_identity.is_none() && api_takes_certificates;
        let pair = match auto {
            true => Some(api::tls::make(&host, &inventory.hostname, config.curve, SystemTime::now())?),
            false => None,
        };
        let https = auto || config.listen_identity.is_some() || config.advertise_https;
        if !https {
            tracing::warn!(
                "the command API is plain HTTP: anybody on this network can read what the controller sends"
            );
        }
        let (certificate, key) = pair.map(|pair| (pair.certificate, pair.key)).unzip();
        let callback_url = address::callback_url(https, &host, config.advertise_port);
        identity.advertised = Some(Advertised { callback_url, certificate, key });
    }
    let pair = identity
        .advertised
        .clone()
        .and_then(|a| Some(api::tls::Pair { certificate: a.certificate?, key: a.key? }));
    let rules = node.tls(config);
    if let Some(told) = pair.as_ref().and_then(|_| rules.told_of_own_certificate()) {
        tracing::warn!("{told}");
    }
    let server_tls = match (pair, &config.listen_identity) {
        (Some(pair), _) => Some(api::tls::server_config(&pair, &rules)?),
        (None, Some(files)) => Some(api::tls::server_config_from(files, &rules)?),
        (None, None) => None,
    };
    Ok(Ready { identity, server_tls, rules })
}

/// After the first heartbeat the machine is ready: says where each second until then went.
fn greeted() {
    timeline::mark(timeline::HEARTBEAT);
    tracing::info!("{}", timeline::summary());
}

#[cfg(test)]
mod tests;
