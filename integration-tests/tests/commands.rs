//! The commands that move the primary's place: what they say, what they change, and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Options, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Outcome, Plan, Ran, Stage, Suite, eventually, run,
};
use serde_json::Value;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let sandbox = Options { flavour, replicas: 2, lossless: true, ..Options::default() };
        let configuration =
            "[failover]\nmode = \"manual\"\n[switchover]\ntransaction_timeout = \"20s\"\ntimeout = \"30s\"\n";
        let stage = suite.stage(Plan { sandbox: sandbox.clone(), configuration: configuration.into() });
        suite.test(&stage, "a session whose temporary table or lock is gone hears of it", state_lost);
        let stage = suite.stage(Plan { sandbox, configuration: configuration.into() });
        suite.test(&stage, "a dry run tells the plan and changes nothing", dry_run);
        suite.test(&stage, "a refusal names reason and alternative, and changes nothing", refused);
        suite.test(&stage, "promote moves the primary's place, and tells each phase", promote);
        suite.test(&stage, "switchover finds the best replica by itself; its answer is JSON", switchover);
        suite.test(&stage, "maintenance keeps a server from promotion, and ends by itself", maintenance);
        suite.test(&stage, "failover is refused while the primary answers", failover_of_the_living);
        suite.test(&stage, "a dead primary waits for a person in manual mode", failover);
        suite.test(&stage, "history tells what has changed the primary", history);
        suite.test(&stage, "operations are listed, shown and waited for", operations);
        suite.test(&stage, "a switchover that waits is cancelled, and undone", cancel);
        suite.test(&stage, "a fenced server gets no clients until it is unfenced", fence);
        suite.test(&stage, "errant transactions keep a server from rejoining and promotion", errant);
    }
    suite.run()
}

/// Runs a command against the stage's proxy, through the door that may change something.
async fn order(stage: &Stage, arguments: &[&str]) -> Result<Ran, Failure> {
    let endpoint = stage.proxy().await?.endpoint();
    run(&[arguments, &["--endpoint", &endpoint]].concat(), "").await
}

/// All is in its place, and each replica might be promoted: a receiver that still connects serves reads already.
async fn settled(stage: &Stage) -> Outcome {
    let (proxy, sandbox) = (stage.proxy().await?, stage.sandbox().await?);
    proxy.settled(&sandbox, LIMIT).await;
    let primary = primary(stage).await?;
    for replica in sandbox.servers().iter().filter(|server| server.name() != primary.name()) {
        eventually("a replica is fit", LIMIT, async || {
            let planned = order(stage, &["promote", replica.name(), "--dry-run"]).await;
            planned.is_ok_and(|ran| ran.code == 0)
        })
        .await;
    }
    Ok(())
}

async fn primary(stage: &Stage) -> Result<Arc<Server>, Failure> {
    stage.proxy().await?.primary(&*stage.sandbox().await?).await
}

/// A replica, in the order of the configuration.
async fn replica(stage: &Stage) -> Result<Arc<Server>, Failure> {
    let (sandbox, primary) = (stage.sandbox().await?, primary(stage).await?);
    let other = sandbox.servers().iter().find(|server| server.name() != primary.name());
    Ok(other.ok_or("no replica")?.clone())
}

async fn failover_status(stage: &Stage) -> Result<Value, Failure> {
    Ok(stage.proxy().await?.status().await?["failover"].clone())
}

/// Refused with exit code 3, in words that name all of these, and nothing was changed.
async fn refuses(stage: &Stage, arguments: &[&str], words: &[&str]) -> Outcome {
    let epoch = stage.proxy().await?.status().await?["epoch"].clone();
    let ran = order(stage, arguments).await?;
    assert_eq!(ran.code, 3, "{arguments:?}: {}{}", ran.out, ran.err);
    for word in words.iter().chain(&["refused: ", "Nothing was changed."]) {
        assert!(ran.err.contains(word), "{arguments:?}: {word} in {}", ran.err);
    }
    assert_eq!(stage.proxy().await?.status().await?["epoch"], epoch, "{arguments:?}");
    Ok(())
}

