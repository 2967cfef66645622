//! Every metric that the dashboard, the alerts and the documents name is there, in a running proxy, and every metric that
//! is there is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite};
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
    let named = named()?;
    // So many that a wrong path or pattern is noticed.
    assert!(named.len() > 25, "{named:?}");
    for place in ["files/dashboards/pointsman.json", "files/alerts/PointsmanNoPrimary.yaml", "docs/runbooks"]
    {
        assert!(named.values().flatten().any(|file| file.contains(place)), "nothing is named in {place}");
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let (_, text) = proxy.get("/metrics").await?;
        let families = families(&text);
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

/// The names of the samples; those of a histogram also without what they count.
fn families(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    names
        .flat_map(|name| {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            [Some(name), family].into_iter().flatten().map(str::to_owned)
        })
        .collect()
}

/// Each metric that is named, with the files that name it.
fn named() -> Result<BTreeMap<String, BTreeSet<String>>, std::io::Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut files = vec![root.join("README.md")];
    for folder in ["docs", "charts/pointsman"] {
        list(&root.join(folder), &mut files)?;
    }
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        for name in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let metric = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let elsewhere = name.starts_with(OF_A_VIRTUAL_ADDRESS) || NO_METRICS.contains(&name);
            if metric && !name.ends_with('_') && !elsewhere {
                named.entry(name.to_owned()).or_default().insert(file.display().to_string());
            }
        }
    }
    Ok(named)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), std::io::Error> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if path.is_dir() {
            list(&path, files)?;
        } else if matches!(kind, Some("md" | "json" | "yaml" | "txt")) {
            files.push(path);
        }
    }
    Ok(())
}

const PREFIXES: [&str; 2] = ["pointsman_", "process_"];
/// Metrics of `vip.address`, which needs the kernel's IPVS and the right to change it: not there in these tests.
const OF_A_VIRTUAL_ADDRESS: &str = "pointsman_vip_";
/// Names with such a beginning that are something else: a variable of the session.
const NO_METRICS: [&str; 1] = ["pointsman_consistency"];
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
