//! Which node am I? Asks until the API knows one of our MAC addresses, then takes the token, which is given once.

use super::clock;
use super::schedule::LookupSchedule;
use super::{Exchange, Said, client};
use ferric_common::ids::AgentToken;
use ferric_common::limits;
use ferric_common::wire::error::ironic_text;
use ferric_common::wire::lookup::{LookupResponse, MASK};
use ferric_common::wire::version::ApiVersion;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// What to ask with, and for how long.
pub struct Plan {
    /// Called before each try; in inventory order. May block.
    pub macs: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Only when the node is known already; the server then looks up by it alone.
    pub node_uuid: Option<String>,
    /// From the boot parameters or from an earlier life of this process.
    pub own_token: Option<AgentToken>,
    pub fixed_version: Option<ApiVersion>,
    pub interval: Duration,
    pub give_up_after: Duration,
}

/// A node, and the right to speak for it.
#[derive(Debug)]
pub struct Found {
    pub response: LookupResponse,
    pub token: AgentToken,
    /// None: detection failed, ask again before the next call.
    pub version: Option<ApiVersion>,
}

/// Why there is no node to speak for.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The time is used up.
    #[error(
        "no node was found for {macs} within {} s ({tries} tries); the last answer, {times} times: {reason}",
        .within.as_secs()
    )]
    NotFound { macs: String, within: Duration, tries: u32, times: u32, reason: String },
    /// No other answer will come before the controller ends this boot.
    #[error(
        "node {node} was found, but its token was already handed out and this agent does not have it: another machine, or an \
         earlier boot that the controller does not know has ended; power the node off and on through the controller"
    )]
    Taken { node: String },
}

/// Why one try failed.
enum Refused {
    Again { reason: String, locked: bool },
    Taken { node: String },
}

impl From<String> for Refused {
    fn from(reason: String) -> Refused {
        Refused::Again { reason, locked: false }
    }
}

/// Asks until an answer can be used. `set_clock` is called at most once, when the API's clock is far from ours.
///
/// # Errors
/// [`LookupError::NotFound`] after [`Plan::give_up_after`], with the last reason in the API's own words;
/// [`LookupError::Taken`] at once.
pub async fn lookup<E: Exchange>(
    api: &E,
    plan: &Plan,
    mut set_clock: impl FnMut(SystemTime),
) -> Result<Found, LookupError> {
    let began = Instant::now();
    let mut schedule = LookupSchedule::new(plan.interval, plan.give_up_after);
    let mut said = Said::default();
    let mut clock_checked = false;
    loop {
        let read = Arc::clone(&plan.macs);
        let macs = tokio::task::spawn_blocking(move || read()).await.unwrap_or_default();
        let mut on_date = |date: &str| {
            if !clock_checked {
                clock_checked = true;
                if let Some(theirs) = clock::correction(date, SystemTime::now()) {
                    set_clock(theirs);
                }
            }
        };
        let (reason, locked) = match one_try(api, plan, &macs, &mut on_date).await {
            Ok(found) => return Ok(found),
            Err(Refused::Taken { node }) => return Err(LookupError::Taken { node }),
            Err(Refused::Again { reason, locked }) => (reason, locked),
        };
        if let Some(line) = said.line(&reason) {
            tracing::warn!("lookup of {}: {line}; trying again", macs.join(", "));
        }
        match schedule.after_failure(began.elapsed(), locked, super::random()) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => {
                let (reason, times) = said.last();
                return Err(LookupError::NotFound {
                    macs: macs.join(", "),
                    within: plan.give_up_after,
                    tries: schedule.tries(),
                    times,
                    reason: reason.to_string(),
                });
            }
        }
    }
}

async fn one_try<E: Exchange>(
    api: &E,
    plan: &Plan,
    macs: &[String],
    on_date: &mut impl FnMut(&str),
) -> Result<Found, Refused> {
    if macs.is_empty() {
        let text = "this machine has no network interface with a MAC address; is its driver in the ramdisk?";
        return Err(text.to_string().into());
    }
    let root = client::root(api).await.map_err(|error| format!("{error}"))?;
    if let Some(date) = &root.date {
        on_date(date);
    }
    let version = plan.fixed_version.or(root.version);
    let header = version.unwrap_or(ApiVersion::FALLBACK).min(ApiVersion::AGENT_TOKEN);
    let answer = api.ask(&path(plan, macs), Some(header), None).await.map_err(|error| format!("{error}"))?;
    let text = answer.text();
    match answer.status {
        200 => {}
        409 => {
            let words = ironic_text(&text);
            return Err(Refused::Again {
                reason: format!("the node is locked (409): {words}"),
                locked: true,
            });
        }
        404 => {
            return Err(format!(
                "the API answered 404: {}; either no port with one of these MAC addresses is enrolled, or its node \
                 waits for no ramdisk in its present state",
                ironic_text(&text)
            )
            .into());
        }
        status => return Err(format!("the API answered {status}: {}", ironic_text(&text)).into()),
    }
    let response: LookupResponse = serde_json::from_str(&text)
        .map_err(|error| format!("the API answered 200 with a body that cannot be understood: {error}"))?;
    let token = token(plan, &response)?;
    Ok(Found { response, token, version })
}

