//! Every coordinator keeps the same promises: one writer wins, revisions rise, sessions run out, news spreads.

use std::sync::Arc;
use std::time::Duration;

use pointsman::cluster::ServiceAccount;
use pointsman::failover::coordinator::{Coordinator, Entitlement, Etcd as Client, Local, Locks};
use pointsman_config::{Config, Secret};
use pointsman_integration_tests::contract::{self, LEASE, contract};
use pointsman_integration_tests::sandbox::{SERVICE, Server};
use pointsman_integration_tests::{
    Etcd, FLAVOURS, Failure, Flavour, Outcome, Plan, Stage, Suite, eventually,
};
use pointsman_router::failover::Revision;
use pointsman_router::roster::Roster;
use tempfile::TempDir;
use tokio::time::timeout;

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "local: the contract", |_| local());
    suite.test(&stage, "local: a register survives the process", |_| local_survives());
    suite.test(&stage, "etcd: the contract", |_| etcd());
    suite.test(&stage, "etcd: a session runs out, and comes back", |_| etcd_sessions());
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan::new(flavour));
        suite.test(&stage, "locks: one of two proxies is entitled, the other one after it", locks);
    }
    suite.run()
}

const LIMIT: Duration = Duration::from_secs(20);

async fn local() -> Outcome {
    let directory = TempDir::new()?;
    let path = directory.path().to_owned();
    let view = |proxy| Arc::new(Local::new(&path, "shop/../x", proxy));
    contract(view("one"), view("other")).await?;
    let inside: Vec<_> = std::fs::read_dir(directory.path())?.collect::<Result<Vec<_>, _>>()?;
    assert!(inside.len() >= 2, "{inside:?}");
    Ok(())
}

async fn local_survives() -> Outcome {
    let directory = TempDir::new()?;
    let one = Local::new(directory.path(), "shop", "one");
    one.cas(Revision(0), "kept".into()).await?;
    drop(one);
    let again = Local::new(directory.path(), "shop", "again");
    assert_eq!(again.get().await?.value.as_deref(), Some("kept"));
    // What is no register is said to be none, and not taken for an empty one.
    std::fs::write(directory.path().join("shop.json"), "{")?;
    let error = again.get().await.err().ok_or("a broken file was read")?.to_string();
    assert!(error.contains("shop.json"), "{error}");
    assert!(again.cas(Revision(0), "lost".into()).await.is_err());
    Ok(())
}

/// Another proxy's view of it.
fn join(etcd: &Etcd, proxy: &str) -> Result<Arc<dyn Coordinator>, Failure> {
    // A member that does not exist is passed over.
    let mut endpoints = vec!["http://127.0.0.1:1".to_owned()];
    endpoints.extend(etcd.endpoints());
    Ok(Arc::new(Client::new(&endpoints, "/pointsman", "shop", proxy, LEASE)?))
}

async fn etcd() -> Outcome {
    let etcd = Etcd::start(1).await?;
    contract(join(&etcd, "one")?, join(&etcd, "other")?).await
}

async fn etcd_sessions() -> Outcome {
    let etcd = Etcd::start(1).await?;
    contract::sessions(join(&etcd, "one")?, join(&etcd, "other")?).await?;
    assert!(Client::new(&["https://x".into()], "/p", "c", "p", LEASE).is_err());
    Ok(())
}

async fn locks(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let server = |server: &Arc<Server>| pointsman_config::Server {
        name: server.name().to_owned(),
        address: server.address(),
        ..Default::default()
    };
    let servers: Vec<_> = sandbox.servers().iter().map(server).collect();
    let roster = Roster::new(&servers);
    let start = || {
        let config =
            Config { user: SERVICE.0.to_owned(), password: Secret::new(SERVICE.1), ..Config::default() };
        Locks::start(&Arc::new(ServiceAccount::new(&config)), &roster, "shop")
    };
    let first = start();
    let mut first_may = first.entitlement();
    entitled(&mut first_may).await;
    // Not only a majority: the second one must not come between.
    eventually("all locks have been tried for", LIMIT, async || first_may.is_settled()).await;
    let second = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut second_may = second.block_on_handle(start);
    eventually("all locks have been tried for", LIMIT, async || second_may.is_settled()).await;
    let reason = second_may.barred().ok_or("two proxies are entitled")?;
    // The first one may have had two only, when the second one came.
    assert!(reason.contains("another proxy holds"), "{reason}");
    second.shutdown_background();
    // With the primary gone two of three are left, which is enough.
    sandbox.primary().kill().await?;
    let killed = tokio::time::Instant::now();
    while killed.elapsed() < Duration::from_millis(700) {
        // It may take a while to ask the others; that another one came between would be wrong.
        let reason = first_may.barred().unwrap_or_default();
        assert!(!reason.contains("another proxy holds"), "{reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    entitled(&mut first_may).await;
    sandbox.primary().start().await?;
    entitled(&mut first_may).await;
    Ok(())
}

async fn entitled(entitlement: &mut Entitlement) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Some(reason) = entitlement.barred() {
        assert!(tokio::time::Instant::now() < deadline, "{reason}");
        drop(timeout(Duration::from_millis(100), entitlement.changed()).await);
    }
}

/// Starts something on another runtime than the test's.
trait Elsewhere {
    fn block_on_handle(&self, start: impl FnOnce() -> Locks) -> Entitlement;
}

impl Elsewhere for tokio::runtime::Runtime {
    fn block_on_handle(&self, start: impl FnOnce() -> Locks) -> Entitlement {
        let _entered = self.enter();
        start().entitlement()
    }
}
