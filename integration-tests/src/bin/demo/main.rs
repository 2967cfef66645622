//! Shows the main job on throw-away servers: `scripts/demo` builds and runs it.
//!
//! Live traffic runs through Pointsman the whole time while servers are killed and started again. Ends with an error
//! when something did not happen as promised.

mod failover;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Options, Sandbox};
use pointsman_integration_tests::{Failure, Flavour, Load, Proxy, Traffic};

use self::show::{Show, say};

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
    say("Starting a MariaDB primary with two replicas that acknowledge what they receive ...");
    let options = Options { flavour: Flavour::Mariadb, replicas: 2, lossless: true, ..Options::default() };
    let sandbox = Sandbox::start(&options).await?;
    for server in sandbox.servers() {
        say(&format!("  {}  {}", server.name(), server.address()));
    }
    let proxy = Proxy::start(&sandbox, CONFIGURATION).await?;
    say(&format!("Pointsman listens on mysql://{}:{}@127.0.0.1:{}/app", APP.0, APP.1, proxy.port()));
    proxy.settled(&sandbox, SETTLE_LIMIT).await;
    let traffic = Traffic::start(proxy.options(APP, "app"), LOAD).await?;
    let mut show = Show::new(once, sandbox, proxy, traffic);
    show.play().await?;
    Ok(show.conclude())
}

impl Show {
    async fn play(&mut self) -> Result<(), Failure> {
        let (primary, replica) = (self.sandbox.primary().clone(), self.sandbox.replicas()[0].clone());

        self.open(&format!("Reads go to the replicas, writes to the primary, {}.", primary.name()))?;
        let seen = self.watch(4).await;
        let on_primary = seen.selects[0].unwrap_or(0).saturating_sub(4 * MONITORS_SELECTS);
        self.expect(on_primary * 20 < seen.tally.reads, "more than 95 % of the reads on replicas");
        self.expect(seen.tally.writes > 0, "writes");
        self.no_failures(&seen);

        self.reads_its_writes().await?;

        let name = replica.name();
        self.open(&format!("{name}, a replica, is killed (SIGKILL). Reads go on with the other one."))?;
        replica.kill().await?;
        let seen = self.watch(3).await;
        self.expect(seen.tally.reads > 0, "reads while a replica is dead");
        self.no_failures(&seen);

        self.open(&format!("{name} is started again and takes its share."))?;
        replica.start().await?;
        let seen = self.watch(3).await;
        self.serves_new_clients(&replica).await?;
        self.no_failures(&seen);

        self.proxy.settled(&self.sandbox, SETTLE_LIMIT).await;
        let successor = self.primary_dies(&primary).await?;
        self.old_primary_returns(&primary).await?;
        self.promote_back(&primary).await?;
        let text =
            format!("everything that was acknowledged is on {} and {}", primary.name(), successor.name());
        let lost = self.lost_on(&primary).await? + self.lost_on(&successor).await?;
        self.expect(lost == 0, &text);
        Ok(())
    }
}

pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// What the monitor asks a server for each second, with something to spare.
const MONITORS_SELECTS: u64 = 60;
/// A server that comes back shows within the act that it serves again.
const CONFIGURATION: &str = "[routing]\nslow_start = \"1s\"\n";
const LOAD: Load = Load { readers: 6, writers: 4, transactions: 0, pace: Duration::from_millis(4) };
