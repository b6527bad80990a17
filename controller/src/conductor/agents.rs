//! Lookup and heartbeat: what machines say of themselves. Nobody here is trusted before the token proves it, and no answer
//! tells a stranger whether a node exists.

use super::{Conductor, Lease, Refusal};
use crate::domain::decide;
use crate::domain::node::Node;
use crate::ramdisk::tls::parse_certificates;
use crate::store::PortFilter;
use ferric_common::ids::{AgentToken, MacAddress, NodeUuid};
use ferric_common::wire::heartbeat::Heartbeat;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use url::{Host, Url};

/// A node that was found, and its token if this is the one lookup that gets it.
pub struct LookupAnswer {
    pub node: Node,
    pub token: Option<AgentToken>,
}

/// First microversion whose lookups get a token.
const TOKENS_SINCE: u16 = ferric_common::wire::version::ApiVersion::AGENT_TOKEN.0;

fn invalid_token() -> Refusal {
    Refusal::Invalid("Invalid or missing agent token received.".to_string())
}

impl Conductor {
    /// Finds the node of a machine by UUID, or by its MAC addresses, which must lead to exactly one node.
    ///
    /// # Errors
    /// A bare 404 for every miss; [`Refusal::Locked`] while the node is busy.
    pub async fn lookup(
        self: &Arc<Self>,
        addresses: Vec<MacAddress>,
        node_uuid: Option<NodeUuid>,
        version: u16,
        from: IpAddr,
    ) -> Result<LookupAnswer, Refusal> {
        let uuid = match node_uuid {
            Some(uuid) => uuid,
            None => {
                let ports = self.store.ports(PortFilter { addresses, ..PortFilter::default() }).await?;
                let nodes: BTreeSet<NodeUuid> = ports.iter().map(|p| p.node_uuid).collect();
                match (nodes.len(), nodes.first()) {
                    (1, Some(uuid)) => *uuid,
                    _ => return Err(Refusal::no_resource()),
                }
            }
        };
        let node = self.store.node(uuid).await?.ok_or_else(Refusal::no_resource)?;
        if !node.provision_state.allows_lookup() {
            return Err(Refusal::no_resource());
        }
        let first_of_boot = node.agent.token.is_none() || self.may_issue_again(&node, from);
        if version < TOKENS_SINCE || !first_of_boot {
            self.note_second_taker(&node, from);
            return Ok(LookupAnswer { node, token: None });
        }
        let mut lease = self.lease(uuid).await?;
        let node = &lease.node;
        if !node.provision_state.allows_lookup() {
            return Err(Refusal::no_resource());
        }
        if node.agent.token.is_some() && !self.may_issue_again(node, from) {
            self.note_second_taker(node, from);
            return Ok(LookupAnswer { node: node.clone(), token: None });
        }
        let token = self.issue_token(&mut lease, from).await?;
        let node = lease.node.clone();
        drop(lease);
        self.wake(uuid);
        Ok(LookupAnswer { node, token: Some(token) })
    }

    /// A controller that was killed between storing a token and sending it would lock the machine out for good. So a token
    /// of an earlier run of the program, with which no heartbeat ever came, is replaced by a new one for the same address.
    fn may_issue_again(&self, node: &Node, from: IpAddr) -> bool {
        let agent = &node.agent;
        agent.token.is_some()
            && !agent.token_proven
            && agent.token_run.as_deref() != Some(&self.run)
            && agent.token_address.as_deref() == Some(from.to_string().as_str())
    }

    async fn issue_token(&self, lease: &mut Lease<'_>, from: IpAddr) -> Result<AgentToken, Refusal> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|e| Refusal::Unavailable(format!("no random bytes: {e}")))?;
        let token = AgentToken::from_random(&random);
        let sealed = self
            .sealer
            .seal(&lease.node.uuid.to_string(), token.expose())
            .map_err(|e| Refusal::Unavailable(e.to_string()))?;
        let agent = &mut lease.node.agent;
        agent.token = Some(sealed);
        agent.token_run = Some(self.run.clone());
        agent.token_address = Some(from.to_string());
        let now = Timestamp::now();
        lease.node.wait = decide::refresh_wait(&lease.node, &self.settings.deadlines, now);
        lease.slot.see(format!("the ramdisk looked itself up from {from}"), now);
        lease.save().await?;
        Ok(token)
    }

    /// The token of this boot is out. The same machine may ask again; another one claims an identity that is not its own.
    fn note_second_taker(self: &Arc<Self>, node: &Node, from: IpAddr) {
        let Some(first) = node.agent.token_address.clone() else { return };
        let slot = self.slots.slot(node.uuid);
        let known = |url: &str| Url::parse(url).ok().and_then(|u| host_ip(&u)) == Some(from);
        if first == from.to_string() || node.agent.url.as_deref().is_some_and(known) {
            if !node.agent.token_proven {
                slot.see(
                    format!("a second lookup from {from}, which got no token (the first one did); if the ramdisk was restarted, power the machine off and on by this controller"),
                    Timestamp::now(),
                );
            }
            return;
        }
        let text = format!(
            "A second machine at {from} claims to be node {}: its token was already given to {first}. One of them uses a MAC address that is not its own; find it before deploying again",
            node.uuid
        );
        tracing::error!(node = %node.uuid, %from, %first, "a second machine claims this node");
        slot.claim(text);
        self.wake(node.uuid);
    }

