//! The monitor sees what becomes of the servers within half a second, says why, and never invents a primary.

#![allow(clippy::print_stdout, reason = "says how long each change took to be seen")]

use std::sync::Arc;
use std::time::Duration;

use pointsman::cluster::{self, ServiceAccount};
use pointsman_config::{Config, Secret, Server};
use pointsman_integration_tests::sandbox::{SERVICE, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Flavour, Outcome, Plan, Rounds, Stage, Suite};
use pointsman_router::topology::{Role, ServerView, State, Topology};
use tokio::sync::watch;
use tokio::time::Instant;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan::new(flavour));
        suite.test(&stage, "roles are discovered within a second", roles_are_discovered);
        suite.test(&stage, "a killed replica leaves and returns", killed_replica);
        suite.test(&stage, "a frozen replica leaves and returns", frozen_replica);
        suite.test(&stage, "a replica whose SQL thread stopped leaves", stopped_applier);
        suite.test(&stage, "without its primary a cluster serves reads", killed_primary);
        suite.test(&stage, "a primary set read-only stays the primary", read_only_primary);
        suite.test(&stage, "two writable servers leave no primary", two_writable);
        suite.test(&stage, "a reset primary strands its replicas", reset_primary);
    }
    suite.run()
}

/// The monitor of a sandbox's servers.
struct Watched {
    topology: watch::Receiver<Arc<Topology>>,
    _handle: cluster::Handle,
}

impl Watched {
    async fn start(sandbox: &Sandbox) -> Self {
        let server = |server: &Arc<pointsman_integration_tests::sandbox::Server>| Server {
            name: server.name().to_owned(),
            address: server.address(),
            ..Server::default()
        };
        let config = Config {
            servers: sandbox.servers().iter().map(server).collect(),
            user: SERVICE.0.to_owned(),
            password: Secret::new(SERVICE.1),
            ..Config::default()
        };
        let (sender, topology) = watch::channel(Arc::default());
        let account = Arc::new(ServiceAccount::new(&config));
        let handle = cluster::start(&config, &account, sender, std::time::Instant::now(), None);
        let mut watched = Self { topology, _handle: handle };
        watched.until("all servers are online", Duration::from_secs(10), all_online).await;
        watched
    }

    /// Waits for a picture and answers how long that took.
    async fn until(&mut self, what: &str, limit: Duration, is_so: impl Fn(&Topology) -> bool) -> Duration {
        let started = Instant::now();
        let waited = tokio::time::timeout(limit, self.topology.wait_for(|topology| is_so(topology))).await;
        let is_over = waited.is_err();
        drop(waited);
        assert!(!is_over, "expected within {limit:?}: {what}, got {}", self.summary());
        started.elapsed()
    }

    fn summary(&self) -> String {
        let topology = self.topology.borrow().clone();
        let servers = topology.servers.iter().map(|server| {
            let (role, state) = (server.role.name(), server.state.name());
            format!(
                "{} {role} {state} {:?} at {}: {}",
                server.name, server.lag, server.position, server.reason
            )
        });
        let servers: Vec<_> = servers.collect();
        format!("primary {:?} {}\n{}", topology.primary, topology.no_primary_reason, servers.join("\n"))
    }

    fn server(&self, at: usize) -> ServerView {
        self.topology.borrow().servers[at].clone()
    }
}

fn all_online(topology: &Topology) -> bool {
    topology.primary.is_some() && topology.servers.iter().all(|server| server.state == State::Online)
}

fn state(at: usize, state: State) -> impl Fn(&Topology) -> bool {
    move |topology| topology.servers[at].state == state
}

/// A little more than `monitor.interval` and `monitor.timeout`, which docs/operations.md promises.
const PROMISED: Duration = Duration::from_millis(500);
/// What happens once, on a machine that is busy now and then.
const SOON: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

async fn roles_are_discovered(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let watched = Watched::start(&sandbox).await;
    let topology = watched.topology.borrow().clone();
    assert_eq!(topology.primary().map(|primary| primary.name.as_str()), Some("db-1"));
    assert_eq!(topology.epoch, 1);
    assert_eq!(topology.flavour, stage.flavour());
    assert!(topology.ready);
    assert!(topology.servers[1..].iter().all(|server| server.role == Role::Replica && server.read_only));
    assert!(!topology.servers[0].position.is_empty());
    Ok(())
}

async fn killed_replica(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let mut rounds = Rounds::within(PROMISED);
    while rounds.go_on() {
        let (killed, took) = tokio::join!(
            sandbox.replicas()[0].kill(),
            watched.until("a killed replica is down", LIMIT, state(1, State::Down))
        );
        killed?;
        println!("killed replica seen after {took:?}: {}", watched.server(1).reason);
        sandbox.replicas()[0].start().await?;
        sandbox.replicas()[0].run(&["START REPLICA"]).await?;
        watched.until("the replica is back", LIMIT, all_online).await;
        rounds.took(took);
    }
    rounds.outcome()
}

