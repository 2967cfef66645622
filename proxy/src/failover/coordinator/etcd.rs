//! The register in etcd 3.4 and later, over its JSON gateway: plain HTTP/1.1 with the values in base64.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use pointsman_router::failover::Revision;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Cas, Coordinator, CoordinatorError, Found, Heard, News, Reply, Sessions};

/// One cluster's keys: `PREFIX/CLUSTER/record` and `PREFIX/CLUSTER/proxies/ID`.
#[derive(Debug)]
pub struct Etcd {
    gateway: Arc<Gateway>,
    own: String,
    /// Whole seconds, as etcd counts.
    lease_seconds: u64,
    /// Of this proxy's session.
    lease: Mutex<Option<Lease>>,
    keys: Keys,
    watching: AbortHandle,
}

/// A lease, and when it was prolonged last.
#[derive(Clone, Debug)]
struct Lease {
    id: String,
    kept: Instant,
}

/// The record's key and how those of the proxies begin, with what has been heard of them.
#[derive(Clone, Debug)]
struct Keys {
    record: String,
    proxies: String,
    news: News,
}

impl Etcd {
    /// The register of `cluster`, and a task that follows it on the current runtime.
    ///
    /// # Errors
    ///
    /// When an endpoint is not of the form `http://host:port`.
    pub fn new(
        endpoints: &[String],
        prefix: &str,
        cluster: &str,
        proxy: &str,
        lease: Duration,
    ) -> Result<Self, CoordinatorError> {
        let gateway = Arc::new(Gateway::new(endpoints)?);
        let root = format!("{}/{cluster}", prefix.trim_end_matches('/'));
        let keys = Keys {
            record: format!("{root}/record"),
            proxies: format!("{root}/proxies/"),
            news: News::default(),
        };
        let watching = tokio::spawn(follow(gateway.clone(), format!("{root}/"), keys.clone())).abort_handle();
        Ok(Self {
            gateway,
            own: format!("{}{proxy}", keys.proxies),
            lease_seconds: lease.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1),
            lease: Mutex::default(),
            keys,
            watching,
        })
    }

    async fn read(&self) -> Result<Found, CoordinatorError> {
        let Keys { record, proxies, .. } = &self.keys;
        let record = json!({ "request_range": { "key": encode(record) } });
        let proxies =
            json!({ "request_range": { "key": encode(proxies), "range_end": encode(&after(proxies)) } });
        // One transaction: both are of the same moment.
        let answer = self.gateway.call("/v3/kv/txn", &json!({ "success": [record, proxies] })).await?;
        let range = |at: usize| &answer["responses"][at]["response_range"]["kvs"];
        let mut found = Found::default();
        if let Some(kv) = range(0).get(0) {
            found.revision = Revision(number(&kv["mod_revision"])?);
            found.value = Some(decode(&kv["value"])?);
        }
        for kv in range(1).as_array().into_iter().flatten() {
            let key = decode(&kv["key"])?;
            let proxy = key.strip_prefix(&self.keys.proxies).unwrap_or(&key).to_owned();
            found.sessions.insert(proxy, said(kv)?);
        }
        self.keys.news.hear(found.revision, found.value.as_ref());
        self.keys.news.hear_sessions(|known| known.clone_from(&found.sessions));
        Ok(found)
    }

    async fn swap(&self, expected: Revision, value: String) -> Result<Cas, CoordinatorError> {
        let key = encode(&self.keys.record);
        let body = json!({
            "compare": [{
                "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": expected.0.to_string(),
            }],
            "success": [{ "request_put": { "key": key, "value": encode(&value) } }],
            "failure": [{ "request_range": { "key": key } }],
        });
        let answer = self.gateway.call("/v3/kv/txn", &body).await?;
        if answer["succeeded"] == true {
            let revision = Revision(number(&answer["header"]["revision"])?);
            self.keys.news.hear(revision, Some(&value));
            return Ok(Cas::Won { revision });
        }
        let Some(kv) = answer["responses"][0]["response_range"]["kvs"].get(0) else {
            return Ok(Cas::Lost { revision: Revision(0), value: None });
        };
        let revision = Revision(number(&kv["mod_revision"])?);
        let value = decode(&kv["value"])?;
        self.keys.news.hear(revision, Some(&value));
        Ok(Cas::Lost { revision, value: Some(value) })
    }

    async fn renew(&self, says: String) -> Result<(), CoordinatorError> {
        let known = self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(lease) = known.as_ref().filter(|lease| self.is_young(lease))
            && self.put(lease, &says).await.is_ok()
        {
            return Ok(());
        }
        let kept = match known {
            Some(lease) => self.keep_alive(&lease.id).await?,
            None => None,
        };
        let lease = match kept {
            Some(lease) => lease,
            None => self.grant().await?,
        };
        self.put(&lease, &says).await?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        Ok(())
    }

    async fn put(&self, lease: &Lease, says: &str) -> Result<(), CoordinatorError> {
        let body = json!({ "key": encode(&self.own), "value": encode(says), "lease": lease.id });
        self.gateway.call("/v3/kv/put", &body).await.map(drop)
    }

    /// What is said often does not prolong the lease each time.
    fn is_young(&self, lease: &Lease) -> bool {
        lease.kept.elapsed() < Duration::from_secs(self.lease_seconds) / KEPT_IN_LEASE
    }

    async fn grant(&self) -> Result<Lease, CoordinatorError> {
        let kept = Instant::now();
        let answer = self.gateway.call("/v3/lease/grant", &json!({ "TTL": self.lease_seconds })).await?;
        let id = answer["ID"].as_str().ok_or_else(|| unexpected("a lease without ID"))?;
        Ok(Lease { id: id.to_owned(), kept })
    }

    /// Prolongs the lease; none if it has run out.
    async fn keep_alive(&self, id: &str) -> Result<Option<Lease>, CoordinatorError> {
        let kept = Instant::now();
        let answer = self.gateway.call("/v3/lease/keepalive", &json!({ "ID": id })).await?;
        // A lease that has run out has no time to live.
        let lives = !answer["result"]["TTL"].is_null();
        Ok(lives.then(|| Lease { id: id.to_owned(), kept }))
    }
}

