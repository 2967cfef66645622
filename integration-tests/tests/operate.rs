//! What an operator asks is answered, truly, and changes are let through by their door only.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Load, Outcome, Plan, Stage, Suite, Traffic, eventually, run,
};
use serde_json::Value;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.configuration = "[failover]\nmode = \"off\"\n[log]\nslow_query = \"300ms\"\n".to_owned();
        let stage = suite.stage(plan);
        suite.test(&stage, "probes say yes, and depend on no server", probes);
        suite.test(&stage, "status keeps its contract and its exit codes", status);
        suite.test(&stage, "metrics count what clients do", metrics);
        suite.test(&stage, "sessions show their pins", sessions);
        suite.test(&stage, "explain asks a live session", explain_session);
        suite.test(&stage, "slow statements are logged without their values", slow_statements);
        suite.test(&stage, "a drained server gets no reads", drain_server);
        suite.test(&stage, "changes need the socket or the token", changes_need_a_door);
        suite.test(&stage, "check names the grant that is missing", check_grants);
        suite.test(&stage, "check --fix makes a replica read-only", check_fixes);
    }
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "a wrong configuration never starts, with every fault", wrong_configuration);
    suite.test(&stage, "explain answers every line once", explain_lines);
    suite.test(&stage, "explain does not wait for a session without end", explain_busy_session);
    suite.run()
}

/// The address of a stage's admin listener.
async fn endpoint(stage: &Stage) -> Result<String, Failure> {
    Ok(format!("http://127.0.0.1:{}", stage.proxy().await?.admin_port()))
}

async fn all_online(stage: &Stage) -> Result<(), Failure> {
    let proxy = stage.proxy().await?;
    eventually("all servers are online", LIMIT, async || {
        let Ok(status) = proxy.status().await else { return false };
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        !status["primary"].is_null() && servers.iter().all(|server| server["state"] == "online")
    })
    .await;
    Ok(())
}

async fn stop_replication(server: &Server) -> Result<(), Failure> {
    Ok(server.run(&["STOP REPLICA"]).await?)
}

async fn start_replication(server: &Server) -> Result<(), Failure> {
    Ok(server.run(&["START REPLICA"]).await?)
}

async fn probes(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let (proxy, sandbox) = (stage.proxy().await?, stage.sandbox().await?);
    for path in ["/livez", "/readyz", "/startupz", "/readyz?role=rw", "/readyz?role=ro"] {
        assert_eq!(proxy.get(path).await?.0, 200, "{path}");
    }
    sandbox.primary().kill().await?;
    eventually("no primary", LIMIT, async || {
        proxy
            .get("/readyz?role=rw")
            .await
            .is_ok_and(|(status, body)| status == 503 && body.contains("no primary"))
    })
    .await;
    for path in ["/livez", "/readyz", "/startupz", "/readyz?role=ro"] {
        assert_eq!(proxy.get(path).await?.0, 200, "{path} without a primary");
    }
    sandbox.primary().start().await?;
    all_online(&stage).await
}

async fn status(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let (endpoint, sandbox) = (endpoint(&stage).await?, stage.sandbox().await?);
    let healthy = run(&["status", "-o", "json", "--endpoint", &endpoint], "").await?;
    assert_eq!(healthy.code, 0, "{}", healthy.err);
    let document = healthy.json()?;
    assert_eq!(document["apiVersion"], "pointsman/v1");
    for key in ["cluster", "epoch", "primary", "durability", "servers"] {
        assert!(!document[key].is_null(), "{key}");
    }
    for key in ["name", "address", "role", "state", "lag_ms", "weight", "connections", "reason"] {
        assert!(document["servers"][1].get(key).is_some(), "{key}");
    }
    let replica = &sandbox.replicas()[0];
    stop_replication(replica).await?;
    eventually("degraded", LIMIT, async || {
        run(&["status", "--endpoint", &endpoint], "").await.is_ok_and(|ran| {
            ran.code == 10 && ran.out.contains("excluded") && ran.out.contains("thread is stopped")
        })
    })
    .await;
    start_replication(replica).await?;
    sandbox.primary().kill().await?;
    eventually("no primary", LIMIT, async || {
        run(&["status", "-o", "yaml", "--endpoint", &endpoint], "")
            .await
            .is_ok_and(|ran| ran.code == 11 && ran.out.contains("primary: null"))
    })
    .await;
    sandbox.primary().start().await?;
    let nobody = run(&["status", "--endpoint", "http://127.0.0.1:1"], "").await?;
    assert_eq!(nobody.code, 7, "{}", nobody.err);
    all_online(&stage).await
}

