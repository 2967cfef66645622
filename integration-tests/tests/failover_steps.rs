//! The single steps of a promotion do on real servers what the controller takes for granted.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman::cluster::{Clock, ServiceAccount};
use pointsman::failover::{Hands, Realm};
use pointsman_config::{Config, Secret, Server};
use pointsman_integration_tests::sandbox::{APP, Options, SERVICE, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, Outcome, Plan, Stage, Suite, eventually};
use pointsman_router::discover::{Receiver, Report};
use pointsman_router::failover::{Event, Outcome as Done, Step, StepError, StepId, StepOrder};
use pointsman_router::gtid::GtidSet;
use pointsman_router::roster::Roster;
use pointsman_router::topology::ServerId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let plan = Plan { sandbox: lossless(flavour), configuration: String::new() };
        let stage = suite.stage(plan);
        suite.test(&stage, "a receiver stops at once, also when its source is frozen", stop_receiver);
        suite.test(&stage, "unapplied transactions survive when the applier starts first", backlog);
        suite.test(&stage, "read_only has a deadline and is undone", read_only_deadline);
        suite.test(
            &stage,
            "a fenced server ends its clients, none of which gets an OK, and not replication",
            fence,
        );
        suite.test(&stage, "a delay is taken away", remove_delay);
        suite.test(&stage, "a step that has expired is not sent", expired);
        suite.test(&stage, "a replica is promoted, its sibling follows, the old primary rejoins", promotion);
        suite.test(&stage, "an errant former primary is refused", errant);
    }
    let own_stage = || Plan { sandbox: lossless(Flavour::Mariadb), configuration: String::new() };
    let stage = suite.stage(own_stage());
    suite.test(&stage, "what a crashed primary wrote and lost comes back to it", own_rows_come_back);
    let stage = suite.stage(own_stage());
    suite.test(
        &stage,
        "a crashed primary that forgets its position goes on where its files end",
        forgotten_position,
    );
    let stage = suite.stage(own_stage());
    suite.test(
        &stage,
        "a crashed primary that forgets its position and is written to is kept out",
        forgotten_and_written,
    );
    suite.run()
}

fn lossless(flavour: Flavour) -> Options {
    Options { flavour, replicas: 2, lossless: true, ..Options::default() }
}

/// The hands of a sandbox's servers.
struct Team {
    hands: Hands,
    events: Mutex<mpsc::Receiver<Event>>,
    /// What came for steps that others wait for.
    done: Mutex<Vec<(StepId, Result<Done, StepError>)>>,
    next: std::sync::atomic::AtomicU64,
    clock: Clock,
}

impl Team {
    fn new(sandbox: &Sandbox) -> Self {
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
        let clock = Clock::new(std::time::Instant::now());
        let roster = watch::Sender::new(Arc::new(Roster::new(&config.servers))).subscribe();
        let account = Arc::new(ServiceAccount::new(&config));
        let realm = Arc::new(Realm::new(&config, roster, account, clock));
        let (sender, events) = mpsc::channel(64);
        let hands = Hands::start(&realm, &sender);
        Self { hands, events: Mutex::new(events), done: Mutex::default(), next: 1.into(), clock }
    }

