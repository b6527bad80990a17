//! Says to the conductor that we are alive, and where. Never waits for the executor.

use super::schedule::{heartbeat_interval, heartbeat_wait};
use super::{Exchange, Said, client};
use ferric_common::ids::AgentToken;
use ferric_common::wire::error::ironic_text;
use ferric_common::wire::heartbeat::Heartbeat;
use ferric_common::wire::version::ApiVersion;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What every heartbeat of this boot says: it must not change.
pub struct Beat {
    pub node_uuid: String,
    pub callback_url: String,
    pub token: AgentToken,
    pub agent_version: String,
    /// PEM of the certificate that we made.
    pub certificate: Option<String>,
    /// The conductor's `heartbeat_timeout`.
    pub timeout: Duration,
    /// From the lookup; none: asked before each heartbeat until known.
    pub version: Option<ApiVersion>,
    /// Called once, after the first heartbeat was taken.
    pub greeted: fn(),
}

/// Beats until the future is dropped. `force` is notified whenever an asynchronous command ends.
pub async fn run<E: Exchange>(api: &E, mut beat: Beat, force: &Notify) {
    let mut said = Said::default();
    let mut first = true;
    let (mut last, mut interval, mut forced) = (Instant::now(), Duration::ZERO, false);
    loop {
        let wait = heartbeat_wait(last.elapsed(), interval, forced);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = force.notified(), if !forced => {
                forced = true;
                continue;
            }
        }
        last = Instant::now();
        let sent = send(api, &mut beat).await;
        match &sent {
            Ok(()) => {
                forced = false;
                said.clear();
                if first {
                    tracing::info!(
                        "the controller took the first heartbeat; the command API is {}",
                        beat.callback_url
                    );
                    (beat.greeted)();
                    first = false;
                }
            }
            Err(reason) => {
                if let Some(line) = said.line(reason) {
                    tracing::warn!("heartbeat of node {}: {line}; trying again", beat.node_uuid);
                }
            }
        }
        interval = heartbeat_interval(sent.is_ok(), beat.timeout, super::random());
    }
}

async fn send<E: Exchange>(api: &E, beat: &mut Beat) -> Result<(), String> {
    if beat.version.is_none() {
        beat.version = client::root(api).await.ok().and_then(|root| root.version);
    }
    let version = beat.version.unwrap_or(ApiVersion::FALLBACK).min(ApiVersion::AGENT_VERIFY_CA);
    let body = serde_json::to_string(&body(beat, version)).map_err(|e| e.to_string())?;
    let path = format!("/v1/heartbeat/{}", beat.node_uuid);
    let answer = api.ask(&path, Some(version), Some(body)).await.map_err(|e| e.to_string())?;
    let words = || ironic_text(&answer.text());
    match answer.status {
        202 => Ok(()),
        409 => Err(format!("the node is locked (409): {}", words())),
        status => Err(format!("the API answered {status}: {}", words())),
    }
}

/// Only the fields that the negotiated version knows: the API answers 400 to any other.
fn body(beat: &Beat, version: ApiVersion) -> Heartbeat {
    let from = |least: ApiVersion, value: Option<String>| value.filter(|_| version >= least);
    Heartbeat {
        callback_url: beat.callback_url.clone(),
        agent_token: from(ApiVersion::AGENT_TOKEN, Some(beat.token.expose().to_string())),
        agent_version: from(ApiVersion::AGENT_VERSION, Some(beat.agent_version.clone())),
        agent_verify_ca: from(ApiVersion::AGENT_VERIFY_CA, beat.certificate.clone()),
        agent_status: None,
        agent_status_message: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conductor::script::Script;

    fn beat(version: u16) -> Beat {
        Beat {
            node_uuid: "n".into(),
            callback_url: "https://192.0.2.10:9999".into(),
            token: AgentToken::new("t".repeat(43)).unwrap(),
            agent_version: "v".into(),
            certificate: Some("PEM".into()),
            timeout: Duration::from_secs(300),
            version: Some(ApiVersion(version)),
            greeted: || {},
        }
    }

    async fn beats(answers: &[(u16, &str)], seconds: u64, force_at: Option<u64>) -> Vec<u64> {
        let api = Script::new("1.115", answers);
        let force = Notify::new();
        let began = Instant::now();
        let forcing = async {
            if let Some(at) = force_at {
                tokio::time::sleep(Duration::from_secs(at)).await;
                force.notify_one();
            }
            std::future::pending::<()>().await;
        };
        let both = async {
            tokio::select! { () = run(&api, beat(115), &force) => {}, () = forcing => {} }
        };
        let _ = tokio::time::timeout(Duration::from_secs(seconds), both).await;
        api.times().iter().map(|at| (*at - began).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_immediate_and_the_next_within_bounds() {
        let times = beats(&[(202, "")], 400, None).await;
        assert_eq!(times[0], 0);
        for pair in times.windows(2) {
            assert!((89..=181).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_of_any_kind_it_comes_again_within_ten_seconds() {
        let times = beats(&[(409, "locked"), (400, "no"), (0, ""), (202, "")], 60, None).await;
        assert_eq!(times.len(), 4);
        for pair in times.windows(2) {
            assert!((4..=10).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_command_forces_one_but_not_sooner_than_five_seconds() {
        assert_eq!(beats(&[(202, "")], 60, Some(20)).await, [0, 20]);
        assert_eq!(beats(&[(202, "")], 60, Some(1)).await, [0, 5]);
    }

    #[test]
    fn an_older_api_gets_only_the_fields_it_knows() {
        let keys = |version| {
            let value = serde_json::to_value(body(&beat(115), ApiVersion(version))).unwrap();
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(31), "callback_url");
        assert_eq!(keys(36), "agent_version callback_url");
        assert_eq!(keys(62), "agent_token agent_version callback_url");
        assert_eq!(keys(68), "agent_token agent_verify_ca agent_version callback_url");
    }
}
