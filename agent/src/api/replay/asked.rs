//! The other way: what the recorded agents asked of the API, asked by our client of a conductor that answers as recorded.

use super::{Found, compare, lines, recordings};
use crate::conductor::client::{self, ApiClient};
use crate::conductor::heartbeat::{self, Beat};
use crate::conductor::lookup::{self, LookupError, Plan};
use crate::conductor::{address, tls};
use crate::config::Trust;
use crate::testing::{LoopbackConductor, Received, until};
use ferric_common::ids::AgentToken;
use ferric_common::wire::error::ironic_text;
use ferric_common::wire::lookup::MASK;
use ferric_common::wire::version::ApiVersion;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use url::Url;

/// What differs, each with a file where it does. Inspection data is left to the test that has a machine to inspect.
pub(super) async fn found() -> BTreeMap<(String, String), String> {
    let tls = tls::client_config(&Trust::SystemRoots).unwrap();
    let (mut found, mut asked) = (BTreeMap::new(), BTreeMap::new());
    for file in recordings() {
        let mut life = Life { tls: Arc::clone(&tls), root: String::new(), token: None };
        for exchange in lines(&file).filter(|exchange| exchange["dir"] == "agent->ironic") {
            let Some((name, differences)) = life.ask(&exchange).await else { continue };
            *asked.entry(name).or_insert(0) += 1;
            for difference in differences {
                found.entry(difference).or_insert(file.clone());
            }
        }
    }
    for name in [ROOT, LOOKUP, HEARTBEAT] {
        assert!(asked.get(name).is_some_and(|times| *times > 30), "{asked:?}");
    }
    found
}

const ROOT: &str = "question for the API's version";
const LOOKUP: &str = "lookup";
const HEARTBEAT: &str = "heartbeat";

/// One recorded agent, from its first question to its last.
struct Life {
    tls: Arc<rustls::ClientConfig>,
    /// What the API said of itself last.
    root: String,
    /// What the last lookup gave.
    token: Option<AgentToken>,
}

impl Life {
    /// Asks the same; how our request differs, and a panic if the recorded answer is not understood.
    async fn ask(&mut self, recorded: &Value) -> Option<(&'static str, Found)> {
        let url = recorded["url"].as_str().unwrap();
        let status = u16::try_from(recorded["status"].as_u64()?).unwrap();
        let answer = match &recorded["resp_body"] {
            Value::Object(body) => json!(body).to_string(),
            _ => String::new(),
        };
        if url == "/" {
            self.root = answer.clone();
        }
        let conductor =
            LoopbackConductor::start_as(&self.root, &[(status, &answer)], &[(status, &answer)]).await;
        let base = Url::parse(&conductor.url).unwrap();
        let api = ApiClient::new(vec![base], Arc::clone(&self.tls), Duration::from_secs(30), None);
        let name = if url == "/" {
            assert_eq!(client::root(&api).await.unwrap().version, Some(ApiVersion::MAX));
            ROOT
        } else if url.starts_with("/v1/lookup?") {
            self.look_up(&api, url, status, &answer).await;
            LOOKUP
        } else if let Some(node) = url.strip_prefix("/v1/heartbeat/") {
            assert_eq!(status, 202, "no other answer was recorded");
            beat(&api, node, &recorded["req_body"]).await;
            HEARTBEAT
        } else {
            return None;
        };
        let prefix = url.split('?').next().unwrap();
        let ours = conductor.received(prefix).into_iter().rfind(|ours| prefix != "/" || ours.path == "/");
        Some((name, differences(name, &ours.unwrap(), recorded)))
    }