async fn metrics(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let proxy = stage.proxy().await?;
    let count = async |name: &str| proxy.metric(name).await;
    let before = count("pointsman_queries_total").await?;
    let mut client = stage.client().await?;
    for _ in 0..10 {
        client.query_drop("SELECT 1").await?;
    }
    assert!(count("pointsman_queries_total").await? >= before + 10.0);
    assert!(count("pointsman_query_duration_seconds_count").await? >= 10.0);
    assert!(count("pointsman_client_connections").await? >= 1.0);
    assert_eq!(count("pointsman_server_up").await?, 3.0);
    assert_eq!(count("pointsman_topology_epoch").await?, 1.0);
    assert!(count("pointsman_server_probe_duration_seconds_count").await? > 0.0);
    assert!(count("process_resident_memory_bytes").await? > 0.0);
    Ok(())
}

async fn sessions(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let endpoint = endpoint(&stage).await?;
    let mut client = stage.client().await?;
    client.query_drop("BEGIN").await?;
    client.query_drop("SELECT * FROM sandbox FOR UPDATE").await?;
    let listed = run(&["sessions", "-o", "json", "--endpoint", &endpoint], "").await?.json()?;
    let sessions = listed["sessions"].as_array().ok_or("no sessions")?;
    let ours = sessions.iter().find(|session| session["pins"][0] == "transaction");
    let ours = ours.ok_or_else(|| format!("no pinned session in {listed}"))?;
    assert_eq!(ours["user"], "app");
    assert!(ours["server"].is_string());
    assert!(ours["statements"].as_u64() >= Some(2), "{ours}");
    assert_eq!(
        ours["digest"].as_str().map(str::len),
        Some(32),
        "of the statement that began the pin: {ours}"
    );
    client.query_drop("ROLLBACK").await?;
    client.query_drop("USE test").await?;
    client.query_drop("DO GET_LOCK('pointsman', 0)").await?;
    let session = session_of(&endpoint, &ours["id"]).await?;
    assert_eq!((&session["schema"], &session["pins"][0]), (&"test".into(), &"user-lock".into()), "{session}");
    let proxy = stage.proxy().await?;
    let resets = proxy.metric("pointsman_connection_resets_total").await?;
    assert!(client.reset().await?, "the server resets connections");
    let session = session_of(&endpoint, &ours["id"]).await?;
    assert!(session["pins"][0].is_null() && session["digest"] == "", "{session}");
    assert_eq!(proxy.metric("pointsman_connection_resets_total").await?, resets + 1.0);
    Ok(())
}

async fn session_of(endpoint: &str, id: &Value) -> Result<Value, Failure> {
    let listed = run(&["sessions", "-o", "json", "--endpoint", endpoint], "").await?.json()?;
    let sessions = listed["sessions"].as_array().ok_or("no sessions")?;
    let ours = sessions.iter().find(|session| session["id"] == *id);
    Ok(ours.ok_or_else(|| format!("no session {id} in {listed}"))?.clone())
}

