//! Shows the main job on throw-away servers: `scripts/demo` builds and runs it.
//!
//! Live traffic runs through Pointsman the whole time while servers are killed and started again. Ends with an error
//! when something did not happen as promised.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Options, Sandbox, Server};
use pointsman_integration_tests::{Failure, Flavour, Load, Proxy, Tally, Traffic};
use tokio::time::{Instant, sleep_until};

fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = demo(once) => outcome,
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            }
        })
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&format!("\nThe demo could not go on: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether everything went as promised.
async fn demo(once: bool) -> Result<bool, Failure> {
    say("Starting a MariaDB primary with two replicas ...");
    let options = Options { flavour: Flavour::Mariadb, replicas: 2, ..Options::default() };
    let sandbox = Sandbox::start(&options).await?;
    for server in sandbox.servers() {
        say(&format!("  {:9}  {}", server.name(), server.address()));
    }
    let proxy = Proxy::start(&sandbox, "[routing]\nhold_timeout = \"2s\"\n").await?;
    say(&format!("Pointsman listens on mysql://{}:{}@127.0.0.1:{}/app", APP.0, APP.1, proxy.port()));
    let load = Load { readers: 6, writers: 2, transactions: 0, pace: Duration::from_millis(4) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    let mut show = Show { once, sandbox, traffic, faults: Vec::new() };
    show.play().await?;
    Ok(show.conclude())
}

struct Show {
    once: bool,
    sandbox: Sandbox,
    traffic: Traffic,
    faults: Vec<String>,
}

/// What one act showed.
struct Seen {
    tally: Tally,
    /// SELECTs answered, by server; none for one that was down.
    selects: Vec<Option<u64>>,
}

impl Show {
    async fn play(&mut self) -> Result<(), Failure> {
        let [primary, first, ..] = self.sandbox.servers() else { return Err("no replicas".into()) };
        let (primary, first) = (primary.clone(), first.clone());

        self.open("Reads go to the replicas, writes to the primary.")?;
        let seen = self.watch(4).await;
        let on_replicas: u64 = seen.selects[1..].iter().flatten().sum();
        let on_primary = seen.selects[0].unwrap_or(0);
        self.expect(on_replicas > 20 * on_primary, "more than 95 % of the reads on replicas");
        self.expect(seen.tally.writes > 0, "writes");
        self.no_failures(&seen);

        self.open("replica-1 is killed (SIGKILL). Reads go on with the other one.")?;
        first.kill().await?;
        let seen = self.watch(4).await;
        self.expect(seen.tally.reads > 0, "reads while a replica is dead");
        self.no_failures(&seen);

        self.open("replica-1 is started again and takes its share.")?;
        first.start().await?;
        first.run(&["START REPLICA"]).await?;
        let seen = self.watch(5).await;
        self.expect(seen.selects[1].unwrap_or(0) > seen.tally.reads / 10, "reads on replica-1 again");
        self.no_failures(&seen);

        self.open("The primary is killed. Reads go on; writes are held, then refused.")?;
        primary.kill().await?;
        let seen = self.watch(6).await;
        self.expect(seen.tally.reads > 0, "reads without a primary");
        self.expect(seen.tally.failed_reads == 0, "no failed reads without a primary");
        self.expect(seen.tally.failed_writes > 0, "writes refused without a primary");

        self.open("The primary is started again. Writes go on.")?;
        primary.start().await?;
        self.watch(2).await;
        let seen = self.watch(3).await;
        self.expect(seen.tally.writes > 0, "writes after the primary came back");
        self.nothing_lost(&primary).await
    }

    /// Every row whose INSERT was acknowledged is there.
    async fn nothing_lost(&mut self, primary: &Server) -> Result<(), Failure> {
        let acknowledged = self.traffic.acknowledged();
        let rows: Vec<u64> = primary.rows("SELECT id FROM app.traffic_log").await?;
        let rows: std::collections::BTreeSet<u64> = rows.into_iter().collect();
        let lost = acknowledged.iter().filter(|id| !rows.contains(id)).count();
        say(&format!("\n{} writes were acknowledged, {lost} of them are lost.", acknowledged.len()));
        self.expect(lost == 0, "no acknowledged write lost");
        Ok(())
    }

    fn open(&self, title: &str) -> Result<(), Failure> {
        say(&format!("\n{title}"));
        if !self.once {
            say("  [Enter]");
            io::stdin().lock().read_line(&mut String::new())?;
        }
        let names: String =
            self.sandbox.servers().iter().map(|server| format!("{:>11}", server.name())).collect();
        say(&format!("  {:>8} {:>8} {:>10}   SELECTs/s:{names}", "reads/s", "writes/s", "failed r/w"));
        Ok(())
    }

    /// Prints a line a second.
    async fn watch(&self, seconds: u32) -> Seen {
        let servers = self.sandbox.servers();
        let (first_tally, first) = (self.traffic.tally(), selects(servers).await);
        let (mut last_tally, mut last) = (first_tally.clone(), first.clone());
        let mut due = Instant::now();
        for _ in 0..seconds {
            due += Duration::from_secs(1);
            sleep_until(due).await;
            let (tally, now) = (self.traffic.tally(), selects(servers).await);
            self.line(&tally.since(&last_tally), &since(&now, &last));
            (last_tally, last) = (tally, now);
        }
        Seen { tally: last_tally.since(&first_tally), selects: since(&last, &first) }
    }

    fn line(&self, tally: &Tally, selects: &[Option<u64>]) {
        let failed = format!("{}/{}", tally.failed_reads, tally.failed_writes);
        let selects: String = selects
            .iter()
            .map(|count| count.map_or_else(|| format!("{:>11}", "down"), |count| format!("{count:>11}")))
            .collect();
        say(&format!("  {:>8} {:>8} {failed:>10}             {selects}", tally.reads, tally.writes));
    }

    fn no_failures(&mut self, seen: &Seen) {
        self.expect(seen.tally.failed_reads + seen.tally.failed_writes == 0, "no failed statement");
    }

    fn expect(&mut self, held: bool, what: &str) {
        say(&format!("  {} {what}", if held { "ok    " } else { "BROKEN" }));
        if !held {
            self.faults.push(what.to_owned());
        }
    }

    fn conclude(&self) -> bool {
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

fn say(line: &str) {
    // Nobody to show it to is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