    /// One try, as a time that is used up allows no other.
    async fn look_up(&mut self, api: &ApiClient, url: &str, status: u16, answer: &str) {
        let url = Url::parse("http://api").unwrap().join(url).unwrap();
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        let macs: Vec<String> = query["addresses"].split(',').map(str::to_owned).collect();
        let plan = Plan {
            macs: Arc::new(move || macs.clone()),
            node_uuid: query.get("node_uuid").cloned(),
            own_token: self.token.clone(),
            fixed_version: None,
            interval: Duration::from_secs(1),
            give_up_after: Duration::ZERO,
        };
        match (status, lookup::lookup(api, &plan, |_| {}).await) {
            (200, Ok(found)) => {
                let theirs: Value = serde_json::from_str(answer).unwrap();
                assert_eq!(found.response.node.uuid, theirs["node"]["uuid"].as_str().unwrap());
                assert_eq!(theirs["config"]["heartbeat_timeout"], found.response.config.heartbeat_timeout);
                let given = theirs["config"]["agent_token"].as_str().unwrap();
                let kept = self.token.as_ref().map(AgentToken::expose);
                assert_eq!(found.token.expose(), if given == MASK { kept.unwrap() } else { given });
                self.token = Some(found.token);
            }
            (404 | 409, Err(LookupError::NotFound { reason, tries: 1, .. })) => {
                assert!(reason.contains(&ironic_text(answer)), "{reason}");
            }
            (_, other) => panic!("{status}: {other:?}"),
        }
    }
}

static GREETED: AtomicUsize = AtomicUsize::new(0);

/// Beats once, with what the recorded agent knew; returns when the answer was taken as a success.
async fn beat(api: &ApiClient, node: &str, said: &Value) {
    let text = |key: &str| said[key].as_str().unwrap().to_owned();
    let callback = Url::parse(&text("callback_url")).unwrap();
    let (host, port) = (callback.host_str().unwrap(), callback.port().unwrap());
    let beat = Beat {
        node_uuid: node.to_owned(),
        callback_url: address::callback_url(callback.scheme() == "https", host, port),
        token: AgentToken::new(text("agent_token")).unwrap(),
        agent_version: "ferric-test".into(),
        certificate: said["agent_verify_ca"].as_str().map(str::to_owned),
        timeout: Duration::from_secs(300),
        version: Some(ApiVersion::MAX),
        greeted: || {
            GREETED.fetch_add(1, Ordering::SeqCst);
        },
    };
    assert_eq!(beat.callback_url, text("callback_url"));
    let before = GREETED.load(Ordering::SeqCst);
    let force = Notify::new();
    tokio::select! {
        () = heartbeat::run(api, beat, &force) => {}
        () = until("a heartbeat that was taken", || (GREETED.load(Ordering::SeqCst) > before).then_some(())) => {}
    }
}

/// Method, address, headers and body; names of headers have no case, and those that name this place or count are left out.
fn differences(name: &str, ours: &Received, recorded: &Value) -> Found {
    let mut found = BTreeSet::new();
    let asked = json!({"method": ours.method, "path": ours.path});
    let theirs = json!({"method": recorded["method"], "path": recorded["url"]});
    if asked != theirs {
        found.insert(format!("{asked} instead of {theirs}"));
    }
    let headers: BTreeMap<String, &str> = recorded["req_headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap()))
        .collect();
    let names = headers.keys().map(String::as_str).chain(ours.headers.keys().map(|name| name.as_str()));
    for header in names.filter(|header| !["host", "content-length"].contains(header)).collect::<BTreeSet<_>>()
    {
        match (ours.headers.get(header).map(|value| value.to_str().unwrap()), headers.get(header)) {
            (Some(a), Some(b)) if a == *b => {}
            (Some(a), Some(b)) => drop(found.insert(format!("header {header}: {a} instead of {b}"))),
            (None, _) => drop(found.insert(format!("header {header}: missing"))),
            (_, None) => drop(found.insert(format!("header {header}: more"))),
        }
    }
    compare("", &ours.body, &recorded["req_body"], &mut found);
    found.into_iter().map(|difference| (name.to_owned(), difference)).collect()
}
