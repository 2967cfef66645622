//! The register in Kubernetes: one Lease for the record, changed by compare-and-swap on its `resourceVersion`, and
//! one for what the proxies say, where each has an annotation of its own.
//!
//! Two fixed names, so that a Role can be limited to them.

mod connect;
mod pulses;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use pointsman_config::Coordination;
use pointsman_router::failover::Revision;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::connect::Failing;
use self::pulses::{Pulse, Pulses};
use super::{Cas, Coordinator, CoordinatorError, Found, Heard, News, Reply, Sessions};

/// One cluster's Leases: `NAME` and `NAME-proxies`.
#[derive(Debug)]
pub struct Kubernetes {
    register: Arc<Register>,
    following: AbortHandle,
}

#[derive(Debug)]
struct Register {
    leases: Api<Lease>,
    failing: Failing,
    record: String,
    proxies: String,
    /// This proxy, and how long its session lasts.
    proxy: String,
    lease: Duration,
    beat: AtomicU64,
    /// The record's Lease as it was seen last: a swap keeps of it all that is not its own.
    seen: Mutex<Option<Lease>>,
    pulses: Mutex<Pulses>,
    news: News,
}

impl Kubernetes {
    /// The register of `cluster`, and a task that follows it on the current runtime. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// When it is not known where the API server is, or who this proxy is there.
    pub async fn new(settings: &Coordination, cluster: &str, proxy: &str) -> Result<Self, CoordinatorError> {
        Self::named(settings, settings.record_name(cluster), proxy).await
    }

    /// The register of the cluster's virtual address, as [`Self::new`]: `NAME-vip` and `NAME-vip-proxies`.
    ///
    /// # Errors
    ///
    /// See [`Self::new`].
    pub async fn of_address(
        settings: &Coordination,
        cluster: &str,
        proxy: &str,
    ) -> Result<Self, CoordinatorError> {
        Self::named(settings, format!("{}-vip", settings.record_name(cluster)), proxy).await
    }

    async fn named(settings: &Coordination, record: String, proxy: &str) -> Result<Self, CoordinatorError> {
        let (client, namespace) = connect::client(settings).await?;
        let register = Arc::new(Register {
            leases: Api::namespaced(client, &namespace),
            failing: Failing { namespace },
            proxies: format!("{record}-proxies"),
            record,
            proxy: proxy.to_owned(),
            lease: settings.lease,
            beat: AtomicU64::default(),
            seen: Mutex::default(),
            pulses: Mutex::default(),
            news: News::default(),
        });
        let following = tokio::spawn(follow(register.clone())).abort_handle();
        Ok(Self { register, following })
    }
}