async fn slow_statements(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let proxy = stage.proxy().await?;
    let before = proxy.log().len();
    let logged = || {
        let log = proxy.log();
        let lines = log[before..].lines().filter(|line| line.contains("slow statement"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut client = stage.client().await?;
    for secret in ["hush", "whisper"] {
        client.query_drop(format!("SELECT SLEEP(0.4), '{secret}'")).await?;
    }
    client.exec_drop("SELECT SLEEP(?), 'hush'", (0.4,)).await?;
    eventually("the slow statements are in the log", LIMIT, async || logged().len() >= 3).await;
    let field = |line: &str, name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned()).ok_or(format!("no {name} in {line}"))
    };
    let status = proxy.status().await?;
    for line in logged() {
        assert!(!line.contains("SLEEP") && !line.contains("hush") && !line.contains("whisper"), "{line}");
        assert_eq!(field(&line, "user")?, "app");
        assert!(field(&line, "milliseconds")?.parse::<u64>()? >= 300, "{line}");
        let server = field(&line, "server")?;
        let servers = status["servers"].as_array().ok_or("no servers")?;
        assert!(servers.iter().any(|known| known["name"] == *server), "{line}");
    }
    // Statements that differ in nothing but their values have one digest.
    let lines = logged();
    assert_eq!(field(&lines[0], "digest")?, field(&lines[1], "digest")?);
    assert_eq!(field(&lines[0], "digest")?.len(), 32);
    Ok(())
}

async fn drain_server(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let (proxy, sandbox) = (stage.proxy().await?, stage.sandbox().await?);
    let socket = proxy.endpoint();
    let status = proxy.status().await?;
    let name = status["servers"][1]["name"].as_str().ok_or("no name")?.to_owned();
    let drained = run(&["drain", &name, "--endpoint", &socket], "").await?;
    assert_eq!(drained.code, 0, "{}", drained.err);
    assert_eq!(proxy.status().await?["servers"][1]["state"], "draining");
    let before = sandbox.replicas()[0].counter("Com_select").await?;
    let mut client = stage.client().await?;
    for _ in 0..20 {
        client.query_drop("SELECT COUNT(*) FROM sandbox").await?;
    }
    // The counter's own question is counted, and the monitor's.
    let other = sandbox.replicas()[1].counter("Com_select").await?;
    assert!(other > 0);
    let logged = sandbox.replicas()[0].counter("Com_select").await? - before;
    let primary = status["primary"].as_str().ok_or("no primary")?;
    let refused = run(&["drain", primary, "--endpoint", &socket], "").await?;
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
    let back = run(&["undrain", &name, "--endpoint", &socket], "").await?;
    assert_eq!(back.code, 0, "{}", back.err);
    assert!(logged < 200, "{logged}");
    all_online(&stage).await
}

async fn changes_need_a_door(stage: Arc<Stage>) -> Outcome {
    let endpoint = endpoint(&stage).await?;
    let refused = run(&["drain", "--local", "--endpoint", &endpoint], "").await?;
    assert_eq!(refused.code, 3);
    assert!(refused.err.contains("set admin.socket"), "{}", refused.err);
    // With a token, the TCP listener takes changes, too.
    let sandbox = stage.sandbox().await?;
    let token = sandbox.directory().join(format!("token-{:?}", stage.flavour()));
    std::fs::write(&token, "swordfish\n")?;
    let configuration = format!("token_file = \"{}\"\n[drain]\ndelay = \"0s\"\n", token.display());
    let proxy = pointsman_integration_tests::Proxy::start(&sandbox, &configuration).await?;
    let endpoint = format!("http://127.0.0.1:{}", proxy.admin_port());
    let without = run(&["drain", "--local", "--endpoint", &endpoint], "").await?;
    assert_eq!(without.code, 3, "{}", without.err);
    let token = token.display().to_string();
    let with = run(&["drain", "--local", "--endpoint", &endpoint, "--token-file", &token], "").await?;
    assert_eq!(with.code, 0, "{}", with.err);
    assert!(proxy.ended(LIMIT).await?.success());
    Ok(())
}

async fn check_grants(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let (proxy, sandbox) = (stage.proxy().await?, stage.sandbox().await?);
    let configuration = proxy.configuration().display().to_string();
    let arguments = ["check", "-o", "json", "--config", &configuration];
    // While something is written all the time, replicas are a moment behind, or seen a moment after the primary.
    let load = Load { readers: 0, writers: 4, transactions: 0, pace: Duration::from_millis(2) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    let good = run(&arguments, "").await?;
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    assert!(traffic.tally().writes > 0);
    drop(traffic);
    let privilege = match stage.flavour() {
        Flavour::Mariadb => "REPLICA MONITOR",
        Flavour::Mysql => "REPLICATION CLIENT",
    };
    sandbox.primary().run(&[&format!("REVOKE {privilege} ON *.* FROM pointsman@'%'")]).await?;
    let bad = run(&arguments, "").await?;
    let findings = bad.json()?;
    let grant = findings["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|finding| finding["fix"]["sql"][0].as_str())
        .find(|sql| sql.starts_with(&format!("GRANT {privilege}")))
        .ok_or_else(|| format!("no grant named in {findings}"))?
        .to_owned();
    sandbox.primary().run(&[&grant]).await?;
    assert_eq!(bad.code, 10);
    eventually("mended", LIMIT, async || run(&arguments, "").await.is_ok_and(|ran| ran.code == 0)).await;
    all_online(&stage).await
}

async fn check_fixes(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let (proxy, sandbox) = (stage.proxy().await?, stage.sandbox().await?);
    let configuration = proxy.configuration().display().to_string();
    let replica = &sandbox.replicas()[1];
    replica.set_read_only(false).await?;
    let found = run(&["check", "--config", &configuration], "").await?;
    assert!(found.out.contains("accepts writes of anybody"), "{}", found.out);
    let unasked = run(&["check", "--fix", "--config", &configuration], "").await?;
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    let fixed = run(&["check", "--fix", "--yes", "--config", &configuration], "").await?;
    // The service account may not change everything that is proposed on MariaDB: the rest is done all the same.
    let expected = match stage.flavour() {
        Flavour::Mariadb => 5,
        Flavour::Mysql => 0,
    };
    assert_eq!(fixed.code, expected, "{}{}", fixed.out, fixed.err);
    assert_eq!(replica.rows::<u8>("SELECT @@global.read_only").await?, [1]);
    Ok(())
}

async fn wrong_configuration(stage: Arc<Stage>) -> Outcome {
    let directory = stage.sandbox().await?.directory().join("wrong.toml");
    std::fs::write(&directory, "servers = [\"db-1\"]\npasword = \"x\"\n[monitor]\ninterval = 5\n")?;
    let ran = run(&["serve", "--config", &directory.display().to_string()], "").await?;
    assert_eq!(ran.code, 2, "{}", ran.err);
    for place in ["wrong.toml:2:1: pasword", "wrong.toml:4:12: monitor.interval"] {
        assert!(ran.err.contains(place), "{place} in {}", ran.err);
    }
    Ok(())
}

async fn explain_lines(_stage: Arc<Stage>) -> Outcome {
    let lines = ["SELECT a FROM t", "", "DELETE FROM t", r"SELECT a\nFROM t", "-- only a comment"];
    let ran = run(&["explain", "-o", "json", "-"], &(lines.join("\n") + "\n")).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let targets: Vec<_> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).map(|value| value["target"].to_string()))
        .collect::<Result<_, _>>()?;
    assert_eq!(targets.len(), lines.len(), "{}", ran.out);
    assert_eq!((targets[0].as_str(), targets[2].as_str()), ("\"replica\"", "\"primary\""));
    assert_eq!(targets[3], "\"replica\"");
    Ok(())
}

/// What `pointsman explain` says that this session would do with a statement.
async fn explained(endpoint: &str, session: u32, sql: &str) -> Result<Value, Failure> {
    let id = session.to_string();
    let args = ["explain", "-o", "json", "--tokens", "--session", &id, "--endpoint", endpoint, sql];
    let ran = run(&args, "").await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.json()
}

async fn explain_session(stage: Arc<Stage>) -> Outcome {
    const READ: &str = "SELECT \"id\" FROM sandbox";
    all_online(&stage).await?;
    let (endpoint, sandbox) = (endpoint(&stage).await?, stage.sandbox().await?);
    let primary = sandbox.primary().name();
    let mut client = stage.client().await?;
    let id: u32 = client.query_first("SELECT CONNECTION_ID()").await?.ok_or("no id")?;
    let ask = async |sql: &str| explained(&endpoint, id, sql).await;
    let told = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();

    let read = ask(READ).await?;
    assert!(sandbox.replicas().iter().any(|replica| replica.name() == told(&read, "server")), "{read}");
    assert_eq!((told(&read, "target").as_str(), told(&read, "route").as_str()), ("replica", "pure read"));
    assert_eq!(ask("DELETE FROM sandbox").await?["server"], primary);

    // What its session has set decides how a statement is read, and where it goes.
    let class = |value: &Value| value["tokens"][1]["class"].clone();
    assert_eq!(class(&read), "string", "{read}");
    client.query_drop("SET sql_mode = 'ANSI_QUOTES'").await?;
    let read = ask(READ).await?;
    assert_eq!(class(&read), "name", "{read}");
    client.query_drop("SET autocommit = 0").await?;
    let read = ask(READ).await?;
    assert_eq!((&read["server"], &read["route"]), (&primary.into(), &"autocommit is off".into()), "{read}");
    client.query_drop("SET autocommit = 1").await?;
    client.query_drop("BEGIN").await?;
    client.query_drop("SELECT * FROM sandbox FOR UPDATE").await?;
    let read = ask(READ).await?;
    assert!(read["server"] == primary && told(&read, "route").contains("transaction"), "{read}");
    client.query_drop("ROLLBACK").await?;

    let own = ask("SET pointsman_consistency = 'eventual'").await?;
    assert!(own["server"].is_null() && told(&own, "route").contains("Pointsman"), "{own}");
    match client.query_drop("SET pointsman_consistency = 'strong'").await {
        Err(mysql_async::Error::Server(error)) => assert_eq!(error.code, 1231, "{error}"),
        answer => return Err(format!("expected 1231, got {answer:?}").into()),
    }
    assert_eq!(ask("CREATE TABLE asked_about (id INT)").await?["server"], primary);
    let made: Option<String> = client.query_first("SHOW TABLES LIKE 'asked_about'").await?;
    assert_eq!(made, None, "what was asked about has run");
    drop(client);
    eventually("a session that is gone is named", LIMIT, async || {
        let args = ["explain", "--session", &id.to_string(), "--endpoint", &endpoint, "SELECT 1"];
        run(&args, "").await.is_ok_and(|ran| ran.code == 3 && ran.err.contains("there is no session"))
    })
    .await;
    Ok(())
}

async fn explain_busy_session(stage: Arc<Stage>) -> Outcome {
    all_online(&stage).await?;
    let endpoint = endpoint(&stage).await?;
    let mut client = stage.client().await?;
    let id: u32 = client.query_first("SELECT CONNECTION_ID()").await?.ok_or("no id")?;
    let sleeping = tokio::spawn(async move { client.query_drop("DO SLEEP(15)").await });
    eventually("the statement runs", LIMIT, async || {
        session_of(&endpoint, &id.into()).await.is_ok_and(|session| session["state"] == "running")
    })
    .await;
    let ran =
        run(&["explain", "--session", &id.to_string(), "--endpoint", &endpoint, "SELECT 1"], "").await?;
    assert!(ran.code == 3 && ran.err.contains("ask again when"), "{} {}", ran.code, ran.err);
    sleeping.abort();
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(30);
