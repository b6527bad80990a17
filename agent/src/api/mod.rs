//! The command API: what a conductor calls on port 9999.
//!
//! [`routes`] is pure, [`server`] moves bytes, [`body`] reads a command while it comes, [`tls`] makes the certificate,
//! [`error`] is the wire's error form. This file joins them: token check, then the body, then the executor. Source of
//! routes and texts: ironic-python-agent 13.0.0, recorded in `tests/golden/traces/`.

pub mod body;
pub mod error;
pub mod json;
pub mod routes;
pub mod server;
pub mod tls;

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;

use crate::executor::Executor;
use error::ApiError;
use ferric_common::ids::AgentToken;
use ferric_common::wire::command::CommandList;
use routes::{Query, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether reading results needs the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRule {
    /// The conductor is known to send it always (API 1.96 and later).
    Always,
    /// Older conductors send it on POST only: reading is free until the first GET with a valid token.
    OnceSeen,
}

/// What the server serves.
pub struct Api {
    pub executor: Arc<Executor>,
    pub token: AgentToken,
    pub read_rule: ReadRule,
    /// Scheme, host and port under which we are reached, for links when a request names no host.
    pub base: String,
    pub version: String,
    /// Seconds since 1970.
    pub started_at: f64,
    seen: AtomicBool,
}

/// An answer before it is bytes.
#[derive(Debug, PartialEq)]
pub enum Reply {
    Json(Value),
    Redirect(String),
}

impl Api {
    pub fn new(
        executor: Arc<Executor>,
        token: AgentToken,
        read_rule: ReadRule,
        base: String,
        version: String,
        started_at: f64,
    ) -> Api {
        Api { executor, token, read_rule, base, version, started_at, seen: AtomicBool::new(false) }
    }

    /// Whether the query carries the token; this is all that opens a body or a connection beyond the first few.
    pub fn is_valid(&self, query: &Query) -> bool {
        query.token.as_deref().is_some_and(|text| self.token.matches(text))
    }

    /// Checks the right to a route, before any of the body is read.
    ///
    /// # Errors
    /// [`ApiError::Token`].
    pub fn authorize(&self, route: &Route, query: &Query) -> Result<(), ApiError> {
        let valid = self.is_valid(query);
        match route {
            Route::Run if !valid => Err(ApiError::Token),
            Route::List | Route::Show(_) => {
                if valid {
                    self.seen.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                let free = self.read_rule == ReadRule::OnceSeen
                    && query.token.is_none()
                    && !self.seen.load(Ordering::Relaxed);
                if free { Ok(()) } else { Err(ApiError::Token) }
            }
            _ => Ok(()),
        }
    }

    /// Answers an authorized request. `base` is how the client reached us, `raw_query` is kept in redirects; only a
    /// command has a body.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn answer(
        &self,
        route: Route,
        query: &Query,
        raw_query: Option<&str>,
        base: &str,
        body: Value,
    ) -> Result<Reply, ApiError> {
        let value = match route {
            Route::Redirect(path) => {
                let query = raw_query.map(|text| format!("?{text}")).unwrap_or_default();
                return Ok(Reply::Redirect(format!("{base}{path}{query}")));
            }
            Route::Root => routes::root_document(base),
            Route::Version => routes::version_document(base),
            Route::Status => json!({"started_at": self.started_at, "version": self.version}),
            Route::List => encode(&CommandList { commands: self.executor.results() })?,
            Route::Show(id) if query.wait => encode(&self.executor.finished(&id).await?)?,
            Route::Show(id) => encode(&self.executor.result(&id)?)?,
            Route::Run => {
                let (name, params) = command(body)?;
                encode(&self.executor.run(&name, params, query.wait).await?)?
            }
        };
        Ok(Reply::Json(value))
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::Crash(error.to_string()))
}

fn command(body: Value) -> Result<(String, serde_json::Map<String, Value>), ApiError> {
    let Value::Object(mut body) = body else {
        return Err(ApiError::Shape);
    };
    match (body.remove("name"), body.remove("params")) {
        (Some(Value::String(name)), Some(Value::Object(params))) if !name.is_empty() => Ok((name, params)),
        _ => Err(ApiError::Shape),
    }
}