impl Coordinator for Etcd {
    fn get(&self) -> Reply<'_, Found> {
        Box::pin(self.read())
    }

    fn cas(&self, expected: Revision, value: String) -> Reply<'_, Cas> {
        Box::pin(self.swap(expected, value))
    }

    fn watch(&self) -> watch::Receiver<Heard> {
        self.keys.news.heard.subscribe()
    }

    fn sessions(&self) -> watch::Receiver<Sessions> {
        self.keys.news.sessions.subscribe()
    }

    fn session(&self, says: String) -> Reply<'_, ()> {
        Box::pin(self.renew(says))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The members of etcd, of which any answers.
#[derive(Debug)]
struct Gateway {
    /// `host:port`
    endpoints: Vec<String>,
    /// The one that answered last.
    current: AtomicUsize,
}

impl Gateway {
    fn new(endpoints: &[String]) -> Result<Self, CoordinatorError> {
        let parse = |text: &String| {
            let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            let is_plain = address.contains(':') && !address.contains('/');
            is_plain.then(|| address.to_owned()).ok_or_else(|| CoordinatorError::Endpoint(text.clone()))
        };
        let endpoints: Vec<_> = endpoints.iter().map(parse).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(CoordinatorError::Endpoint(String::new()));
        }
        Ok(Self { endpoints, current: AtomicUsize::new(0) })
    }

    /// Asks one member after the other until one answers.
    async fn call(&self, path: &str, body: &Value) -> Result<Value, CoordinatorError> {
        let mut last = unexpected("no endpoints");
        let first = self.current.load(Ordering::Relaxed);
        for at in (0..self.endpoints.len()).map(|offset| (first + offset) % self.endpoints.len()) {
            match timeout(CALL_LIMIT, self.ask(at, path, body)).await {
                Ok(Ok(answer)) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = CoordinatorError::TimedOut(CALL_LIMIT),
            }
        }
        Err(last)
    }

    async fn ask(&self, at: usize, path: &str, body: &Value) -> Result<Value, CoordinatorError> {
        let mut answer = self.open(at, path, body).await?;
        let bytes = Limited::new(&mut answer.body, MAX_ANSWER_BYTES).collect().await;
        let bytes = bytes.map_err(|error| unexpected(&error.to_string()))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| unexpected(&error.to_string()))?;
        match value["error"].as_str() {
            Some(error) => Err(unexpected(error)),
            None => Ok(value),
        }
    }

    async fn open(&self, at: usize, path: &str, body: &Value) -> Result<Answer, CoordinatorError> {
        let address = &self.endpoints[at];
        let failed = |error: &dyn std::fmt::Display| CoordinatorError::Etcd(format!("{address}: {error}"));
        let socket = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|error| failed(&error))?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }).abort_handle());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        Ok(Answer { body: answer.into_body(), _driver: driver })
    }
}

