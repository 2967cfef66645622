//! What a proxy says of the primary's place, and waiting until it is where it belongs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::sandbox::{Sandbox, Server};
use crate::{Failure, Flavour, Proxy, Traffic, Write};

impl Proxy {
    /// The server that status names as the primary.
    ///
    /// # Errors
    ///
    /// When there is none, or the admin listener does not answer.
    pub async fn primary(&self, sandbox: &Sandbox) -> Result<Arc<Server>, Failure> {
        let status = self.status().await?;
        let name = status["primary"].as_str().ok_or_else(|| format!("no primary in {status}"))?;
        let server = sandbox.servers().iter().find(|server| server.name() == name);
        Ok(server.ok_or_else(|| format!("an unknown primary {name}"))?.clone())
    }

    /// Waits until every server is online and, in a lossless sandbox, all replicas acknowledge and the primary could be
    /// replaced: nothing of an earlier failover is left to do.
    ///
    /// # Panics
    ///
    /// After `limit`.
    pub async fn settled(&self, sandbox: &Sandbox, limit: Duration) {
        let durability = if sandbox.options().lossless { "lossless" } else { "async" };
        let in_place = |status: &Value| {
            let failover = &status["failover"];
            let all_online = status["servers"]
                .as_array()
                .is_some_and(|all| all.iter().all(|one| one["state"] == "online"));
            all_online
                && failover["phase"] == "STABLE"
                && failover["durability"] == durability
                && failover["unready"].is_null()
        };
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status().await.unwrap_or_default();
            let acknowledge = durability == "async" || self.all_acknowledge(sandbox).await;
            if in_place(&status) && acknowledge {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "expected within {limit:?}: every server is in its place; all acknowledge: {acknowledge}; {status}\n{}",
                self.story()
            );
            tokio::time::sleep(crate::POLL).await;
        }
    }

    async fn all_acknowledge(&self, sandbox: &Sandbox) -> bool {
        let Ok(primary) = self.primary(sandbox).await else { return false };
        let attached = match primary.flavour() {
            Flavour::Mariadb => "Rpl_semi_sync_master_clients",
            Flavour::Mysql => "Rpl_semi_sync_source_clients",
        };
        let wanted = sandbox.servers().len() - 1;
        primary.counter(attached).await.is_ok_and(|attached| usize::try_from(attached) == Ok(wanted))
    }

    /// Starts a killed primary, which rejoins. MySQL keeps what it wrote and nobody received: such a server is made anew,
    /// as its operator would.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn bring_back(&self, sandbox: &Sandbox, server: &Server) -> Result<(), Failure> {
        server.start().await?;
        if server.flavour() == Flavour::Mysql {
            let primary = self.primary(sandbox).await?;
            let own = server.position().await?;
            let errant: Vec<String> =
                primary.rows(&format!("SELECT GTID_SUBTRACT('{own}', @@gtid_executed)")).await?;
            if errant.iter().any(|set| !set.is_empty()) {
                self.set_up_anew(sandbox, server).await?;
            }
        }
        Ok(())
    }

    /// Makes a server an empty replica, which receives everything from the primary.
    ///
    /// # Errors
    ///
    /// When it does not start, or does not receive all.
    pub async fn set_up_anew(&self, sandbox: &Sandbox, server: &Server) -> Result<(), Failure> {
        let primary = self.primary(sandbox).await?;
        server.renew().await?;
        receive_all(server, &primary).await
    }

    /// Whether a server is kept out because of transactions that the primary does not have.
    pub async fn keeps_out(&self, server: &Server) -> bool {
        let status = self.status().await.unwrap_or_default();
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|shown| {
            shown["name"] == server.name()
                && shown["state"] == "excluded"
                && shown["reason"].as_str().is_some_and(|reason| reason.contains(ERRANT))
        })
    }

    /// The newest change of the primary, as `pointsman history -o json` shows it, with what this proxy saw of it.
    ///
    /// # Errors
    ///
    /// When there was none, or the admin listener does not answer.
    pub async fn last_change(&self) -> Result<Value, Failure> {
        let (_, body) = self.get("/api/v1/history").await?;
        let (start, end) = (body.find('{').ok_or("no JSON")?, body.rfind('}').ok_or("no JSON")?);
        let history: Value = serde_json::from_str(&body[start..=end])?;
        Ok(history["history"].get(0).ok_or("the primary was never changed")?.clone())
    }
}

/// Makes an empty server a replica. Under its own number it would pass over what it wrote in its lives before; and what a
/// connection writes bears the number that the server had when it was opened, so that each life needs a new one.
async fn receive_all(server: &Server, primary: &Server) -> Result<(), Failure> {
    /// No server of a sandbox has such a number.
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    let number = |id: u32| format!("SET GLOBAL server_id = {id}");
    server.run(&[&number(NEXT.fetch_add(1, Ordering::Relaxed))]).await?;
    server.replicate_from(primary, false).await?;
    server.reach(&primary.position().await?, RECEIVED_WITHIN).await?;
    server.run(&["STOP REPLICA", &number(server.id()), "START REPLICA"]).await?;
    // Who asks a proxy from now on hears what it has seen since: that replication has begun anew, and how far it is.
    tokio::time::sleep(SEEN_WITHIN).await;
    Ok(())
}

const ERRANT: &str = "transactions that the primary does not have";
/// Several looks of a proxy at all servers.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
const RECEIVED_WITHIN: Duration = Duration::from_secs(180);

/// What came of the writes of some traffic from a moment on, held against the rows of a new primary.
#[derive(Debug)]
pub struct Toll {
    pub acknowledged: usize,
    /// Acknowledged and not there.
    pub lost: Vec<u64>,
    /// Answered with an error.
    pub failed: Vec<Write>,
    /// Of the failed ones, those whose row is there all the same.
    pub failed_but_there: usize,
    /// From the moment to the first write that the new primary took and that was acknowledged.
    pub first: Option<Duration>,
    /// The longest time in which nothing was acknowledged.
    pub pause: Duration,
}

impl Toll {
    /// Counts what was answered after `moment`.
    ///
    /// # Errors
    ///
    /// When the rows cannot be read.
    pub async fn of(traffic: &Traffic, moment: Instant, primary: &Server) -> Result<Self, Failure> {
        let writes = traffic.writes_since(moment);
        let least = writes.iter().map(|write| write.id).min().unwrap_or(0);
        let rows = format!("SELECT id, server FROM app.traffic_log WHERE id >= {least}");
        let rows: BTreeMap<u64, u32> = primary.rows(&rows).await?.into_iter().collect();
        let (failed, acknowledged): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|write| write.error.is_some());
        let there = |write: &&Write| rows.contains_key(&write.id);
        let by_it = |write: &&Write| rows.get(&write.id) == Some(&primary.id());
        let ends = std::iter::once(moment).chain(acknowledged.iter().map(|write| write.answered));
        let ends: Vec<_> = ends.collect();
        Ok(Self {
            acknowledged: acknowledged.len(),
            lost: acknowledged.iter().filter(|write| !there(write)).map(|write| write.id).collect(),
            failed_but_there: failed.iter().filter(there).count(),
            failed,
            first: acknowledged.iter().find(by_it).map(|write| write.answered - moment),
            pause: ends.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default(),
        })
    }

    /// The errors that say anything but that nobody knows what became of the write.
    pub fn not_unknown(&self) -> impl Iterator<Item = &str> {
        let errors = self.failed.iter().filter_map(|write| write.error.as_deref());
        errors.filter(|error| !error.contains("ERROR 1158"))
    }
}