    /// An agent says that it is alive, and where.
    ///
    /// # Errors
    /// 400 for a wrong token (the same for a node that does not exist or has no token), a URL or certificate that does not fit;
    /// [`Refusal::Locked`] while a busy node does not know its agent yet.
    pub async fn heartbeat(
        self: &Arc<Self>,
        uuid: NodeUuid,
        beat: Heartbeat,
        from: IpAddr,
    ) -> Result<(), Refusal> {
        let node = self.store.node(uuid).await?.ok_or_else(invalid_token)?;
        self.prove(&node, &beat)?;
        self.check_introduction(&node, &beat, from)?;
        let now = Timestamp::now();
        let slot = self.slots.slot(uuid);
        slot.hear(now);
        slot.see(format!("a heartbeat from {}", beat.callback_url), now);
        let introduced = node.agent.url.is_some() && node.agent.token_proven;
        match self.lease(uuid).await {
            Ok(mut lease) => {
                self.prove(&lease.node, &beat)?;
                self.check_introduction(&lease.node, &beat, from)?;
                self.record(&mut lease, beat, now).await?;
            }
            // The sign of life is remembered; the record can wait.
            Err(Refusal::Locked { .. }) if introduced => {}
            Err(other) => return Err(other),
        }
        self.wake(uuid);
        Ok(())
    }

    fn prove(&self, node: &Node, beat: &Heartbeat) -> Result<(), Refusal> {
        let given = beat.agent_token.as_deref().unwrap_or_default();
        let kept = node
            .agent
            .token
            .as_deref()
            .and_then(|sealed| self.sealer.open(&node.uuid.to_string(), sealed))
            .and_then(|plain| AgentToken::new(plain.as_str()));
        match kept {
            Some(token) if token.matches(given) => Ok(()),
            _ => {
                tracing::warn!(node = %node.uuid, "a heartbeat without the right token was refused");
                Err(invalid_token())
            }
        }
    }

    /// Where the agent says it is, and by which certificate it is known. Fixed by the first valid heartbeat of a boot.
    fn check_introduction(&self, node: &Node, beat: &Heartbeat, from: IpAddr) -> Result<(), Refusal> {
        let bad = |text: &str| Err(Refusal::Invalid(text.to_string()));
        let url = match Url::parse(&beat.callback_url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ => return bad("An issue with the supplied \"callback_url\" has been detected."),
        };
        if node.agent.url.as_deref().is_some_and(|known| known != beat.callback_url) {
            return bad("Detected change in ramdisk provided \"callback_url\"");
        }
        if let Some(status) = &beat.agent_status {
            if !["start", "end", "error"].contains(&status.as_str()) {
                return bad("Agent status is invalid. Valid states are start,end,error.");
            }
        } else if beat.agent_version.as_deref().unwrap_or_default().is_empty() {
            return bad("Agent version is required for heartbeat processing.");
        }
        if self.settings.require_tls && url.scheme() != "https" {
            return bad("TLS is required by configuration");
        }
        self.check_address(&url, from)?;
        match (&beat.agent_verify_ca, &node.agent.certificate) {
            (Some(new), Some(known)) if new != known => {
                bad("Detected change in ramdisk provided TLS certificate")
            }
            (Some(new), _) => parse_certificates(new)
                .map(|_| ())
                .map_err(|e| Refusal::Invalid(format!("The supplied agent_verify_ca cannot be used: {e}"))),
            (None, None) if url.scheme() == "https" => bad(
                "An https callback_url needs agent_verify_ca: the agent's certificate is how this controller knows it",
            ),
            (None, _) => Ok(()),
        }
    }

    fn check_address(&self, url: &Url, from: IpAddr) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            Err(Refusal::Invalid(format!(
                "An issue with the supplied \"callback_url\" has been detected: {why}"
            )))
        };
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && matches!(url.path(), "" | "/");
        if !plain || url.as_str().len() > ferric_common::limits::URL {
            return refuse("only scheme, address and port are allowed");
        }
        let Some(ip) = host_ip(url) else { return refuse("its host must be an IP address") };
        if url.port().is_none() {
            return refuse("it must name the port");
        }
        let allowed = self.settings.networks.iter().any(|n| n.contains(ip));
        let own = Url::parse(&self.settings.api_url).ok().and_then(|u| host_ip(&u));
        if own == Some(ip) && !ip.is_loopback() {
            return refuse("it is this controller's own address");
        }
        if ip.is_multicast() || ip.is_unspecified() || is_link_local(ip) || (ip.is_loopback() && !allowed) {
            return refuse("this kind of address cannot be called");
        }
        if ip != from && !allowed {
            return refuse(
                "its address is neither the sender's nor in one of the configured networks ([agent] networks)",
            );
        }
        Ok(())
    }

    async fn record(&self, lease: &mut Lease<'_>, beat: Heartbeat, now: Timestamp) -> Result<(), Refusal> {
        let agent = &mut lease.node.agent;
        agent.url = Some(beat.callback_url);
        agent.version = beat.agent_version;
        agent.certificate = beat.agent_verify_ca.or(agent.certificate.take());
        agent.last_heartbeat = Some(now);
        agent.token_proven = true;
        agent.status = beat.agent_status;
        agent.status_message = beat.agent_status_message.map(|m| m.chars().take(1024).collect());
        lease.node.wait = decide::refresh_wait(&lease.node, &self.settings.deadlines, now);
        lease.save().await?;
        Ok(())
    }
}

fn host_ip(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