/// An answer that may still be coming in.
struct Answer {
    body: Incoming,
    _driver: Driver,
}

/// Ends the connection when dropped.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes everything new below `root` on, for as long as it is let.
async fn follow(gateway: Arc<Gateway>, root: String, keys: Keys) {
    let body = json!({ "create_request": { "key": encode(&root), "range_end": encode(&after(&root)) } });
    for at in (0..gateway.endpoints.len()).cycle() {
        if let Ok(Ok(mut answer)) = timeout(CALL_LIMIT, gateway.open(at, "/v3/watch", &body)).await {
            listen(&mut answer, &keys).await;
        }
        sleep(WATCH_AGAIN).await;
    }
}

/// Until the stream ends: one JSON document a line.
async fn listen(answer: &mut Answer, keys: &Keys) {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = answer.body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { return };
            for event in event["result"]["events"].as_array().into_iter().flatten() {
                keys.take(event);
            }
        }
        if text.len() > MAX_ANSWER_BYTES {
            return;
        }
    }
}

impl Keys {
    /// An event that cannot be read is none: the next reading tells the same.
    fn take(&self, event: &Value) {
        let kv = &event["kv"];
        let Ok(key) = decode(&kv["key"]) else { return };
        if let Some(proxy) = key.strip_prefix(&self.proxies) {
            let gone = event["type"] == "DELETE";
            let Ok(says) = said(kv) else { return };
            self.news.hear_sessions(|known| match gone {
                true => drop(known.remove(proxy)),
                false => drop(known.insert(proxy.to_owned(), says)),
            });
        } else if key == self.record
            && let (Ok(revision), Ok(value)) = (number(&kv["mod_revision"]), decode(&kv["value"]))
        {
            self.news.hear(Revision(revision), Some(&value));
        }
    }
}

/// What a session says; an empty value is left out of JSON.
fn said(kv: &Value) -> Result<String, CoordinatorError> {
    if kv["value"].is_null() { Ok(String::new()) } else { decode(&kv["value"]) }
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

fn decode(value: &Value) -> Result<String, CoordinatorError> {
    let text = value.as_str().ok_or_else(|| unexpected("a value that is no text"))?;
    let bytes = STANDARD.decode(text).map_err(|error| unexpected(&error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| unexpected(&error.to_string()))
}

/// The gateway writes numbers of 64 bits as text.
fn number(value: &Value) -> Result<u64, CoordinatorError> {
    let parsed = value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64());
    parsed.ok_or_else(|| unexpected(&format!("{value} for a number")))
}

/// The first key after all that begin with `prefix`, which ends with a slash.
fn after(prefix: &str) -> String {
    format!("{}0", prefix.trim_end_matches('/'))
}

fn unexpected(what: &str) -> CoordinatorError {
    CoordinatorError::Etcd(what.to_owned())
}

/// A member that is frozen must leave time for the next one within the lease.
const CALL_LIMIT: Duration = Duration::from_millis(500);
/// How often a lease is prolonged before it runs out.
const KEPT_IN_LEASE: u32 = 4;
const WATCH_AGAIN: Duration = Duration::from_millis(100);
const MAX_ANSWER_BYTES: usize = 4 << 20;
