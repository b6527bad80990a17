//! Client of the controller: version, lookup, heartbeat, and where we say that we are.
//!
//! [`ntp`] sets the clock before all else. [`schedule`] is pure and says when; [`lookup`] and [`heartbeat`] decide over an [`Exchange`]; [`client`] and [`tls`]
//! are the wire. Source of the rules: ironic-python-agent 13.0.0, `ironic_api_client.py` and `agent.py`.

pub mod address;
pub mod client;
pub mod clock;
pub mod heartbeat;
pub mod lookup;
pub mod ntp;
pub mod schedule;
pub mod tls;

use crate::fetch::{Answer, FetchError};
use std::future::Future;

/// One question to the API, whichever of its addresses answers. A trait so that tests can play the conductor without a
/// network and with virtual time.
pub trait Exchange: Send + Sync {
    /// `path` begins with `/` and may have a query; `version` is the value of the API version header.
    fn ask(
        &self,
        path: &str,
        version: Option<ferric_common::wire::version::ApiVersion>,
        body: Option<String>,
    ) -> impl Future<Output = Result<Answer, FetchError>> + Send;
}

/// Keeps a console readable: a reason is said when it is new, and again at its 2nd, 4th, 8th, … time with the count.
#[derive(Debug, Default)]
pub struct Said {
    last: String,
    times: u32,
}

impl Said {
    /// The line to print for this occurrence, if any.
    pub fn line(&mut self, reason: &str) -> Option<String> {
        if self.last == reason {
            self.times = self.times.saturating_add(1);
            self.times.is_power_of_two().then(|| format!("{reason} ({} times in a row)", self.times))
        } else {
            self.last = reason.to_string();
            self.times = 1;
            Some(reason.to_string())
        }
    }
    /// Forgets, after a success.
    pub fn clear(&mut self) {
        *self = Said::default();
    }
    /// The last reason and how often it was given in a row.
    pub fn last(&self) -> (&str, u32) {
        (&self.last, self.times)
    }
}

/// A uniform random number; a machine without a random source still spreads a little by its clock.
pub fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos().wrapping_mul(4))
    })
}

/// A scripted conductor for tests: answers by path, counts what it was asked.
#[cfg(test)]
pub(crate) mod script {
    use super::*;
    use ferric_common::wire::version::ApiVersion;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// What was asked: path, version header, body.
    pub type Asked = (String, Option<String>, Option<String>);

    /// Answers `/` with `version`, everything else from the list; the last entry repeats.
    pub struct Script {
        pub version: &'static str,
        pub answers: Mutex<VecDeque<(u16, String)>>,
        pub asked: Mutex<Vec<(tokio::time::Instant, Asked)>>,
    }

    impl Script {
        pub fn new(version: &'static str, answers: &[(u16, &str)]) -> Script {
            let answers = answers.iter().map(|(status, body)| (*status, body.to_string())).collect();
            Script { version, answers: Mutex::new(answers), asked: Mutex::default() }
        }
        /// Everything asked except the root.
        pub fn asked(&self) -> Vec<Asked> {
            self.asked.lock().unwrap().iter().map(|(_, asked)| asked.clone()).collect()
        }
        pub fn times(&self) -> Vec<tokio::time::Instant> {
            self.asked.lock().unwrap().iter().map(|(at, _)| *at).collect()
        }
    }

    impl Exchange for Script {
        async fn ask(
            &self,
            path: &str,
            version: Option<ApiVersion>,
            body: Option<String>,
        ) -> Result<Answer, FetchError> {
            let answer =
                |status, body: String| Answer { status, headers: http::HeaderMap::new(), body: body.into() };
            if path == "/" {
                return Ok(answer(
                    200,
                    format!(r#"{{"default_version": {{"version": "{}"}}}}"#, self.version),
                ));
            }
            let asked = (path.to_string(), version.map(|v| v.to_string()), body);
            self.asked.lock().unwrap().push((tokio::time::Instant::now(), asked));
            let mut answers = self.answers.lock().unwrap();
            let (status, body) = if answers.len() > 1 {
                answers.pop_front().unwrap()
            } else {
                answers.front().cloned().unwrap()
            };
            match status {
                0 => Err(FetchError::Connect {
                    to: "http://api/".into(),
                    source: std::io::ErrorKind::ConnectionRefused.into(),
                }),
                status => Ok(answer(status, body)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_reason_is_not_a_flood() {
        let mut said = Said::default();
        let lines: Vec<String> = ["a", "a", "a", "a", "b", "a"].iter().filter_map(|r| said.line(r)).collect();
        assert_eq!(lines, ["a", "a (2 times in a row)", "a (4 times in a row)", "b", "a"]);
    }
}