async fn frozen_replica(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let mut rounds = Rounds::within(PROMISED);
    while rounds.go_on() {
        sandbox.replicas()[0].freeze().await?;
        let took = watched.until("a frozen replica is down", LIMIT, state(1, State::Down)).await;
        println!("frozen replica seen after {took:?}: {}", watched.server(1).reason);
        sandbox.replicas()[0].thaw().await?;
        watched.until("the replica is back", LIMIT, all_online).await;
        rounds.took(took);
    }
    rounds.outcome()
}

async fn stopped_applier(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let mut rounds = Rounds::within(PROMISED);
    while rounds.go_on() {
        sandbox.replicas()[1].stop_applier().await?;
        let took = watched.until("a stopped replica is out", LIMIT, state(2, State::Excluded)).await;
        println!("stopped replica seen after {took:?}: {}", watched.server(2).reason);
        sandbox.replicas()[1].start_applier().await?;
        watched.until("the replica is back", LIMIT, all_online).await;
        rounds.took(took);
    }
    rounds.outcome()
}

async fn killed_primary(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let no_primary = |topology: &Topology| topology.primary.is_none();
    let mut rounds = Rounds::within(PROMISED);
    while rounds.go_on() {
        let (killed, took) =
            tokio::join!(sandbox.primary().kill(), watched.until("there is no primary", LIMIT, no_primary));
        killed?;
        println!("killed primary seen after {took:?}");
        // The replicas notice their loss too, and are used all the same.
        tokio::time::sleep(PROMISED).await;
        let topology = watched.topology.borrow().clone();
        assert_eq!(topology.readable_replicas().count(), 2, "{}", watched.summary());
        assert_eq!(topology.no_primary_reason, "the primary db-1 is down");
        sandbox.primary().start().await?;
        watched.until("the primary is back", LIMIT, all_online).await;
        rounds.took(took);
    }
    rounds.outcome()?;
    assert_eq!(watched.topology.borrow().epoch, 1);
    Ok(())
}

async fn read_only_primary(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    sandbox.primary().set_read_only(true).await?;
    watched.until("read_only is seen", LIMIT, |topology| topology.servers[0].read_only).await;
    assert!(all_online(&watched.topology.borrow()));
    sandbox.primary().set_read_only(false).await?;
    watched.until("it is writable", LIMIT, |topology| !topology.servers[0].read_only).await;
    assert_eq!(watched.topology.borrow().epoch, 1);
    Ok(())
}

async fn two_writable(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let replica = &sandbox.replicas()[1];
    let stop: &[&str] = match stage.flavour() {
        Flavour::Mariadb => &["STOP SLAVE", "RESET SLAVE ALL"],
        Flavour::Mysql => &["STOP REPLICA", "RESET REPLICA ALL"],
    };
    replica.run(stop).await?;
    watched.until("a server without a source is out", SOON, state(2, State::Excluded)).await;
    replica.set_read_only(false).await?;
    let took = watched.until("there is no primary", SOON, |topology| topology.primary.is_none()).await;
    println!("two primaries seen after {took:?}: {}", watched.topology.borrow().no_primary_reason);
    assert!(watched.topology.borrow().no_primary_reason.contains("db-1 and db-3 accept writes"));
    assert_eq!(watched.topology.borrow().readable_replicas().count(), 1);
    replica.set_read_only(true).await?;
    watched.until("the doubt is over", SOON, |topology| topology.primary.is_some()).await;
    replica.replicate_from(sandbox.primary(), false).await?;
    watched.until("the replica is back", LIMIT, all_online).await;
    assert_eq!(watched.topology.borrow().epoch, 1);
    Ok(())
}

/// Last of its stage: the replicas are of no use after it.
async fn reset_primary(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let mut watched = Watched::start(&sandbox).await;
    let reset = match stage.flavour() {
        Flavour::Mariadb => "RESET MASTER",
        Flavour::Mysql => "RESET BINARY LOGS AND GTIDS",
    };
    sandbox.primary().run(&[reset, "CREATE TABLE app.after_reset (id INT PRIMARY KEY)"]).await?;
    let none = |topology: &Topology| topology.readable_replicas().count() == 0;
    let took = watched.until("no replica is used", SOON, none).await;
    println!("reset primary seen after {took:?}: {}", watched.server(1).reason);
    for at in 0..20 {
        let insert = format!("INSERT INTO app.after_reset VALUES ({at})");
        sandbox.primary().run(&[&insert]).await?;
    }
    tokio::time::sleep(PROMISED).await;
    assert!(none(&watched.topology.borrow()), "{}", watched.summary());
    Ok(())
}
