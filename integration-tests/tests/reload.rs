//! A changed configuration is taken up by the running process, whole or not at all, and no client notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{
    Failure, Flavour, Load, Outcome, Plan, Proxy, Stage, Suite, Traffic, eventually, program,
};
use serde_json::Value;
use tokio::process::Command;

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "weights, limits and users change under load without an error", changes_under_load);
    suite.test(&stage, "a faulty configuration changes nothing and is named", faults_change_nothing);
    suite.test(&stage, "a directory that is swapped as Kubernetes does is noticed", swapped_directory);
    suite.test(&stage, "what needs a restart is named, on SIGHUP and by command", restart_is_named);
    suite.run()
}

async fn changes_under_load(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "").await?;
    eventually("online", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| states(&status).iter().all(|state| *state == "online"))
    })
    .await;
    let load = Load { readers: 4, writers: 2, transactions: 0, pace: Duration::from_millis(2) };
    let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
    let rest = fs::read_to_string(proxy.configuration())?;
    let rest: Vec<_> = rest.lines().filter(|line| !line.starts_with("servers =")).collect();
    let rest = rest.join("\n");
    for weight in [7, 0, 90] {
        let item = |server: &Arc<Server>| {
            let (name, address) = (server.name(), server.address());
            format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
        };
        let items: Vec<_> = sandbox.servers().iter().map(item).collect();
        let own = format!(
            "servers = [{}]\nuser_list = [{{ name = \"app\", consistency = \"eventual\" }}]\n",
            items.join(", ")
        );
        let limit = format!("\n[lag]\nmaximum = \"{}s\"\n", weight + 1);
        let before = traffic.tally();
        rewrite(&proxy, |_| [own.as_str(), &rest, &limit].concat())?;
        eventually("the new weights", LIMIT, async || {
            proxy.status().await.is_ok_and(|status| status["servers"][1]["weight"] == weight)
        })
        .await;
        eventually("traffic", LIMIT, async || traffic.tally().since(&before).reads > 20).await;
    }
    let tally = traffic.tally();
    assert!(tally.writes > 0 && tally.reads > 0, "{tally:?}");
    assert_eq!(tally.failed_reads, 0, "{:?}", traffic.read_errors());
    assert_eq!(tally.failed_writes, 0, "{:?}", traffic.write_errors());
    Ok(())
}

async fn faults_change_nothing(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "").await?;
    let mut client = proxy.connect(APP, "app").await?;
    let sound = fs::read_to_string(proxy.configuration())?;
    let hash = proxy.status().await?["config"]["hash"].clone();
    rewrite(&proxy, |text| format!("{text}\n[lag]\nmaximum = 3\n[pol]\n"))?;
    eventually("the fault", LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        let fault = status["config"]["fault"].as_str().unwrap_or_default().to_owned();
        fault.contains("lag.maximum") && fault.contains("pol") && fault.contains("pointsman.toml")
    })
    .await;
    assert_eq!(metric(&proxy, "pointsman_config_last_reload_success").await?, "0");
    assert_eq!(proxy.status().await?["config"]["hash"], hash);
    let answer: Option<u32> = client.query_first("SELECT 1").await?;
    assert_eq!(answer, Some(1));
    let refused = reload(&proxy, &Token::of(&proxy)?).await?;
    assert_ne!(refused.0, 0, "{}", refused.1);
    rewrite(&proxy, |_| sound.clone())?;
    eventually("no fault", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| status["config"]["fault"].is_null())
    })
    .await;
    assert_eq!(metric(&proxy, "pointsman_config_last_reload_success").await?, "1");
    Ok(())
}

/// The configured path is a link into `..data`, which is a link to a directory, and only that one is replaced.
async fn swapped_directory(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "").await?;
    let file = proxy.configuration();
    let directory = file.parent().ok_or("no directory")?;
    let text = fs::read_to_string(file)?;
    publish(directory, "..1", &text)?;
    fs::remove_file(file)?;
    symlink("..data/pointsman.toml", file)?;
    for (name, seconds) in [("..2", 3), ("..3", 4)] {
        let before = proxy.status().await?["config"]["hash"].clone();
        publish(directory, name, &format!("{text}\n[lag]\nmaximum = \"{seconds}s\"\n"))?;
        eventually("another configuration", LIMIT, async || {
            proxy.status().await.is_ok_and(|status| status["config"]["hash"] != before)
        })
        .await;
        let status = proxy.status().await?;
        assert_eq!(status["config"]["applied"][0]["key"], "lag.maximum", "{status}");
    }
    Ok(())
}

async fn restart_is_named(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let token = sandbox.directory().join("reload-token");
    fs::write(&token, "swordfish\n")?;
    let proxy = Proxy::start(&sandbox, &format!("token_file = \"{}\"\n", token.display())).await?;
    rewrite(&proxy, |text| format!("{text}\n[pool]\nmode = \"session\"\nacquire_timeout = \"3s\"\n"))?;
    let (code, out) = reload(&proxy, &Token(token)).await?;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("taken up: pool.acquire_timeout"), "{out}");
    assert!(out.contains("waits for a restart: pool.mode"), "{out}");
    assert_eq!(metric(&proxy, "pointsman_config_restart_required").await?, "1");
    rewrite(&proxy, |text| text.replace("mode = \"session\"\n", ""))?;
    proxy.signal(Signal::SIGHUP).await?;
    eventually("nothing waits", LIMIT, async || {
        metric(&proxy, "pointsman_config_restart_required").await.is_ok_and(|value| value == "0")
    })
    .await;
    Ok(())
}

/// A file with the token of changes.
struct Token(std::path::PathBuf);

impl Token {
    /// None that would open the door of this proxy.
    fn of(proxy: &Proxy) -> Result<Self, Failure> {
        let file = proxy.configuration().with_file_name("no-token");
        fs::write(&file, "none\n")?;
        Ok(Self(file))
    }
}

/// Exit code and output of `pointsman config reload`.
async fn reload(proxy: &Proxy, token: &Token) -> Result<(i32, String), Failure> {
    let endpoint = format!("http://127.0.0.1:{}", proxy.admin_port());
    let output = Command::new(program()?)
        .args(["config", "reload", "--endpoint", &endpoint, "--token-file"])
        .arg(&token.0)
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

fn rewrite(proxy: &Proxy, change: impl Fn(&str) -> String) -> Result<(), std::io::Error> {
    let file = proxy.configuration();
    let new = file.with_extension("new");
    fs::write(&new, change(&fs::read_to_string(file)?))?;
    fs::rename(new, file)
}

fn publish(directory: &Path, name: &str, text: &str) -> Result<(), std::io::Error> {
    let version = directory.join(name);
    fs::create_dir(&version)?;
    fs::write(version.join("pointsman.toml"), text)?;
    let link = directory.join("..data_tmp");
    symlink(name, &link)?;
    fs::rename(link, directory.join("..data"))
}

fn states(status: &Value) -> Vec<&str> {
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    servers.iter().filter_map(|server| server["state"].as_str()).collect()
}

async fn metric(proxy: &Proxy, name: &str) -> Result<String, Failure> {
    let (_, text) = proxy.get("/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(str::to_owned).ok_or_else(|| format!("no {name} in {text}").into())
}

const LIMIT: Duration = Duration::from_secs(30);
