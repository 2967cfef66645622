//! Every metric that the dashboard, the alerts and the documents name is there, in a running proxy, and every metric that
//! is there is documented.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite, metric_families, named_metrics};
use tokio::time::{Instant, sleep};

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "every metric that is named exists", named_metrics_exist);
    suite.test(&stage, "every metric that exists is documented", metrics_are_documented);
    suite.run()
}

async fn named_metrics_exist(stage: Arc<Stage>) -> Outcome {
    let proxy = stage.proxy().await?;
    let mut client = proxy.connect(APP, "app").await?;
    client.query_drop("CREATE TABLE metrics (id INT PRIMARY KEY)").await?;
    client.query_drop("INSERT INTO metrics VALUES (1)").await?;
    client.query_drop("SELECT * FROM metrics").await?;
    // A session that is pinned.
    client.query_drop("BEGIN").await?;
    client.query_drop("SELECT * FROM metrics").await?;
    let mut named = named_metrics()?;
    named.retain(|name, _| !name.starts_with(OF_A_VIRTUAL_ADDRESS));
    // So many that a wrong path or pattern is noticed.
    assert!(named.len() > 25, "{named:?}");
    for place in ["files/dashboards/pointsman.json", "files/alerts/PointsmanNoPrimary.yaml", "docs/runbooks"]
    {
        assert!(named.values().flatten().any(|file| file.contains(place)), "nothing is named in {place}");
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let (_, text) = proxy.get("/metrics").await?;
        let families = metric_families(&text);
        let missing: Vec<_> = named.iter().filter(|(name, _)| !families.contains(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Lag is known a moment after the start.
        assert!(Instant::now() < deadline, "named, but not in /metrics: {missing:#?}");
        sleep(POLL).await;
    }
}

async fn metrics_are_documented(stage: Arc<Stage>) -> Outcome {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = fs::read_to_string(document)?;
    let (_, text) = stage.proxy().await?.get("/metrics").await?;
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let described: Vec<_> = described.collect();
    assert!(described.len() > 25, "{described:?}");
    let missing: Vec<_> =
        described.iter().filter(|family| !document.contains(&format!("`{family}`"))).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    Ok(())
}

/// Metrics of `vip.address`, which needs the kernel's IPVS: `--test vip` looks for these where there is one.
const OF_A_VIRTUAL_ADDRESS: &str = "pointsman_vip_";
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
