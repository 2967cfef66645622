//! Servers come and go by the configuration while the process runs, and no client notices.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Options, Sandbox, Server};
use pointsman_integration_tests::{
    FLAVOURS, Failure, Flavour, Load, Outcome, Plan, Proxy, Stage, Suite, Traffic, eventually,
};
use serde_json::Value;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(plan(flavour, 2));
        suite.test(&stage, "a replica is added, removed and added again under load", comes_and_goes);
        suite.test(&stage, "the primary stays until it is moved", primary_stays);
        let stage = suite.stage(plan(flavour, 2));
        suite.test(&stage, "a server that was added can take the primary's place", added_is_promoted);
        let stage = suite.stage(plan(flavour, 3));
        suite.test(&stage, "a replica that still acknowledges is missed by name", stranger_is_missed);
    }
    suite.run()
}

fn plan(flavour: Flavour, replicas: usize) -> Plan {
    let sandbox = Options { flavour, replicas, lossless: true, ..Options::default() };
    Plan { sandbox, configuration: String::new() }
}

/// A proxy that knows some of the servers.
async fn proxy_of(sandbox: &Sandbox, servers: &[usize]) -> Result<Proxy, Failure> {
    let all = sandbox.configuration();
    let rest: Vec<_> = all.lines().filter(|line| !line.starts_with("servers =")).collect();
    let first = format!("{}\n{}\n", line_of(sandbox, servers), rest.join("\n"));
    let proxy = Proxy::spawn_on(sandbox, &first, "")?;
    proxy.ready(LIMIT).await?;
    online(&proxy, servers).await;
    Ok(proxy)
}

fn line_of(sandbox: &Sandbox, servers: &[usize]) -> String {
    let item = |at: &usize| {
        let server = &sandbox.servers()[*at];
        format!("{{ name = \"{}\", address = \"{}\" }}", server.name(), server.address())
    };
    format!("servers = [{}]", servers.iter().map(item).collect::<Vec<_>>().join(", "))
}

/// Changes the configuration to these servers.
fn list(sandbox: &Sandbox, proxy: &Proxy, servers: &[usize]) -> Outcome {
    let file = proxy.configuration();
    let text = fs::read_to_string(file)?;
    let change = |line: &str| match line.starts_with("servers =") {
        true => line_of(sandbox, servers),
        false => line.to_owned(),
    };
    let new = file.with_extension("new");
    fs::write(&new, text.lines().map(change).collect::<Vec<_>>().join("\n"))?;
    Ok(fs::rename(new, file)?)
}

/// Waits until status shows these servers, all of them online.
async fn online(proxy: &Proxy, servers: &[usize]) {
    let expected: Vec<_> = servers.iter().map(|at| format!("db-{} online", at + 1)).collect();
    eventually(&format!("{expected:?}"), LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        let mut shown = shown(&status);
        shown.sort();
        shown == expected
    })
    .await;
}

fn shown(status: &Value) -> Vec<String> {
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    servers.iter().map(|server| format!("{} {}", text(&server["name"]), text(&server["state"]))).collect()
}

async fn reads_of(server: &Server) -> u64 {
    server.counter("Com_select").await.unwrap_or_default()
}

/// Connections of the application.
async fn clients_of(server: &Server) -> Result<u64, Failure> {
    let sql = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{}'", APP.0);
    Ok(server.rows::<u64>(&sql).await?.first().copied().unwrap_or_default())
}

async fn gets_reads(server: &Server) {
    let before = reads_of(server).await;
    eventually("reads", LIMIT, async || reads_of(server).await > before + 50).await;
}

async fn traffic_of(proxy: &Proxy) -> Result<Traffic, Failure> {
    let load = Load { readers: 4, writers: 2, transactions: 2, pace: Duration::from_millis(2) };
    Traffic::start(proxy.options(APP, "app"), load).await
}

