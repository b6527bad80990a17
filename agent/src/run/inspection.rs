//! The inspection at the start of a life, and the life of an agent that was booted for nothing else.

use super::node::remembered;
use super::{Executor, Fatal, Parts, context, listen, served};
use crate::api::{self, ReadRule};
use crate::commands::steps;
use crate::config::Config;
use crate::inspection::{Inspector, Wire};
use crate::inventory::Roots;
use crate::platform::machine::Machine;
use crate::state::Identity;
use ferric_common::ids::AgentToken;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Notify;

/// Inspects if that is asked for; answers the node's UUID if the controller named it. What goes wrong is said and no more:
/// a controller that waits for the data tells its operator, and a lookup may still succeed.
pub(super) async fn inspect(
    config: &Config,
    machine: &Arc<dyn Machine>,
    tls: &Arc<rustls::ClientConfig>,
) -> Option<String> {
    let settings = config.inspection.as_ref()?;
    let managers = steps::hardware_manager_version();
    let inspector = Inspector { machine, settings, roots: Roots::default(), managers };
    let wire =
        Wire { tls: Arc::clone(tls), within: config.request_timeout, request_id: config.request_id.clone() };
    match inspector.inspect(&wire).await {
        Ok(uuid) => {
            let node = uuid.as_deref().map(|uuid| format!(", this is node {uuid}")).unwrap_or_default();
            tracing::info!("inspection: the controller has the data{node}");
            uuid
        }
        Err(error) => {
            tracing::error!("inspection failed: {error}");
            None
        }
    }
}

/// No API is named: nobody is to be looked up. The command API tells its version, as upstream's does, until the controller
/// switches the machine off; commands need a token, and nobody was given one.
pub(super) async fn stay(
    parts: Parts,
    tls: Arc<rustls::ClientConfig>,
    stop: impl Future<Output = ()>,
) -> Result<(), Fatal> {
    let config = parts.config.clone();
    tracing::info!("no controller is named to look up this machine at (ipa-api-url): waiting for power-off");
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(|error| format!("making a token: {error}"))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = Identity { token: token.clone(), ..Identity::default() };
    let token = AgentToken::new(token).ok_or("making a token")?;
    let nobody = remembered(&identity);
    let listener = listen(&config).await?;
    let context = context::context(parts, &nobody, identity, tls);
    let executor = Arc::new(Executor::new(Arc::new(context), Vec::new(), None, Arc::new(Notify::new())));
    let base = format!("http://localhost:{}", config.listen_port);
    let served = served(executor, token, ReadRule::Always, base);
    tokio::select! {
        () = api::server::serve(listener, None, Arc::new(served)) => {}
        () = stop => tracing::info!("stopping"),
    }
    Ok(())
}