async fn dry_run(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (from, to) = (primary(&stage).await?, replica(&stage).await?);
    let before = stage.proxy().await?.status().await?["epoch"].clone();
    let ran = order(&stage, &["promote", to.name(), "--dry-run"]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let title = format!("plan  switchover  {} -> {}", from.name(), to.name());
    for words in [&title, "hold writes; reads go on", "would do, too", "dry run: nothing was changed"] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }
    let json = order(&stage, &["promote", to.name(), "--dry-run", "-o", "json"]).await?.json()?;
    assert_eq!((&json["state"], &json["plan"]["to"]), (&"planned".into(), &to.name().into()));
    assert_eq!(stage.proxy().await?.status().await?["epoch"], before);
    assert_eq!(primary(&stage).await?.name(), from.name());
    Ok(())
}

async fn refused(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (from, to) = (primary(&stage).await?, replica(&stage).await?);
    let instead = format!("Instead: promote {}.", to.name());
    let already = format!("{} is the primary already", from.name());
    refuses(&stage, &["promote", from.name(), "--yes"], &[&already, &instead]).await?;
    refuses(&stage, &["promote", from.name(), "--dry-run"], &[&already, &instead]).await?;
    refuses(
        &stage,
        &["promote", "db-9", "--yes"],
        &["there is no server db-9", "known are db-1, db-2, db-3"],
    )
    .await?;
    to.stop_applier().await?;
    eventually("the replica is out", LIMIT, async || {
        let ran = order(&stage, &["promote", to.name(), "--dry-run"]).await;
        ran.is_ok_and(|ran| ran.code == 3 && ran.err.contains("does not replicate"))
    })
    .await;
    refuses(&stage, &["promote", to.name(), "--yes"], &["does not replicate", "Instead: promote db-"])
        .await?;
    to.start_applier().await?;
    settled(&stage).await?;
    // As JSON, the refusal is a document, too.
    let json = order(&stage, &["promote", from.name(), "--yes", "-o", "json"]).await?;
    assert_eq!((json.code, &json.json()?["exit"]), (3, &3.into()));
    // Nobody is there to be asked.
    let unasked = order(&stage, &["promote", to.name()]).await?;
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    assert!(unasked.err.contains("--yes"), "{}", unasked.err);
    // The TCP door lets no change through without a token.
    let endpoint = format!("http://127.0.0.1:{}", stage.proxy().await?.admin_port());
    let outside = run(&["promote", to.name(), "--yes", "--endpoint", &endpoint], "").await?;
    assert_eq!(outside.code, 3, "{}", outside.err);
    assert_eq!(primary(&stage).await?.name(), from.name());
    Ok(())
}

/// A planned move. One is undone where the primary takes half a second to become read-only, as on a machine that stands
/// still for that long: then once more, but that is no rule.
async fn moves(stage: &Stage, arguments: &[&str]) -> Result<Ran, Failure> {
    let ran = order(stage, arguments).await?;
    let is_late = ran.err.contains(LATE) || ran.out.contains(LATE);
    if ran.code != ROLLED_BACK || !is_late || UNDONE.swap(true, Ordering::SeqCst) {
        return Ok(ran);
    }
    settled(stage).await?;
    order(stage, arguments).await
}

/// Of all moves one has been undone.
static UNDONE: AtomicBool = AtomicBool::new(false);
const LATE: &str = "read_only did not come into effect within";
const ROLLED_BACK: i32 = 4;

async fn promote(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let to = replica(&stage).await?;
    let mut client = stage.client().await?;
    client.query_drop("SET @kept = 7").await?;
    let ran = moves(&stage, &["promote", to.name(), "--yes"]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("{} is the primary of epoch", to.name())), "{}", ran.out);
    for phase in ["writes are held", "is chosen", "promote on", "writes go on, after"] {
        assert!(ran.err.contains(phase), "{phase} in {}", ran.err);
    }
    assert_eq!(primary(&stage).await?.name(), to.name());
    client.query_drop("CREATE TABLE promoted (id INT PRIMARY KEY)").await?;
    client.query_drop("INSERT INTO promoted VALUES (1)").await?;
    assert_eq!(to.rows::<u32>("SELECT id FROM app.promoted").await?, [1]);
    let kept: Option<u32> = client.query_first("SELECT @kept").await?;
    assert_eq!(kept, Some(7));
    settled(&stage).await
}

