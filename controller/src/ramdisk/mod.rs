//! Client of the agent's command API: list commands, send one. One connection per request, TLS pinned to the certificate
//! that the agent's first heartbeat brought, no fallback.
//!
//! It knows no node and no store. Whether to try again is the conductor's affair; [`AgentError::is_transient`] says if it may help.
//! Source: ironic-python-agent's `/v1/commands/`.

pub mod tls;

use bytes::Bytes;
use ferric_common::ids::AgentToken;
use ferric_common::wire::command::{CommandList, CommandRequest, CommandResult};
use ferric_common::wire::error::ironic_text;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

/// Time to connect and shake hands; time for a whole request (Ironic's `command_timeout`).
const CONNECT_TIME: Duration = Duration::from_secs(10);
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Bytes of an answer: a log collection is the largest.
const ANSWER: usize = 64 << 20;

/// Why a call to an agent failed. The token never appears.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error(
        "the agent at {url} shows another certificate than in its first heartbeat; the connection was refused: {reason}"
    )]
    Certificate { url: String, reason: String },
    #[error("the agent at {url} is busy: {text}")]
    Busy { url: String, text: String },
    #[error("the agent at {url} answered {status} to '{command}': {text}")]
    Refused { url: String, command: String, status: u16, text: String },
    #[error("the agent at {url} sent an answer to '{command}' that makes no sense: {reason}")]
    Nonsense { url: String, command: String, reason: String },
}

impl AgentError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, AgentError::Unreachable { .. } | AgentError::Busy { .. })
    }
}

/// One agent, as its heartbeat introduced it.
#[derive(Clone)]
pub struct AgentClient {
    url: Url,
    token: AgentToken,
    /// PEM of the pinned certificate; needed for `https`.
    certificate: Option<String>,
}

impl AgentClient {
    /// # Errors
    /// [`AgentError::Unreachable`] where the address is none.
    pub fn new(url: &str, token: AgentToken, certificate: Option<String>) -> Result<AgentClient, AgentError> {
        let parsed = Url::parse(url)
            .map_err(|e| AgentError::Unreachable { url: url.to_string(), reason: e.to_string() })?;
        Ok(AgentClient { url: parsed, token, certificate })
    }

    /// All commands since the agent started, oldest first.
    pub async fn commands(&self) -> Result<Vec<CommandResult>, AgentError> {
        let body = self.call("GET", "list commands", "", Bytes::new()).await?;
        let list: CommandList = self.decode("list commands", &body)?;
        Ok(list.commands)
    }

    /// Sends a command; with `wait` the answer comes when it has ended.
    pub async fn execute(
        &self,
        name: &str,
        params: Map<String, Value>,
        wait: bool,
    ) -> Result<CommandResult, AgentError> {
        let request = CommandRequest { name: name.to_string(), params };
        let body = serde_json::to_vec(&request).map_err(|e| self.nonsense(name, e.to_string()))?;
        let query = if wait { "wait=true&" } else { "wait=false&" };
        let answer = self.call("POST", name, query, Bytes::from(body)).await?;
        self.decode(name, &answer)
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, command: &str, body: &[u8]) -> Result<T, AgentError> {
        serde_json::from_slice(body).map_err(|e| self.nonsense(command, e.to_string()))
    }

    fn nonsense(&self, command: &str, reason: String) -> AgentError {
        AgentError::Nonsense { url: self.shown(), command: command.to_string(), reason }
    }

    fn shown(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_string()
    }

    fn unreachable(&self, reason: impl ToString) -> AgentError {
        AgentError::Unreachable { url: self.shown(), reason: reason.to_string() }
    }

    async fn call(
        &self,
        method: &str,
        command: &str,
        query: &str,
        body: Bytes,
    ) -> Result<Vec<u8>, AgentError> {
        match timeout(REQUEST_TIME, self.talk(method, command, query, body)).await {
            Ok(result) => result,
            Err(_) => {
                Err(self.unreachable(format!("no answer to '{command}' in {} s", REQUEST_TIME.as_secs())))
            }
        }
    }

    async fn talk(
        &self,
        method: &str,
        command: &str,
        query: &str,
        body: Bytes,
    ) -> Result<Vec<u8>, AgentError> {
        let host = self.url.host().ok_or_else(|| self.unreachable("its URL has no host"))?;
        let address = match host {
            Host::Ipv4(ip) => std::net::IpAddr::V4(ip),
            Host::Ipv6(ip) => std::net::IpAddr::V6(ip),
            Host::Domain(_) => return Err(self.unreachable("its URL has a name instead of an IP address")),
        };
        let port = self.url.port_or_known_default().unwrap_or(9999);
        let connect = timeout(CONNECT_TIME, TcpStream::connect((address, port)));
        let stream = connect
            .await
            .map_err(|_| self.unreachable("no connection in 10 s"))?
            .map_err(|e| self.unreachable(e))?;
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("/v1/commands/?{query}agent_token={}", self.token.expose()))
            .header("host", format!("{host}:{port}"))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|e| self.unreachable(e))?;
        if self.url.scheme() == "https" {
            let pem = self.certificate.as_deref().unwrap_or_default();
            let connector = tls::pinned_connector(pem)
                .map_err(|reason| AgentError::Certificate { url: self.shown(), reason })?;
            let name = rustls_pki_types::ServerName::IpAddress(address.into());
            let stream = timeout(CONNECT_TIME, connector.connect(name, stream))
                .await
                .map_err(|_| self.unreachable("no TLS handshake in 10 s"))?
                .map_err(|e| self.handshake_error(&e))?;
            self.exchange(TokioIo::new(stream), request, command).await
        } else {
            self.exchange(TokioIo::new(stream), request, command).await
        }
    }

    fn handshake_error(&self, error: &std::io::Error) -> AgentError {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)) => {
                AgentError::Certificate { url: self.shown(), reason: error.to_string() }
            }
            _ => self.unreachable(error),
        }
    }

    async fn exchange<S>(
        &self,
        io: S,
        request: hyper::Request<Full<Bytes>>,
        command: &str,
    ) -> Result<Vec<u8>, AgentError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| self.unreachable(e))?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| self.unreachable(e))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER).collect().await;
            let body = body.map_err(|e| self.unreachable(format!("the answer broke off: {e}")))?.to_bytes();
            Ok::<_, AgentError>((status, body))
        }
        .await;
        driver.abort();
        let (status, body) = answer?;
        if status < 400 {
            return Ok(body.to_vec());
        }
        let text = ironic_text(&String::from_utf8_lossy(&body));
        if status == 409 || text.to_ascii_lowercase().contains("agent is busy") {
            return Err(AgentError::Busy { url: self.shown(), text });
        }
        Err(AgentError::Refused { url: self.shown(), command: command.to_string(), status, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> AgentClient {
        AgentClient::new(url, AgentToken::from_random(&[1; 32]), None).unwrap()
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_said_to_be_unreachable_without_the_token() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let client = client(&format!("http://127.0.0.1:{port}"));
        let error = client.commands().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(!format!("{error} {error:?}").contains(client.token.expose()));
    }

    #[tokio::test]
    async fn a_host_name_is_never_resolved() {
        let error = client("https://agent.example:9999").commands().await.unwrap_err();
        assert!(error.to_string().contains("instead of an IP address"), "{error}");
    }
}
