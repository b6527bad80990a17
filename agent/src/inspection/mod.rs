//! Inspection: what this machine is made of is collected and posted to the controller, before the controller is asked which
//! node this is. It never stops the agent: what goes wrong is in the data, for the operator, and in the log.
//!
//! Source of the rules: ironic-python-agent 13.0.0, `inspector.py`. What differs on purpose: LLDP has one deadline for all
//! interfaces together, an IPv6 address ends the wait for addresses as an IPv4 one does.

mod addresses;
mod collectors;
mod post;

pub use post::Wire;

use crate::config::Inspection;
use crate::inventory::Roots;
use crate::platform::machine::Machine;
use collectors::Report;
use post::{Post, PostError};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Why an inspection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// The data is with the controller, which fails the inspection with these words.
    #[error("{0}")]
    Incomplete(String),
    #[error("{0}")]
    NotPosted(#[from] PostError),
    #[error("collecting ended before its time")]
    Lost,
}

/// What an inspection works with.
pub struct Inspector<'a> {
    pub machine: &'a Arc<dyn Machine>,
    pub settings: &'a Inspection,
    pub roots: Roots,
    /// Name and version of what answers for the hardware, as steps are published under.
    pub managers: Value,
}

impl Inspector<'_> {
    /// Collects and posts; answers the node's UUID if the controller named it.
    ///
    /// # Errors
    /// [`InspectionError`]; the agent goes on all the same.
    pub async fn inspect(self, post: &impl Post) -> Result<Option<String>, InspectionError> {
        let report = match collectors::unknown(&self.settings.collectors) {
            Some(words) => Report::refused(words),
            None => self.collect().await.ok_or(InspectionError::Lost)?,
        };
        let failures = report.failures();
        let body = report.into_body();
        tracing::info!("inspection: posting {} KiB about this machine", body.len() >> 10);
        let uuid = post::deliver(post, &self.settings.urls, &body).await?;
        match failures {
            None => Ok(uuid),
            Some(words) => Err(InspectionError::Incomplete(words)),
        }
    }

    async fn collect(&self) -> Option<Report> {
        let settings = self.settings.clone();
        tracing::info!("inspection: collecting {}", settings.collectors.join(", "));
        // Switches speak every thirty seconds: the sooner one listens, the better.
        let listening = settings.wants_lldp().then(|| {
            let (machine, wait) = (Arc::clone(self.machine), settings.lldp_timeout);
            tokio::task::spawn_blocking(move || collectors::listen(machine.as_ref(), wait))
        });
        if settings.wants(collectors::DEFAULT) {
            addresses::wait(self.machine, &settings).await;
        }
        let lldp = match listening {
            Some(task) => Some(task.await.ok()?),
            None => None,
        };
        let (machine, roots, managers) =
            (Arc::clone(self.machine), self.roots.clone(), self.managers.clone());
        let work = move || collectors::collect(machine.as_ref(), &roots, &settings, managers, lldp);
        tokio::task::spawn_blocking(work).await.ok()
    }
}

impl Inspection {
    fn wants(&self, collector: &str) -> bool {
        self.collectors.iter().any(|name| name == collector)
    }
    fn wants_lldp(&self) -> bool {
        self.collect_lldp || self.wants(collectors::LLDP)
    }
}

/// Pauses between looks at the interfaces.
const LOOK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