async fn switchover(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let from = primary(&stage).await?;
    let ran = moves(&stage, &["switchover", "--yes", "-o", "json"]).await?;
    let json = ran.json()?;
    assert_eq!((ran.code, &json["state"]), (0, &"done".into()), "{json}");
    assert_eq!(json["apiVersion"], "pointsman/v1");
    assert_eq!(json["plan"]["from"], from.name());
    assert!(json["phases"].as_array().is_some_and(|phases| phases.len() > 5), "{json}");
    assert_eq!(json["plan"]["to"], primary(&stage).await?.name());
    settled(&stage).await?;
    let to = replica(&stage).await?;
    let named = moves(&stage, &["switchover", "--to", to.name(), "--yes", "-o", "yaml"]).await?;
    assert_eq!(named.code, 0, "{}", named.err);
    assert!(named.out.contains("state: done"), "{}", named.out);
    assert_eq!(primary(&stage).await?.name(), to.name());
    settled(&stage).await
}

/// A session would go on without its lock, and a server would log the end of a table that nobody else knows of.
async fn state_lost(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let mut clients = Vec::new();
    for sql in
        ["CREATE TEMPORARY TABLE held (id INT)", "DO GET_LOCK('held', 1)", "SET @held = CONNECTION_ID()"]
    {
        let mut client = stage.client().await?;
        client.query_drop(sql).await?;
        clients.push(client);
    }
    let ran = moves(&stage, &["switchover", "--yes"]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for (client, sql) in
        clients.iter_mut().zip(["SELECT * FROM held", "SELECT IS_USED_LOCK('held')", "SELECT @held"])
    {
        match client.query_drop(sql).await {
            Err(mysql_async::Error::Server(error)) => assert_eq!(error.code, 1158, "{sql}: {error}"),
            outcome => panic!("{sql}: {outcome:?}"),
        }
    }
    settled(&stage).await
}

async fn maintenance(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let server = replica(&stage).await?;
    let on = order(&stage, &["maintenance", "on", server.name(), "--for", "30m", "--reason", "disk"]).await?;
    assert_eq!(on.code, 0, "{}", on.err);
    assert!(on.out.contains("1800 s"), "{}", on.out);
    eventually("it is in maintenance", LIMIT, async || in_maintenance(&stage).await == [server.name()]).await;
    refuses(&stage, &["promote", server.name(), "--yes"], &["is in maintenance", "Instead: promote db-"])
        .await?;
    let proxy = stage.proxy().await?;
    eventually("nobody reads from it", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|shown| shown["name"] == server.name() && shown["state"] == "draining")
    })
    .await;
    let shown = order(&stage, &["status"]).await?;
    assert!(shown.out.contains(&format!("{} is in maintenance: disk", server.name())), "{}", shown.out);
    let off = order(&stage, &["maintenance", "off", server.name()]).await?;
    assert_eq!(off.code, 0, "{}", off.err);
    eventually("it is over", LIMIT, async || in_maintenance(&stage).await.is_empty()).await;
    let short = order(&stage, &["maintenance", "on", server.name(), "--for", "5s", "-o", "json"]).await?;
    assert_eq!(short.json()?["state"], "done", "{}", short.err);
    eventually("it has begun", LIMIT, async || !in_maintenance(&stage).await.is_empty()).await;
    eventually("it has ended by itself", LIMIT, async || in_maintenance(&stage).await.is_empty()).await;
    let fault = order(&stage, &["maintenance", "on", server.name(), "--for", "30"]).await?;
    assert_eq!(fault.code, 2, "{}", fault.err);
    Ok(())
}

async fn in_maintenance(stage: &Stage) -> Vec<String> {
    let status = failover_status(stage).await.unwrap_or_default();
    let servers = status["maintenance"].as_array().map(Vec::as_slice).unwrap_or_default();
    servers.iter().filter_map(|one| one["server"].as_str()).map(str::to_owned).collect()
}

async fn failover_of_the_living(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let from = primary(&stage).await?;
    let answers = format!("the primary {} answers", from.name());
    let words = [answers.as_str(), "Instead: a switchover, which loses nothing."];
    refuses(&stage, &["failover", "--primary-is-dead", "--yes"], &words).await?;
    let vouching = order(&stage, &["failover", "--yes"]).await?;
    assert_eq!(vouching.code, 2, "{}", vouching.err);
    assert!(vouching.err.contains("--primary-is-dead"), "{}", vouching.err);
    Ok(())
}