impl Coordinator for Kubernetes {
    fn get(&self) -> Reply<'_, Found> {
        Box::pin(self.register.read())
    }

    fn cas(&self, expected: Revision, value: String) -> Reply<'_, Cas> {
        Box::pin(self.register.swap(expected, value))
    }

    fn watch(&self) -> watch::Receiver<Heard> {
        self.register.news.heard.subscribe()
    }

    fn sessions(&self) -> watch::Receiver<Sessions> {
        self.register.news.sessions.subscribe()
    }

    fn session(&self, says: String) -> Reply<'_, ()> {
        Box::pin(self.register.renew(says))
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Register {
    async fn read(&self) -> Result<Found, CoordinatorError> {
        let (revision, value) = self.read_record().await?;
        // After the record: whoever registered before that was written is among them.
        let sessions = self.read_proxies().await?;
        Ok(Found { revision, value, sessions })
    }

    async fn read_record(&self) -> Result<(Revision, Option<String>), CoordinatorError> {
        let lease = self.find(&self.record).await?;
        self.take_record(lease)
    }

    async fn read_proxies(&self) -> Result<Sessions, CoordinatorError> {
        let lease = self.find(&self.proxies).await?;
        self.take_proxies(lease.as_ref())
    }

    /// Without a `resourceVersion` in the question the answer is linearizable.
    async fn find(&self, name: &str) -> Result<Option<Lease>, CoordinatorError> {
        self.leases.get_opt(name).await.map_err(|error| self.failing.to("get", name, &error))
    }

    async fn swap(&self, expected: Revision, value: String) -> Result<Cas, CoordinatorError> {
        let Some(mut lease) = self.base(expected).await? else { return self.lost().await };
        lease.metadata.annotations.get_or_insert_default().insert(RECORD.to_owned(), value);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.proxy.clone());
        // Also the same value again is a change.
        spec.lease_transitions = Some(spec.lease_transitions.and_then(|at| at.checked_add(1)).unwrap_or(0));
        let is_new = lease.metadata.resource_version.is_none();
        let params = PostParams::default();
        let written = match is_new {
            true => self.leases.create(&params, &lease).await,
            false => self.leases.replace(&self.record, &params, &lease).await,
        };
        match written {
            Ok(lease) => self.take_record(Some(lease)).map(|(revision, _)| Cas::Won { revision }),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => self.lost().await,
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND && !is_new => self.lost().await,
            Err(error) => {
                Err(self.failing.to(if is_new { "create" } else { "update" }, &self.record, &error))
            }
        }
    }

    /// What a swap that expects this revision begins with; none where there is another one.
    async fn base(&self, expected: Revision) -> Result<Option<Lease>, CoordinatorError> {
        let seen = lock(&self.seen).clone();
        if let Some(lease) = seen.filter(|lease| content(lease).is_ok_and(|(at, _)| at == expected)) {
            return Ok(Some(lease));
        }
        match self.find(&self.record).await? {
            Some(lease) => Ok((content(&lease)?.0 == expected).then_some(lease)),
            None => Ok((expected == Revision(0)).then(|| self.blank(&self.record, BTreeMap::new()))),
        }
    }

    async fn lost(&self) -> Result<Cas, CoordinatorError> {
        let (revision, value) = self.read_record().await?;
        Ok(Cas::Lost { revision, value })
    }

    async fn renew(&self, says: String) -> Result<(), CoordinatorError> {
        let beat = self.beat.fetch_add(1, Ordering::Relaxed) + 1;
        let text = Pulse { beat, lease: self.lease, says }.write();
        let (forgotten, version) = lock(&self.pulses).forgotten(Instant::now());
        // Whoever comes back meanwhile changes the version, and stays.
        if !forgotten.is_empty() && self.say(&text, &forgotten, Some(version)).await.is_ok() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            match self.say(&text, &[], None).await {
                Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {
                    if self.begin(&text).await? {
                        return Ok(());
                    }
                }
                said => return said.map_err(|error| self.failing.to("patch", &self.proxies, &error)),
            }
        }
        Err(self.failing.busy(&self.proxies))
    }

    /// Puts this proxy's word in its place, and takes away those of proxies that are long gone.
    async fn say(
        &self,
        text: &str,
        forgotten: &[String],
        version: Option<Revision>,
    ) -> Result<(), kube::Error> {
        let mut annotations: BTreeMap<_, _> =
            forgotten.iter().map(|proxy| (annotation(proxy), Value::Null)).collect();
        annotations.insert(annotation(&self.proxy), text.into());
        let mut metadata = json!({ "annotations": annotations });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.0.to_string().into();
        }
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let lease = self.leases.patch(&self.proxies, &PatchParams::default(), &patch).await?;
        // It is done; what could not be read is read again.
        drop(self.take_proxies(Some(&lease)));
        Ok(())
    }

    /// Makes the Lease of the proxies; false when another one was first.
    async fn begin(&self, text: &str) -> Result<bool, CoordinatorError> {
        let says = BTreeMap::from([(annotation(&self.proxy), text.to_owned())]);
        match self.leases.create(&PostParams::default(), &self.blank(&self.proxies, says)).await {
            Ok(lease) => self.take_proxies(Some(&lease)).map(|_| true),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(false),
            Err(error) => Err(self.failing.to("create", &self.proxies, &error)),
        }
    }

    fn blank(&self, name: &str, annotations: BTreeMap<String, String>) -> Lease {
        let labels = [("app.kubernetes.io/part-of".to_owned(), "pointsman".to_owned())].into();
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.failing.namespace.clone()),
                annotations: Some(annotations),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec::default()),
        }
    }

    fn take_record(&self, lease: Option<Lease>) -> Result<(Revision, Option<String>), CoordinatorError> {
        let Some(lease) = lease else { return Ok((Revision(0), None)) };
        let (revision, value) = content(&lease)?;
        let value = value.cloned();
        *lock(&self.seen) = Some(lease);
        self.news.hear(revision, value.as_ref());
        Ok((revision, value))
    }

    fn take_proxies(&self, lease: Option<&Lease>) -> Result<Sessions, CoordinatorError> {
        let now = Instant::now();
        let mut pulses = lock(&self.pulses);
        if let Some(lease) = lease {
            let annotations = lease.metadata.annotations.iter().flatten();
            let says = annotations.filter_map(|(key, text)| Some((key.strip_prefix(PREFIX)?, text)));
            pulses.take(version(lease)?, says, now);
        }
        let sessions = pulses.alive(now);
        self.news.hear_sessions(|known| known.clone_from(&sessions));
        Ok(sessions)
    }

    /// Passes on what happens to a Lease, until the stream ends or has nothing for longer than `silence`.
    async fn listen(&self, name: &str, silence: Duration) -> Result<(), CoordinatorError> {
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
        // Without a version the first event is the state as it is: nothing is missed between two watches, and no
        // version is too old.
        let opened = timeout(CALL_LIMIT, self.leases.watch(&params, "")).await;
        let opened = opened.map_err(|_| CoordinatorError::TimedOut(CALL_LIMIT))?;
        let mut events = pin!(opened.map_err(|error| self.failing.to("watch", name, &error))?);
        while let Ok(Some(Ok(event))) = timeout(silence, events.next()).await {
            match event {
                WatchEvent::Added(lease) | WatchEvent::Modified(lease) => self.notice(name, lease),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(_) => break,
            }
        }
        Ok(())
    }

    /// What cannot be read is no news: the next reading tells why.
    fn notice(&self, name: &str, lease: Lease) {
        if name == self.proxies {
            drop(self.take_proxies(Some(&lease)));
        } else {
            drop(self.take_record(Some(lease)));
        }
    }

    /// Looks at the proxies each time that a session should have run out: what was heard may be late.
    async fn look_again(&self) {
        loop {
            let now = Instant::now();
            let due = lock(&self.pulses).next_end(now).unwrap_or(now + self.lease);
            sleep_until(due.max(now + self.lease / LOOKS_IN_LEASE)).await;
            if due <= Instant::now() {
                // An error is that of the next reading, too.
                drop(timeout(CALL_LIMIT, self.read_proxies()).await);
            }
        }
    }
}