    async fn run_within(
        &self,
        server: u16,
        step: Step,
        limit: Duration,
        expires: Duration,
    ) -> Result<Done, StepError> {
        let id = StepId(self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.hands.order(StepOrder { id, server: ServerId(server), step, epoch: 1, expires, timeout: limit });
        loop {
            let mut events = self.events.lock().await;
            let mut done = self.done.lock().await;
            if let Some(at) = done.iter().position(|(of, _)| *of == id) {
                return done.swap_remove(at).1;
            }
            drop(done);
            match events.recv().await {
                Some(Event::StepDone { id, result }) => self.done.lock().await.push((id, result)),
                Some(_) => {}
                None => return Err(StepError::NotDone("the hands are gone".into())),
            }
        }
    }

    async fn run(&self, server: u16, step: Step) -> Result<Done, StepError> {
        self.run_within(server, step, LIMIT, self.clock.now() + LIMIT).await
    }

    async fn report(&self, server: u16, step: Step) -> Result<Report, Failure> {
        match self.run(server, step).await? {
            Done::Report(report) => Ok(*report),
            Done::Done => Err("expected a report".into()),
        }
    }
}

async fn insert(sandbox: &Sandbox, at: usize, id: u32) -> Result<(), Failure> {
    let mut conn = sandbox.servers()[at].connect_as(APP, "app").await?;
    conn.query_drop("CREATE TABLE IF NOT EXISTS steps (id INT PRIMARY KEY)").await?;
    Ok(conn.query_drop(format!("REPLACE INTO steps VALUES ({id})")).await?)
}

async fn stop_receiver(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    insert(&sandbox, 0, 1).await?;
    team.run(1, Step::ReadPosition).await?;
    sandbox.primary().freeze().await?;
    for replica in [1, 2] {
        let started = Instant::now();
        let report = team.report(replica, Step::StopReceiver).await?;
        println!(
            "{:?}: the receiver of a frozen source stopped after {:?}",
            stage.flavour(),
            started.elapsed()
        );
        // The step ends the connection that would otherwise be waited for, for two seconds.
        assert!(started.elapsed() < Duration::from_millis(1800), "{:?}", started.elapsed());
        assert_eq!(report.channels()[0].receiver, Receiver::Stopped);
        assert!(report.channels()[0].applies);
        // Done twice, it changes nothing.
        team.report(replica, Step::StopReceiver).await?;
    }
    sandbox.primary().thaw().await?;
    for replica in [1, 2] {
        team.run(replica, Step::StartReplication).await?;
    }
    follows(&sandbox).await
}

/// A write that needs an acknowledgement goes through, and all replicas have it.
async fn follows(sandbox: &Sandbox) -> Outcome {
    timeout(LIMIT, insert(sandbox, 0, 2)).await??;
    Ok(sandbox.caught_up(LIMIT).await?)
}

async fn backlog(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    insert(&sandbox, 0, 3).await?;
    sandbox.caught_up(LIMIT).await?;
    sandbox.replicas()[0].stop_applier().await?;
    for id in 100..150 {
        insert(&sandbox, 0, id).await?;
    }
    let position = GtidSet::parse(stage.flavour(), &sandbox.primary().position().await?)?;
    eventually("all of it is received", LIMIT, async || {
        team.report(1, Step::ReadPosition).await.is_ok_and(|report| {
            let mut received = report.channels()[0].received.clone();
            received.merge(&report.executed);
            received.contains(&position) && !report.applied.contains(&position)
        })
    })
    .await;
    sandbox.primary().kill().await?;
    team.run(1, Step::StartApplier).await?;
    let report = team.report(1, Step::WaitApplied { position: position.clone() }).await?;
    assert!(report.applied.contains(&position), "applied {} of {position}", report.applied);
    let stopped = team.report(1, Step::StopReceiver).await?;
    assert!(stopped.applied.contains(&position));
    sandbox.primary().start().await?;
    sandbox.primary().set_read_only(false).await?;
    let wait = match stage.flavour() {
        Flavour::Mariadb => "SET GLOBAL rpl_semi_sync_master_enabled=1",
        Flavour::Mysql => "SET GLOBAL rpl_semi_sync_source_enabled=1",
    };
    sandbox.primary().run(&[wait]).await?;
    team.run(1, Step::StartReplication).await?;
    follows(&sandbox).await
}

async fn read_only_deadline(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    insert(&sandbox, 0, 4).await?;
    for replica in [1, 2] {
        team.run(replica, Step::StopReceiver).await?;
    }
    // It waits for an acknowledgement, and read_only waits for it.
    let waiting = sandbox.clone();
    let waiter = tokio::spawn(async move { insert(&waiting, 0, 5).await });
    eventually("a commit waits", LIMIT, async || {
        let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND INFO LIKE '%steps%' AND STATE LIKE '%semi-sync ACK%'";
        sandbox.primary().rows::<u32>(sql).await.is_ok_and(|rows| rows == [1])
    })
    .await;
    let deadline = Duration::from_millis(300);
    let answer = team.run(0, Step::SetReadOnly { deadline }).await;
    assert!(matches!(&answer, Err(StepError::NotDone(reason)) if reason.contains("300 ms")), "{answer:?}");
    let read_only: Vec<u32> = sandbox.primary().rows("SELECT @@global.read_only").await?;
    assert_eq!(read_only, [0]);
    for replica in [1, 2] {
        team.run(replica, Step::StartReplication).await?;
    }
    timeout(LIMIT, waiter).await???;
    let report = team.report(0, Step::SetReadOnly { deadline: LIMIT }).await?;
    assert!(report.read_only);
    team.run(0, Step::SetWritable { lossless: true, wait_for: 1, life: 0 }).await?;
    follows(&sandbox).await
}

/// The one that waits for a whole group's acknowledgement must not be let go before the others are ended.
async fn fence(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    let mut idle = sandbox.primary().connect_as(APP, "app").await?;
    idle.query_drop("BEGIN").await?;
    sandbox.primary().run(&["CREATE TABLE app.fenced (id INT PRIMARY KEY)"]).await?;
    for round in 0..FENCES {
        let mut writers = Vec::new();
        for _ in 0..FENCED_WRITERS {
            writers.push(sandbox.primary().connect_as(APP, "app").await?);
        }
        for replica in [1, 2] {
            team.run(replica, Step::StopReceiver).await?;
        }
        let mut waiting = JoinSet::new();
        for (id, mut client) in (round * FENCED_WRITERS..).zip(writers) {
            let sql = format!("INSERT INTO fenced VALUES ({id})");
            waiting.spawn(async move { client.query_drop(sql).await.is_ok() });
        }
        eventually("all commits wait", LIMIT, async || {
            let sql = "SELECT COUNT(*), SUM(STATE LIKE '%semi-sync ACK%') FROM information_schema.PROCESSLIST \
                       WHERE INFO LIKE 'INSERT INTO fenced%'";
            let rows = sandbox.primary().rows::<(usize, Option<u32>)>(sql).await;
            rows.is_ok_and(|rows| matches!(rows[..], [(FENCED_WRITERS, Some(1..))]))
        })
        .await;
        // Where nothing ends the wait, read_only waits for it, too.
        let limit = if stage.flavour() == Flavour::Mariadb { LIMIT } else { WAITED_FOR_READ_ONLY };
        let fenced = team.run_within(0, Step::Fence, limit, team.clock.now() + LIMIT).await;
        assert!(fenced.is_ok() || stage.flavour() == Flavour::Mysql, "{fenced:?}");
        let mut acknowledged = 0;
        while let Some(answer) = timeout(LIMIT, waiting.join_next()).await? {
            acknowledged += usize::from(answer?);
        }
        assert_eq!(acknowledged, 0, "of {FENCED_WRITERS} clients whose writes no replica had");
        for replica in [1, 2] {
            team.run(replica, Step::StartReplication).await?;
        }
        eventually("it is read-only", LIMIT, async || {
            let read_only = sandbox.primary().rows::<bool>("SELECT @@global.read_only").await;
            read_only.is_ok_and(|rows| rows == [true])
        })
        .await;
        team.run(0, Step::SetWritable { lossless: true, wait_for: 1, life: 0 }).await?;
    }
    assert!(idle.query_drop("SELECT 1").await.is_err());
    follows(&sandbox).await
}

const FENCES: usize = 4;
const FENCED_WRITERS: usize = 20;
const WAITED_FOR_READ_ONLY: Duration = Duration::from_secs(2);

async fn remove_delay(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    sandbox.replicas()[1].delay_replication(Duration::from_secs(30)).await?;
    let report = team.report(2, Step::ReadPosition).await?;
    assert_eq!(report.channels()[0].delay, Duration::from_secs(30));
    if stage.flavour() == Flavour::Mariadb {
        // It could only be done at the price of what has been received.
        insert(&sandbox, 0, 6).await?;
        let position = GtidSet::parse(stage.flavour(), &sandbox.primary().position().await?)?;
        eventually("it is received", LIMIT, async || {
            let report = team.report(2, Step::ReadPosition).await;
            report.is_ok_and(|report| report.channels()[0].received.contains(&position))
        })
        .await;
        let answer = team.run(2, Step::RemoveDelay).await;
        assert!(
            matches!(&answer, Err(StepError::NotDone(reason)) if reason.contains("throw away")),
            "{answer:?}"
        );
        sandbox.replicas()[1].delay_replication(Duration::from_secs(2)).await?;
        sandbox.caught_up(LIMIT).await?;
    } else {
        insert(&sandbox, 0, 6).await?;
    }
    team.run(2, Step::RemoveDelay).await?;
    let report = team.report(2, Step::ReadPosition).await?;
    assert_eq!(report.channels()[0].delay, Duration::ZERO);
    follows(&sandbox).await
}

async fn expired(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    team.run(1, Step::ReadPosition).await?;
    let past = team.clock.now().saturating_sub(Duration::from_millis(1));
    let answer = team.run_within(1, Step::StopReceiver, LIMIT, past).await;
    assert!(matches!(&answer, Err(StepError::NotDone(reason)) if reason.contains("expired")), "{answer:?}");
    follows(&sandbox).await
}

async fn promotion(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    follows(&sandbox).await?;
    sandbox.primary().kill().await?;
    let started = Instant::now();
    let (first, second) = tokio::join!(team_stop(&team, 1), team_stop(&team, 2));
    let (first, second) = (first?, second?);
    let candidate = if first.executed.contains(&second.executed) { 1 } else { 2 };
    let sibling = 3 - candidate;
    team.run(candidate, Step::Promote { lossless: true, wait_for: 1 }).await?;
    team.run(sibling, Step::Repoint { source: ServerId(candidate), acker: true }).await?;
    let row =
        Step::WriteEpoch { epoch: 7, primary: sandbox.servers()[usize::from(candidate)].name().to_owned() };
    team.run(candidate, row).await?;
    let refused = insert(&sandbox, usize::from(candidate), 7).await;
    assert!(refused.is_err(), "clients are let in before the server is made writable");
    team.run(candidate, Step::SetWritable { lossless: true, wait_for: 1, life: 0 }).await?;
    println!("{:?}: promoted after {:?}", stage.flavour(), started.elapsed());
    insert(&sandbox, usize::from(candidate), 8).await?;
    let epoch: Vec<u64> =
        sandbox.servers()[usize::from(candidate)].rows("SELECT MAX(epoch) FROM pointsman.epoch").await?;
    assert_eq!(epoch, [7]);
    sandbox.primary().start().await?;
    team.run(0, Step::Repoint { source: ServerId(candidate), acker: true }).await?;
    let position = sandbox.servers()[usize::from(candidate)].position().await?;
    sandbox.primary().reach(&position, LIMIT).await?;
    let rows: Vec<u32> = sandbox.primary().rows("SELECT COUNT(*) FROM app.steps WHERE id = 8").await?;
    assert_eq!(rows, [1]);
    // Done twice, it changes nothing.
    team.run(0, Step::Repoint { source: ServerId(candidate), acker: true }).await?;
    Ok(())
}

async fn team_stop(team: &Team, server: u16) -> Result<Report, Failure> {
    team.report(server, Step::StopReceiver).await
}

/// After the promotion: what stood alone and wrote is not taken back silently.
async fn errant(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    let rows: Vec<String> =
        sandbox.replicas()[0].rows("SELECT primary_name FROM pointsman.epoch WHERE epoch = 7").await?;
    let source = sandbox.servers().iter().position(|server| rows.iter().any(|name| name == server.name()));
    let source = u16::try_from(source.ok_or("the promotion has not been run")?)?;
    let old = sandbox.primary();
    let (stop, off) = match stage.flavour() {
        Flavour::Mariadb => (["STOP SLAVE", "RESET SLAVE ALL"], "SET GLOBAL rpl_semi_sync_master_enabled=0"),
        Flavour::Mysql => {
            (["STOP REPLICA", "RESET REPLICA ALL"], "SET GLOBAL rpl_semi_sync_source_enabled=0")
        }
    };
    old.run(&stop).await?;
    old.run(&[off]).await?;
    old.set_read_only(false).await?;
    insert(&sandbox, 0, 9).await?;
    let answer = team.run(0, Step::Repoint { source: ServerId(source), acker: true }).await;
    println!("{answer:?}");
    assert!(
        matches!(&answer, Err(StepError::NotDone(reason)) if reason.contains("holds transactions")),
        "{answer:?}"
    );
    let read_only: Vec<u32> = old.rows("SELECT @@global.read_only").await?;
    assert_eq!(read_only, [0], "something was changed");
    Ok(())
}

/// Replicas have received a transaction that nobody acknowledged, and that the primary's recovery takes away.
async fn own_rows_come_back(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    insert(&sandbox, 0, 20).await?;
    sandbox.caught_up(LIMIT).await?;
    for replica in sandbox.replicas() {
        let silent = ["STOP SLAVE", "SET GLOBAL rpl_semi_sync_slave_enabled=0", "START SLAVE"];
        replica.run(&silent).await?;
    }
    let (writer, replica) = (sandbox.clone(), sandbox.replicas()[0].clone());
    let waiting = tokio::spawn(async move { insert(&writer, 0, 21).await });
    let has_it = async |server: &pointsman_integration_tests::sandbox::Server| {
        let rows = server.rows::<u32>("SELECT id FROM app.steps WHERE id = 21").await;
        rows.is_ok_and(|rows| rows == [21])
    };
    eventually("a replica has the row", LIMIT, async || has_it(&replica).await).await;
    sandbox.primary().kill().await?;
    assert!(waiting.await?.is_err(), "nobody has acknowledged it");
    sandbox.primary().start().await?;
    assert!(!has_it(sandbox.primary()).await, "the recovery has left it");

    replace(&team, 8).await?;
    let answer = team.run(0, Step::Repoint { source: ServerId(1), acker: false }).await;
    assert!(matches!(&answer, Err(StepError::LacksOwn(_))), "{answer:?}");
    team.run(0, Step::Repoint { source: ServerId(1), acker: true }).await?;
    sandbox.primary().reach(&sandbox.servers()[1].position().await?, LIMIT).await?;
    assert!(has_it(sandbox.primary()).await, "it was passed over");
    Ok(())
}

/// MariaDB's recovery over two files, because the second one has no checkpoint yet (`failover/logged.rs`).
async fn forgotten_position(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    forget_position(&sandbox).await?;
    replace(&team, 9).await?;
    // Only one that acknowledges is given what carries its own number.
    team.run(0, Step::Repoint { source: ServerId(1), acker: true }).await?;
    sandbox.primary().reach(&sandbox.servers()[1].position().await?, LIMIT).await?;
    for server in sandbox.servers() {
        let rows: Vec<u32> = server.rows("SELECT COUNT(*) FROM app.steps WHERE id BETWEEN 40 AND 49").await?;
        assert_eq!(rows, [10], "{}", server.name());
    }
    Ok(())
}

/// What it writes then carries numbers that others know for something else.
async fn forgotten_and_written(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let team = Team::new(&sandbox);
    let forgot = forget_position(&sandbox).await?;
    // Nobody is there to acknowledge them.
    let alone = [
        "SET GLOBAL rpl_semi_sync_master_enabled=0",
        "SET GLOBAL read_only=0",
        "DELETE FROM app.steps WHERE id=1",
    ];
    sandbox.primary().run(&alone).await?;
    replace(&team, 9).await?;
    let answer = team.run(0, Step::Repoint { source: ServerId(1), acker: true }).await;
    let expected = if forgot { "are used twice" } else { "holds transactions" };
    assert!(matches!(&answer, Err(StepError::NotDone(reason)) if reason.contains(expected)), "{answer:?}");
    let threads: Vec<mysql_async::Row> = sandbox.primary().rows("SHOW ALL SLAVES STATUS").await?;
    assert!(threads.is_empty(), "it replicates");
    Ok(())
}

/// Crashes the primary in such a way that MariaDB 10.11.19 comes up with a position of long before; whether it did.
async fn forget_position(sandbox: &Sandbox) -> Result<bool, Failure> {
    // The checkpoint comes with a flush of InnoDB's log.
    sandbox.primary().run(&["SET GLOBAL innodb_flush_log_at_timeout = 2000"]).await?;
    insert(sandbox, 0, 40).await?;
    sandbox.primary().run(&["FLUSH BINARY LOGS"]).await?;
    let mut conn = sandbox.primary().connect_as(APP, "app").await?;
    for id in 41..50 {
        conn.query_drop(format!("INSERT INTO steps VALUES ({id})")).await?;
    }
    sandbox.caught_up(LIMIT).await?;
    sandbox.primary().kill().await?;
    sandbox.primary().start().await?;
    let state: Vec<String> = sandbox.primary().rows("SELECT @@gtid_binlog_pos").await?;
    let true_position = sandbox.servers()[1].position().await?;
    println!("position {state:?} after the crash, {true_position} in truth");
    Ok(state.concat() != true_position)
}

/// The second server takes the place of the first one, without it.
async fn replace(team: &Team, epoch: u64) -> Outcome {
    team.report(1, Step::StopReceiver).await?;
    team.report(2, Step::StopReceiver).await?;
    team.run(1, Step::Promote { lossless: true, wait_for: 1 }).await?;
    team.run(2, Step::Repoint { source: ServerId(1), acker: true }).await?;
    team.run(1, Step::WriteEpoch { epoch, primary: "db-2".into() }).await?;
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(20);
