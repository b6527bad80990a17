//! Posts the data: to the first address that answers, again while the controller is busy or away.

use crate::fetch::{self, Answer, Ask, FetchError};
use bytes::Bytes;
use ferric_common::wire::error::ironic_text;
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Pauses between the five tries.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20), Duration::from_secs(30)];
/// Bytes of an answer that are read.
const ANSWER: usize = 1 << 20;

/// One POST to one address. A trait so that tests can play the controller with virtual time.
pub trait Post: Send + Sync {
    fn post(&self, url: &Url, body: Bytes) -> impl Future<Output = Result<Answer, FetchError>> + Send;
}

/// The real wire. The newest API version is not asked for: the answer to it would hold the node's token a second time.
pub struct Wire {
    pub tls: Arc<rustls::ClientConfig>,
    pub within: Duration,
    pub request_id: Option<String>,
}

impl Post for Wire {
    async fn post(&self, url: &Url, body: Bytes) -> Result<Answer, FetchError> {
        let json = HeaderValue::from_static("application/json");
        let mut headers = vec![(CONTENT_TYPE, json.clone()), (ACCEPT, json)];
        if let Some(id) = self.request_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.push((HeaderName::from_static("x-openstack-request-id"), id));
        }
        let ask =
            Ask { method: Method::POST, url: url.clone(), headers, body, limit: ANSWER, within: self.within };
        fetch::exchange(&self.tls, ask).await
    }
}

/// The controller does not have the data.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("{to} answered error {status}: {words}")]
    Refused { to: String, status: u16, words: String },
    #[error("posting was tried {tries} times, at last: {reason}")]
    GaveUp { tries: usize, reason: String },
}

/// Answers the node's UUID, if the controller names it.
///
/// # Errors
/// [`PostError`] when the controller refuses, or after five tries.
pub async fn deliver(post: &impl Post, urls: &[Url], body: &str) -> Result<Option<String>, PostError> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut pauses = PAUSES.iter();
    loop {
        let reason = match round(post, urls, &body).await {
            Ok((_, answer)) if (200..300).contains(&answer.status) => return Ok(uuid(&answer)),
            Ok((to, answer)) if answer.status < 500 && answer.status != 409 => {
                return Err(PostError::Refused {
                    to,
                    status: answer.status,
                    words: ironic_text(&answer.text()),
                });
            }
            Ok((to, answer)) => {
                format!("{to} answered error {}: {}", answer.status, ironic_text(&answer.text()))
            }
            Err(reason) => reason,
        };
        match pauses.next() {
            Some(pause) => {
                tracing::warn!("inspection: {reason}; trying again in {} s", pause.as_secs());
                tokio::time::sleep(*pause).await;
            }
            None => return Err(PostError::GaveUp { tries: PAUSES.len() + 1, reason }),
        }
    }
}

/// The first address that answers, whatever it says.
async fn round(post: &impl Post, urls: &[Url], body: &Bytes) -> Result<(String, Answer), String> {
    let mut reason = "no address to post to".to_owned();
    for url in urls {
        match post.post(url, body.clone()).await {
            Ok(answer) => return Ok((fetch::printable(url), answer)),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

fn uuid(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(body.get("uuid")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use tokio::time::Instant;

    /// Answers in order; status 0 is a connection that fails.
    struct Script {
        answers: Mutex<VecDeque<(u16, &'static str)>>,
        asked: Mutex<Vec<String>>,
    }

    impl Post for Script {
        async fn post(&self, url: &Url, _: Bytes) -> Result<Answer, FetchError> {
            self.asked.lock().unwrap().push(url.host_str().unwrap().to_owned());
            let (status, body) = self.answers.lock().unwrap().pop_front().unwrap();
            match status {
                0 => Err(FetchError::Connect {
                    to: url.to_string(),
                    source: std::io::ErrorKind::ConnectionRefused.into(),
                }),
                status => Ok(Answer { status, headers: http::HeaderMap::new(), body: body.into() }),
            }
        }
    }

    async fn run(answers: &[(u16, &'static str)]) -> (Result<Option<String>, PostError>, Vec<String>, u64) {
        let script =
            Script { answers: Mutex::new(answers.iter().copied().collect()), asked: Mutex::default() };
        let urls = ["http://a/x", "http://b/x"].map(|url| Url::parse(url).unwrap());
        let began = Instant::now();
        let result = deliver(&script, &urls, "{}").await;
        (result, script.asked.into_inner().unwrap(), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_asked_when_one_is_silent_and_the_node_is_named() {
        let (result, asked, seconds) = run(&[(0, ""), (202, r#"{"uuid": "u-1"}"#)]).await;
        assert_eq!((result.unwrap().as_deref(), seconds), (Some("u-1"), 0));
        assert_eq!(asked, ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_node_and_a_broken_server_are_tried_five_times() {
        let busy = (409, r#"{"error_message": "{\"faultstring\": \"Node is locked\"}"}"#);
        let (result, asked, seconds) = run(&[busy, (503, "no"), busy, (500, "no"), busy]).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "posting was tried 5 times, at last: http://a/x answered error 409: Node is locked"
        );
        assert_eq!((asked.len(), seconds), (5, 65));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final_and_in_the_controllers_words() {
        let (result, asked, _) =
            run(&[(404, r#"{"error_message": "{\"faultstring\": \"unknown node\"}"}"#)]).await;
        assert_eq!(result.unwrap_err().to_string(), "http://a/x answered error 404: unknown node");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_a_node_is_a_success() {
        for body in ["", "{}", "[]", r#"{"uuid": null}"#] {
            assert_eq!(run(&[(200, body)]).await.0.unwrap(), None, "{body}");
        }
    }
}