/// Passes everything new on, for as long as it is let.
async fn follow(register: Arc<Register>) {
    let mut told = String::new();
    loop {
        let ended = tokio::select! {
            ended = register.listen(&register.record, WATCH_LIMIT) => ended,
            // This proxy's own renewals are heard: silence means that the connection is dead.
            ended = register.listen(&register.proxies, register.lease) => ended,
            () = register.look_again() => Ok(()),
        };
        let Err(error) = ended else {
            sleep(WATCH_AGAIN).await;
            continue;
        };
        let text = error.to_string();
        if text != told {
            tracing::warn!("news of the coordinator is late: {text}");
            told = text;
        }
        sleep(WATCH_RETRY).await;
    }
}

/// What the record's Lease holds, and its version; zero where it holds nothing.
fn content(lease: &Lease) -> Result<(Revision, Option<&String>), CoordinatorError> {
    match lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(RECORD)) {
        Some(value) => Ok((version(lease)?, Some(value))),
        None => Ok((Revision(0), None)),
    }
}

/// Versions are etcd's revisions, which rise: Kubernetes documents that they can be compared.
fn version(lease: &Lease) -> Result<Revision, CoordinatorError> {
    let text = lease.metadata.resource_version.as_deref().unwrap_or_default();
    text.parse().map(Revision).map_err(|_| CoordinatorError::Version(text.to_owned()))
}

fn annotation(proxy: &str) -> String {
    format!("{PREFIX}{proxy}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const RECORD: &str = "pointsman/record";
/// Of the annotations of the proxies.
const PREFIX: &str = "proxies.pointsman/";
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
/// Others may write between a patch and what it is a patch of, or make the Lease first.
const ATTEMPTS: u32 = 4;
/// An API server that is frozen is left for a new connection well within a lease.
const CALL_LIMIT: Duration = Duration::from_millis(1000);
/// After which the API server ends a watch; a dead connection is left a little later.
const WATCH_SECONDS: u32 = 30;
const WATCH_LIMIT: Duration = Duration::from_secs(35);
const WATCH_AGAIN: Duration = Duration::from_millis(100);
const WATCH_RETRY: Duration = Duration::from_secs(1);
const LOOKS_IN_LEASE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, record: Option<&str>) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        let record = record.map(|text| BTreeMap::from([(RECORD.to_owned(), text.to_owned())]));
        lease.metadata.annotations = record;
        lease
    }

    #[test]
    fn a_lease_without_a_record_is_at_revision_zero() {
        let found = |lease: &Lease| content(lease).map(|(at, text)| (at.0, text.cloned())).ok();
        assert_eq!(found(&lease("17", Some("x"))), Some((17, Some("x".into()))));
        assert_eq!(found(&lease("17", None)), Some((0, None)));
        assert_eq!(found(&lease("opaque", Some("x"))), None);
        assert_eq!(found(&lease("", Some("x"))), None);
    }
}