fn path(plan: &Plan, macs: &[String]) -> String {
    let macs: Vec<&str> = macs.iter().take(limits::LOOKUP_MACS).map(String::as_str).collect();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("addresses", &macs.join(","));
    if let Some(uuid) = &plan.node_uuid {
        query.append_pair("node_uuid", uuid);
    }
    format!("/v1/lookup?{}", query.finish())
}

fn token(plan: &Plan, response: &LookupResponse) -> Result<AgentToken, Refused> {
    let given = response.config.agent_token.as_deref();
    if let Some(token) = given.and_then(AgentToken::new) {
        return Ok(token);
    }
    match (&plan.own_token, given) {
        (Some(own), _) => Ok(own.clone()),
        (None, Some(MASK)) => Err(Refused::Taken { node: response.node.uuid.clone() }),
        (None, _) => Err(format!(
            "node {} was found, but the answer holds no agent token of at least {} characters",
            response.node.uuid,
            AgentToken::MIN_LEN
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conductor::script::Script;

    const TOKEN: &str = "ITLK99NsJamtziNUKfxurgwI3eUpuAyMhsibEP9D_kM";
    const NOT_FOUND: &str = r#"{"error_message": "{\"faultcode\": \"Client\", \"faultstring\": \"Resource could not be found.\", \"debuginfo\": null}"}"#;

    fn found(token: &str) -> String {
        format!(
            r#"{{"node": {{"uuid": "785cae8c-ebc6-4405-b5ac-92e4d182220f"}},
                "config": {{"heartbeat_timeout": 300, "agent_token": "{token}", "unknown": 1}}}}"#
        )
    }
    fn plan(own: Option<&str>) -> Plan {
        Plan {
            macs: Arc::new(|| vec!["52:54:00:ab:cd:01".into(), "52:54:00:ab:cd:02".into()]),
            node_uuid: None,
            own_token: own.and_then(AgentToken::new),
            fixed_version: None,
            interval: Duration::from_secs(1),
            give_up_after: Duration::from_secs(60),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_mac_a_locked_node_and_a_dead_api_are_tried_again() {
        let api = Script::new(
            "1.115",
            &[(404, NOT_FOUND), (409, "busy"), (0, ""), (200, "{"), (200, &found(TOKEN))],
        );
        let found = lookup(&api, &plan(None), |_| {}).await.unwrap();
        assert_eq!(found.token.expose(), TOKEN);
        assert_eq!(found.version, Some(ApiVersion(115)));
        let asked = api.asked();
        assert_eq!(asked.len(), 5);
        assert_eq!(
            asked[0],
            (
                "/v1/lookup?addresses=52%3A54%3A00%3Aab%3Acd%3A01%2C52%3A54%3A00%3Aab%3Acd%3A02".into(),
                Some("1.62".into()),
                None
            )
        );
        let times = api.times();
        assert!(times[2] - times[1] >= Duration::from_secs(6), "a 409 adds 5 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_ends_with_the_words_of_the_api() {
        let api = Script::new("1.115", &[(404, NOT_FOUND)]);
        let began = Instant::now();
        let error = lookup(&api, &plan(None), |_| {}).await.unwrap_err().to_string();
        assert!(
            error.starts_with("no node was found for 52:54:00:ab:cd:01, 52:54:00:ab:cd:02 within 60 s ("),
            "{error}"
        );
        assert!(
            error.contains("the API answered 404: Resource could not be found.; either no port"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(130), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_masked_token_is_good_only_with_one_of_our_own() {
        let api = Script::new("1.115", &[(200, &found(MASK))]);
        let own = lookup(&api, &plan(Some(TOKEN)), |_| {}).await.unwrap();
        assert_eq!(own.token.expose(), TOKEN);
        let error = lookup(&api, &plan(None), |_| {}).await.unwrap_err();
        assert!(matches!(error, LookupError::Taken { .. }), "{error}");
        assert!(error.to_string().contains("its token was already handed out"), "{error}");
        assert_eq!(api.asked().len(), 2, "asking again would change nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_api_gets_the_version_it_knows() {
        let api = Script::new("1.58", &[(200, &found(TOKEN))]);
        lookup(&api, &plan(None), |_| {}).await.unwrap();
        assert_eq!(api.asked()[0].1.as_deref(), Some("1.58"));
    }
}
