//! The way from a command to the admin listener of a running proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit::{Exit, Failure};

/// How long a proxy may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Answers are not larger than this.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Where a running proxy is, and what proves that the caller may change it.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    token: Option<String>,
}

#[derive(Debug)]
enum Endpoint {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl Client {
    /// From `http://host:port`, `unix:/path` or `/path`, and the file that holds the token.
    ///
    /// # Errors
    ///
    /// When the endpoint is none of these, or the file cannot be read.
    pub(super) fn new(endpoint: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        let token = match token_file {
            None => None,
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("--token-file {}: {error}", file.display())))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        Ok(Self { endpoint: parse_endpoint(endpoint)?, token })
    }

    /// Asks for a JSON document.
    ///
    /// # Errors
    ///
    /// When no proxy answers, or not with what was asked for.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// Asks for a change, or with a question that has a body.
    ///
    /// # Errors
    ///
    /// As [`Client::get`], and when the change is refused.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Asks for a plain text, such as a probe's.
    ///
    /// # Errors
    ///
    /// When no proxy answers, or with anything but success.
    pub(super) async fn get_text(&self, path: &str) -> Result<String, Failure> {
        let (status, bytes) = self.ask(Method::GET, path, None).await?;
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if status.is_success() { Ok(text) } else { Err(Failure::new(exit_of(status), text)) }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, bytes) = self.ask(method, path, body).await?;
        let value: Result<Value, _> = serde_json::from_slice(&bytes);
        if status.is_success() {
            return value.map_err(|error| self.unreachable(&format!("expected JSON: {error}")));
        }
        let message = value.ok().and_then(|value| value["error"].as_str().map(str::to_owned));
        let message = message.unwrap_or_else(|| format!("{}: HTTP status {status}", self.describe()));
        Err(Failure::new(exit_of(status), message))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let answer = tokio::time::timeout(LIMIT, self.exchange(method, path, body)).await;
        let answer =
            answer.map_err(|_| self.unreachable(&format!("no answer within {} s", LIMIT.as_secs())))?;
        answer.map_err(|error| self.unreachable(&error.to_string()))
    }

    fn unreachable(&self, what: &str) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "no proxy at {}: {what}; --endpoint or POINTSMAN_ENDPOINT says where its admin listener is",
                self.describe()
            ),
        )
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "pointsman");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(bytes)))?;
        match &self.endpoint {
            Endpoint::Tcp(address) => send(TcpStream::connect(address).await?, request).await,
            Endpoint::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        }
    }

    fn describe(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp(address) => format!("http://{address}"),
            Endpoint::Unix(path) => path.display().to_string(),
        }
    }
}

async fn send(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
    driver.abort();
    Ok((status, bytes))
}

fn parse_endpoint(text: &str) -> Result<Endpoint, Failure> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Endpoint::Unix(PathBuf::from(path.trim_start_matches("//"))));
    }
    if text.starts_with('/') {
        return Ok(Endpoint::Unix(text.into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if address.contains('/') || !address.contains(':') {
        return Err(Failure::usage(format!(
            "--endpoint: expected http://host:port or unix:/path, got \"{text}\""
        )));
    }
    Ok(Endpoint::Tcp(address.to_owned()))
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
            Exit::Refused
        }
        StatusCode::BAD_REQUEST => Exit::Usage,
        _ => Exit::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let check = |text: &str, expected: &str| {
            let parsed = parse_endpoint(text).map(|endpoint| format!("{endpoint:?}"));
            assert_eq!(parsed.unwrap_or_else(|failure| failure.message), expected);
        };
        check("http://127.0.0.1:9090", "Tcp(\"127.0.0.1:9090\")");
        check("http://127.0.0.1:9090/", "Tcp(\"127.0.0.1:9090\")");
        check("proxy-1:9090", "Tcp(\"proxy-1:9090\")");
        check("unix:/run/admin.sock", "Unix(\"/run/admin.sock\")");
        check("unix:///run/admin.sock", "Unix(\"/run/admin.sock\")");
        check("/run/admin.sock", "Unix(\"/run/admin.sock\")");
        check("https://x/y", "--endpoint: expected http://host:port or unix:/path, got \"https://x/y\"");
    }
}