async fn failover(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (old, proxy) = (primary(&stage).await?, stage.proxy().await?);
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE survived (id INT PRIMARY KEY)").await?;
    client.query_drop("INSERT INTO survived VALUES (1)").await?;
    old.kill().await?;
    eventually("the verdict", LIMIT, async || {
        failover_status(&stage).await.is_ok_and(|status| status["verdict"] == "DEAD")
    })
    .await;
    // Reads go on, and nobody is promoted.
    let there: Option<u32> = client.query_first("SELECT id FROM survived").await?;
    assert_eq!(there, Some(1));
    assert_eq!(failover_status(&stage).await?["phase"], "STABLE");
    let shown = order(&stage, &["status"]).await?;
    assert!(shown.out.contains("failover.mode is not automatic"), "{}", shown.out);
    // `promote` knows that there is nobody to switch over from.
    let planned = order(&stage, &["promote", "db-9", "--dry-run"]).await?;
    assert_eq!(planned.code, 3, "{}", planned.err);
    let ran = order(&stage, &["failover", "--primary-is-dead", "--yes"]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let new = primary(&stage).await?;
    assert_ne!(new.name(), old.name());
    client.query_drop("INSERT INTO survived VALUES (2)").await?;
    assert_eq!(new.rows::<u32>("SELECT id FROM app.survived ORDER BY id").await?, [1, 2]);
    let gone = format!("{} does not answer", old.name());
    refuses(&stage, &["rejoin", old.name(), "--yes"], &[&gone, "Instead: start it first."]).await?;
    old.start().await?;
    let back = eventually_rejoins(&stage, &old).await?;
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    settled(&stage).await?;
    assert_eq!(proxy.status().await?["primary"], new.name());
    Ok(())
}

/// It is refused until the monitor has seen that the server is up.
async fn eventually_rejoins(stage: &Stage, server: &Server) -> Result<Ran, Failure> {
    eventually("it is seen", LIMIT, async || {
        let ran = order(stage, &["rejoin", server.name(), "--dry-run"]).await;
        ran.is_ok_and(|ran| ran.code == 0 && ran.out.contains("will replicate from"))
    })
    .await;
    order(stage, &["rejoin", server.name(), "--yes"]).await
}

async fn history(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let listed = order(&stage, &["history", "-o", "json"]).await?.json()?;
    let past = listed["history"].as_array().ok_or("no history")?;
    assert!(past.len() >= 3, "{listed}");
    assert_eq!(past[0]["to"], primary(&stage).await?.name(), "the newest comes first");
    for change in past {
        assert!(change["pause_ms"].is_u64(), "{change}");
        for kind in ["held", "fencing", "fenced", "chosen", "active", "open"] {
            let phases = change["phases"].as_array().ok_or("no phases")?;
            assert!(phases.iter().any(|phase| phase["kind"] == kind), "{kind} in {change}");
        }
    }
    let table = order(&stage, &["history", "-n", "1", "--phases"]).await?;
    assert!(table.out.starts_with("EPOCH"), "{}", table.out);
    for words in ["forced", "writes go on, after"] {
        assert!(table.out.contains(words), "{words} in {}", table.out);
    }
    Ok(())
}

async fn operations(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let listed = order(&stage, &["ops", "list", "-o", "json"]).await?.json()?;
    let all = listed["operations"].as_array().ok_or("no operations")?;
    let done = all.iter().find(|one| one["state"] == "done" && one["operation"] == "failover");
    let done = done.ok_or_else(|| format!("no failover in {listed}"))?;
    let id = done["id"].to_string();
    let shown = order(&stage, &["ops", "show", &id]).await?;
    for words in ["plan  failover  db-", "is chosen", "done  "] {
        assert!(shown.out.contains(words), "{words} in {}", shown.out);
    }
    let waited = order(&stage, &["ops", "wait", &id, "--timeout", "1s"]).await?;
    assert_eq!(waited.code, 0, "{}", waited.err);
    assert!(all.iter().any(|one| one["state"] == "refused"), "{listed}");
    let table = order(&stage, &["ops", "list"]).await?;
    assert!(table.out.starts_with("ID"), "{}", table.out);
    let unknown = order(&stage, &["ops", "show", "99999"]).await?;
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    Ok(())
}

async fn cancel(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (from, to) = (primary(&stage).await?, replica(&stage).await?);
    let idle = order(&stage, &["ops", "cancel", "99999"]).await?;
    assert_eq!(idle.code, 3, "{}", idle.err);
    assert!(idle.err.contains("operation 99999 is not under way"), "{}", idle.err);
    let mut client = stage.client().await?;
    client.query_drop("CREATE TABLE cancelled (id INT PRIMARY KEY)").await?;
    client.query_drop("BEGIN").await?;
    client.query_drop("INSERT INTO cancelled VALUES (1)").await?;
    // Waits for the open transaction, and is not waited for itself.
    let begun = order(&stage, &["promote", to.name(), "--yes", "--timeout", "100ms", "-o", "json"]).await?;
    assert_eq!(begun.code, 6, "{}{}", begun.out, begun.err);
    let id = begun.json()?["id"].to_string();
    let done = order(&stage, &["ops", "cancel", &id]).await?;
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains(&format!("{} goes on as the primary", from.name())), "{}", done.out);
    let end = order(&stage, &["ops", "wait", &id, "--timeout", "20s"]).await?;
    assert_eq!(end.code, 4, "{}{}", end.out, end.err);
    assert!(end.out.contains("rolled back: cancelled by an operator"), "{}", end.out);
    settled(&stage).await?;
    assert_eq!(primary(&stage).await?.name(), from.name());
    // The transaction has not been lost.
    client.query_drop("COMMIT").await?;
    assert_eq!(from.rows::<u32>("SELECT id FROM app.cancelled").await?, [1]);
    let again = order(&stage, &["ops", "cancel", &id]).await?;
    assert_eq!(again.code, 3, "{}", again.err);
    settled(&stage).await
}

