//! What every act needs: a line a second, and a verdict.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Sandbox, Server};
use pointsman_integration_tests::{Failure, Proxy, Tally, Traffic};
use tokio::time::{Instant, sleep_until};

pub(crate) struct Show {
    once: bool,
    pub(crate) traffic: Traffic,
    pub(crate) proxy: Proxy,
    /// After those who use it, so that it ends last.
    pub(crate) sandbox: Sandbox,
    faults: Vec<String>,
}

/// What one act showed.
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    /// SELECTs answered, by server; none for one that was down.
    pub(crate) selects: Vec<Option<u64>>,
}

impl Show {
    pub(crate) fn new(once: bool, sandbox: Sandbox, proxy: Proxy, traffic: Traffic) -> Self {
        Self { once, traffic, proxy, sandbox, faults: Vec::new() }
    }

    pub(crate) fn open(&self, title: &str) -> Result<(), Failure> {
        say(&format!("\n{title}"));
        if !self.once {
            say("  [Enter]");
            io::stdin().lock().read_line(&mut String::new())?;
        }
        Ok(())
    }

    /// Prints a line a second.
    pub(crate) async fn watch(&self, seconds: u32) -> Seen {
        let servers = self.sandbox.servers();
        let names: String = servers.iter().map(|server| format!("{:>8}", server.name())).collect();
        say(&format!("  {:>8} {:>8} {:>10}   SELECTs/s:{names}", "reads/s", "writes/s", "failed r/w"));
        let (first_tally, first) = (self.traffic.tally(), selects(servers).await);
        let (mut last_tally, mut last) = (first_tally.clone(), first.clone());
        let mut due = Instant::now();
        for _ in 0..seconds {
            due += Duration::from_secs(1);
            sleep_until(due).await;
            let (tally, now) = (self.traffic.tally(), selects(servers).await);
            line(&tally.since(&last_tally), &since(&now, &last));
            (last_tally, last) = (tally, now);
        }
        Seen { tally: last_tally.since(&first_tally), selects: since(&last, &first) }
    }

    /// A session writes rows and looks for each at once; replicas may be behind.
    pub(crate) async fn reads_its_writes(&mut self) -> Result<(), Failure> {
        self.open(&format!("A session writes {OWN_WRITES} rows and reads each one back at once."))?;
        let mut client = self.proxy.connect(APP, "app").await?;
        client.query_drop("CREATE TABLE own (id INT PRIMARY KEY)").await?;
        let mut missed = 0;
        for id in 0..OWN_WRITES {
            client.query_drop(format!("INSERT INTO own VALUES ({id})")).await?;
            let row: Option<u32> = client.query_first(format!("SELECT id FROM own WHERE id = {id}")).await?;
            missed += u32::from(row.is_none());
        }
        self.expect(missed == 0, &format!("{missed} of {OWN_WRITES} rows were not seen by who wrote them"));
        Ok(())
    }

    /// New clients are served by a server again, more of them as its slow start goes on; those that are there stay with the
    /// replica that they know.
    pub(crate) async fn serves_new_clients(&mut self, server: &Server) -> Result<(), Failure> {
        let deadline = Instant::now() + SERVES_AGAIN_WITHIN;
        loop {
            let before = server.counter("Com_select").await?;
            for _ in 0..NEW_CLIENTS {
                let mut client = self.proxy.connect(APP, "app").await?;
                for _ in 0..READS_OF_EACH {
                    client.query_drop("SELECT COUNT(*) FROM traffic").await?;
                }
            }
            let served = server.counter("Com_select").await? - before;
            let reads = NEW_CLIENTS * READS_OF_EACH;
            let enough = served > u64::from(reads) / 10;
            if enough || Instant::now() > deadline {
                let name = server.name();
                self.expect(
                    enough,
                    &format!("{name} answers again: {served} SELECTs while new clients sent {reads}"),
                );
                return Ok(());
            }
        }
    }

    /// How many rows whose INSERT was acknowledged are not on a server.
    pub(crate) async fn lost_on(&self, server: &Server) -> Result<usize, Failure> {
        let acknowledged = self.traffic.acknowledged();
        let primary = self.proxy.primary(&self.sandbox).await?;
        if primary.name() != server.name() {
            server.reach(&primary.position().await?, REACH_LIMIT).await?;
        }
        let rows: Vec<u64> = server.rows("SELECT id FROM app.traffic_log").await?;
        let rows: std::collections::BTreeSet<u64> = rows.into_iter().collect();
        let lost = acknowledged.iter().filter(|id| !rows.contains(id)).count();
        say(&format!(
            "  {}: {} rows acknowledged, {lost} of them are not there",
            server.name(),
            acknowledged.len()
        ));
        Ok(lost)
    }

    pub(crate) fn no_failures(&mut self, seen: &Seen) {
        self.expect(seen.tally.failed_reads + seen.tally.failed_writes == 0, "no failed statement");
    }

    pub(crate) fn expect(&mut self, held: bool, what: &str) {
        say(&format!("  {} {what}", if held { "ok    " } else { "BROKEN" }));
        if !held {
            self.faults.push(what.to_owned());
        }
    }

    /// Whether everything went as promised.
    pub(crate) fn conclude(&self) -> bool {
        for (error, times) in self.traffic.write_errors() {
            say(&format!("  {times} writes were answered: {error}"));
        }
        for (error, times) in self.traffic.read_errors() {
            say(&format!("  {times} reads were answered: {error}"));
        }
        if self.faults.is_empty() {
            say("\nEverything went as promised.");
        } else {
            say(&format!("\nNot as promised: {}", self.faults.join("; ")));
        }
        self.faults.is_empty()
    }
}

fn line(tally: &Tally, selects: &[Option<u64>]) {
    let failed = format!("{}/{}", tally.failed_reads, tally.failed_writes);
    let selects: String = selects
        .iter()
        .map(|count| count.map_or_else(|| format!("{:>8}", "down"), |count| format!("{count:>8}")))
        .collect();
    say(&format!("  {:>8} {:>8} {failed:>10}             {selects}", tally.reads, tally.writes));
}

/// How many SELECTs each server has answered since its start.
async fn selects(servers: &[Arc<Server>]) -> Vec<Option<u64>> {
    let mut counts = Vec::new();
    for server in servers {
        counts.push(match server.pid().await {
            Some(_) => server.counter("Com_select").await.ok(),
            None => None,
        });
    }
    counts
}

/// A server that was started in between counts from zero.
fn since(now: &[Option<u64>], earlier: &[Option<u64>]) -> Vec<Option<u64>> {
    now.iter()
        .zip(earlier)
        .map(|(now, earlier)| now.map(|now| now.checked_sub(earlier.unwrap_or(0)).unwrap_or(now)))
        .collect()
}

pub(crate) fn say(line: &str) {
    // Nobody to show it to is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

const OWN_WRITES: u32 = 200;
const NEW_CLIENTS: u32 = 20;
const READS_OF_EACH: u32 = 20;
/// Beyond the slow start of main.rs.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(10);
const REACH_LIMIT: Duration = Duration::from_secs(20);
