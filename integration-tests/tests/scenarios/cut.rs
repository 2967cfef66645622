//! The primary lives and is cut off from the others.

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
        vec![plain("6: the primary is cut off from everything", flavour, |stage| {
            Box::pin(from_everything(stage))
        })],
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