async fn fence(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (from, server, proxy) = (primary(&stage).await?, replica(&stage).await?, stage.proxy().await?);
    let is_primary = format!("{} is the primary", from.name());
    refuses(
        &stage,
        &["fence", from.name(), "--yes"],
        &[&is_primary, "Instead: promote another server first."],
    )
    .await?;
    refuses(&stage, &["unfence", server.name(), "--yes"], &["is not fenced"]).await?;
    let planned = order(&stage, &["fence", server.name(), "--dry-run"]).await?;
    assert!(
        planned.code == 0 && planned.out.contains("nothing was changed"),
        "{}{}",
        planned.out,
        planned.err
    );
    // A client that came past the proxy, and one that might write there.
    let direct = server.connect_as(APP, "app").await?;
    server.set_read_only(false).await?;
    let fenced = order(&stage, &["fence", server.name(), "--yes"]).await?;
    assert_eq!(fenced.code, 0, "{}{}", fenced.out, fenced.err);
    eventually("it is out of the read pool, and says why", LIMIT, async || {
        let Ok(status) = proxy.status().await else { return false };
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|one| one["name"] == server.name() && one["reason"] == "fenced by an operator")
    })
    .await;
    let its_client =
        format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {}", direct.id());
    eventually("its clients are gone", LIMIT, async || {
        server.rows::<u32>(&its_client).await.is_ok_and(|count| count == [0])
    })
    .await;
    eventually("it is read-only", LIMIT, async || {
        server.rows::<u32>("SELECT @@global.read_only").await.is_ok_and(|on| on == [1])
    })
    .await;
    refuses(&stage, &["promote", server.name(), "--yes"], &["is fenced", "Instead: promote db-"]).await?;
    let shown = order(&stage, &["status"]).await?;
    assert!(shown.out.contains(&format!("! {} is fenced", server.name())), "{}", shown.out);
    // It is not made a replica again meanwhile.
    server.run(&["STOP REPLICA"]).await?;
    let unfenced = order(&stage, &["unfence", server.name(), "--yes"]).await?;
    assert_eq!(unfenced.code, 0, "{}{}", unfenced.out, unfenced.err);
    // What the proxy has last seen of it may be older than the stop.
    from.run(&["CREATE TABLE app.unfenced (id INT PRIMARY KEY)"]).await?;
    server.reach(&from.position().await?, LIMIT).await?;
    settled(&stage).await
}

async fn errant(stage: Arc<Stage>) -> Outcome {
    settled(&stage).await?;
    let (server, proxy) = (replica(&stage).await?, stage.proxy().await?);
    server.set_read_only(false).await?;
    server.run(&["CREATE TABLE app.errant (id INT PRIMARY KEY)"]).await?;
    let author = match stage.flavour() {
        Flavour::Mariadb => format!("0-{}-", server.id()),
        Flavour::Mysql => server.rows::<String>("SELECT @@server_uuid").await?.concat(),
    };
    eventually("it is out of the read pool", LIMIT, async || {
        let Ok(status) = proxy.status().await else { return false };
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|one| one["name"] == server.name() && one["state"] == "excluded")
    })
    .await;
    refuses(&stage, &["rejoin", server.name(), "--yes"], &[&author, "set the server up anew"]).await?;
    refuses(&stage, &["promote", server.name(), "--yes"], &["Instead: promote db-"]).await
}

const LIMIT: Duration = Duration::from_secs(30);
