//! The primary lives and is cut off from some of the others: whom it cannot be heard by decides what is done.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, SERVICE, Sandbox, Server};
use pointsman_integration_tests::{Cut, Failure, Flavour, Gate, Outcome, Stage, Suite, eventually};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("6: the primary is cut off from everything", flavour, |stage| {
                Box::pin(from_everything(stage))
            }),
            plain("7: the primary is cut off from the proxy only", flavour, |stage| {
                Box::pin(from_proxy(stage))
            }),
            plain("8: the primary is cut off from the replicas only", flavour, |stage| {
                Box::pin(from_replicas(stage, Cut::Both))
            }),
            plain("9: what the replicas send does not reach the primary", flavour, |stage| {
                Box::pin(from_replicas(stage, Cut::ToServer))
            }),
        ],
    );
}

/// Every server behind a gate, by which proxy and replicas reach it.
struct Net {
    scene: Scene,
    gates: Vec<Gate>,
}

impl Net {
    async fn set(stage: &Stage) -> Result<Self, Failure> {
        let sandbox = stage.sandbox().await?;
        let mut gates = Vec::new();
        for server in sandbox.servers() {
            gates.push(Gate::to(server).await?);
        }
        for replica in sandbox.replicas() {
            let change = change_port(sandbox.options().flavour, gates[0].port());
            replica.run(&["STOP REPLICA", &change, "START REPLICA"]).await?;
        }
        let scene = Scene::set_on(sandbox.clone(), &behind(&sandbox, &gates), "").await?;
        Ok(Self { scene, gates })
    }

    fn to_primary(&self) -> &Gate {
        &self.gates[0]
    }

    async fn proxy(&self) -> Result<Vec<u32>, Failure> {
        Ok(vec![self.scene.proxy.pid().await.ok_or("the proxy has ended")?])
    }

    async fn replicas(&self) -> Result<Vec<u32>, Failure> {
        let mut processes = Vec::new();
        for replica in self.scene.sandbox.replicas() {
            processes.push(replica.pid().await.ok_or("a replica has ended")?);
        }
        Ok(processes)
    }

    /// For a while the primary stays, whatever is thought of it.
    async fn nobody_is_promoted(&self) {
        let (began, name) = (Instant::now(), self.scene.sandbox.primary().name());
        while began.elapsed() < LONG_ENOUGH {
            let status = self.scene.status().await;
            assert_eq!(status["epoch"], 1, "{status}");
            assert!(status["primary"] == name || status["primary"].is_null(), "{status}");
            tokio::task::yield_now().await;
        }
    }
}

fn change_port(flavour: Flavour, port: u16) -> String {
    match flavour {
        Flavour::Mariadb => format!("CHANGE MASTER TO MASTER_PORT={port}, MASTER_HEARTBEAT_PERIOD=0.1"),
        Flavour::Mysql => {
            format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT={port}, SOURCE_HEARTBEAT_PERIOD=0.1")
        }
    }
}

fn behind(sandbox: &Sandbox, gates: &[Gate]) -> String {
    let mut text = format!("user = \"{}\"\npassword = \"{}\"\n", SERVICE.0, SERVICE.1);
    for (server, gate) in sandbox.servers().iter().zip(gates) {
        let (name, port) = (server.name(), gate.port());
        text += &format!("[[server]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n");
    }
    text
}

/// A client that reaches the primary whatever is cut, and its one write.
async fn write_past(primary: &Server) -> Result<JoinHandle<bool>, Failure> {
    let mut direct = primary.connect_as(APP, "app").await?;
    Ok(tokio::spawn(async move {
        direct.query_drop("INSERT INTO ledger VALUES (5000000000, 0, 0)").await.is_ok()
    }))
}

async fn not_acknowledged(mut waiting: JoinHandle<bool>) -> Outcome {
    if let Ok(acknowledged) = timeout(Duration::from_millis(100), &mut waiting).await {
        assert!(!acknowledged?, "the former primary has acknowledged a row");
    }
    waiting.abort();
    Ok(())
}

/// Nobody hears from it: it is replaced, and whoever still reaches it gets no OK, also when it is heard again.
async fn from_everything(stage: Arc<Stage>) -> Outcome {
    let net = Net::set(&stage).await?;
    let primary = net.scene.sandbox.primary();
    let others = [net.proxy().await?, net.replicas().await?].concat();
    let fault = Instant::now();
    net.to_primary().cut(&others, Cut::Both);
    let waiting = write_past(primary).await?;
    let (_, pause) = net.scene.replaced(primary, fault).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    net.to_primary().mend();
    eventually("it is kept out", LIMIT, async || net.scene.status_of(primary).await["state"] == "excluded")
        .await;
    net.scene.goes_on().await;
    not_acknowledged(waiting).await?;
    net.scene.prove(2, 1).await?;
    Ok(())
}

/// It may serve others: it is not replaced before a person says that it is dead.
async fn from_proxy(stage: Arc<Stage>) -> Outcome {
    let net = Net::set(&stage).await?;
    let primary = net.scene.sandbox.primary();
    net.to_primary().cut(&net.proxy().await?, Cut::Both);
    eventually("it is known", LIMIT, async || {
        net.scene.status().await["failover"]["verdict"] == "UNREACHABLE"
    })
    .await;
    net.nobody_is_promoted().await;
    net.scene.reads_go_on().await;
    let asked = Instant::now();
    let ran = net.scene.order(&["failover", "--primary-is-dead", "--yes"]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let (_, pause) = net.scene.replaced(primary, asked).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    not_acknowledged(write_past(primary).await?).await?;
    net.scene.prove(2, 1).await?;
    Ok(())
}

/// Writes wait, as they would anywhere: it is the only one that has all of them. They go on when the replicas are heard.
async fn from_replicas(stage: Arc<Stage>, cut: Cut) -> Outcome {
    let net = Net::set(&stage).await?;
    net.to_primary().cut(&net.replicas().await?, cut);
    let waiting = write_past(net.scene.sandbox.primary()).await?;
    net.nobody_is_promoted().await;
    assert!(!waiting.is_finished(), "acknowledged by nobody");
    net.scene.reads_go_on().await;
    net.to_primary().mend();
    net.scene.goes_on().await;
    assert!(timeout(LIMIT, waiting).await??, "its row is on the replicas");
    net.scene.prove(1, 0).await?;
    Ok(())
}

/// Well above what silence and stalls are told by.
const LONG_ENOUGH: Duration = Duration::from_secs(3);