async fn comes_and_goes(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = proxy_of(&sandbox, &[0, 1]).await?;
    let traffic = traffic_of(&proxy).await?;
    for _ in 0..2 {
        list(&sandbox, &proxy, &[0, 1, 2])?;
        online(&proxy, &[0, 1, 2]).await;
        gets_reads(&sandbox.servers()[2]).await;
        list(&sandbox, &proxy, &[2, 0])?;
        online(&proxy, &[0, 2]).await;
        let left = &sandbox.servers()[1];
        eventually("no client on the server that is gone", LIMIT, async || {
            clients_of(left).await.is_ok_and(|clients| clients == 0)
        })
        .await;
        list(&sandbox, &proxy, &[0, 1])?;
        online(&proxy, &[0, 1]).await;
        gets_reads(left).await;
    }
    let (_, metrics) = proxy.get("/metrics").await?;
    assert!(!metrics.contains("server=\"db-3\",state"), "{metrics}");
    let tally = traffic.tally();
    assert!(tally.writes > 100, "{tally:?}");
    assert_eq!(tally.failed_reads, 0, "{:?}", traffic.read_errors());
    assert_eq!(tally.failed_writes, 0, "{:?}", traffic.write_errors());
    Ok(())
}

async fn primary_stays(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = proxy_of(&sandbox, &[0, 1, 2]).await?;
    let traffic = traffic_of(&proxy).await?;
    list(&sandbox, &proxy, &[1, 2])?;
    eventually("what waits is named", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        status["config"]["restart_required"].to_string().contains("servers.db-1.address")
    })
    .await;
    online(&proxy, &[0, 1, 2]).await;
    let before = traffic.tally();
    eventually("writes", LIMIT, async || traffic.tally().since(&before).writes > 50).await;
    assert_eq!(traffic.tally().failed_writes, 0, "{:?}", traffic.write_errors());
    Ok(())
}

async fn added_is_promoted(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = proxy_of(&sandbox, &[0]).await?;
    assert_eq!(proxy.status().await?["failover"]["off_reason"], "there is only one server");
    list(&sandbox, &proxy, &[0, 1, 2])?;
    online(&proxy, &[0, 1, 2]).await;
    ready(&proxy).await;
    let traffic = traffic_of(&proxy).await?;
    sandbox.primary().kill().await?;
    replaced(&proxy).await;
    let before = traffic.tally();
    eventually("writes", LIMIT, async || traffic.tally().since(&before).writes > 50).await;
    Ok(())
}

/// db-4 is taken out of the configuration, but goes on to acknowledge: what it alone may hold is not given up.
async fn stranger_is_missed(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = proxy_of(&sandbox, &[0, 1, 2, 3]).await?;
    ready(&proxy).await;
    list(&sandbox, &proxy, &[0, 1, 2])?;
    eventually("db-4 is missed", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        status["failover"]["unready"].as_str().is_some_and(|text| text.contains("missing: db-4"))
    })
    .await;
    eventually("the log says so", LIMIT, async || {
        proxy.log().contains("db-4 is in no configuration and may acknowledge")
    })
    .await;
    // As the documentation asks: it is stopped first. Then the others are enough.
    let stop = match sandbox.primary().flavour() {
        Flavour::Mariadb => "STOP SLAVE",
        Flavour::Mysql => "STOP REPLICA",
    };
    sandbox.servers()[3].run(&[stop]).await?;
    ready(&proxy).await;
    let traffic = traffic_of(&proxy).await?;
    sandbox.primary().kill().await?;
    replaced(&proxy).await;
    let before = traffic.tally();
    eventually("writes", LIMIT, async || traffic.tally().since(&before).writes > 50).await;
    Ok(())
}

/// Waits until the loss of the primary would be survived.
async fn ready(proxy: &Proxy) {
    eventually("a failover is possible", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        let failover = &status["failover"];
        failover["mode"] == "automatic"
            && failover["durability"] == "lossless"
            && failover["unready"].is_null()
    })
    .await;
}

async fn replaced(proxy: &Proxy) {
    eventually("another primary", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        status["primary"].as_str().is_some_and(|primary| primary != "db-1")
    })
    .await;
}

const LIMIT: Duration = Duration::from_secs(30);
