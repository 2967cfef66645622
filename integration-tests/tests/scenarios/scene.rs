//! What every scenario consists of: servers, a proxy, writers whose rows tell who took them, readers, and the proof.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Options, SERVICE, Sandbox, Server};
use pointsman_integration_tests::{
    Failure, Flavour, LOOK_EVERY, Ledger, Load, Outcome, PATIENT, Plan, Proof, Proxy, Ran, Stage, Traffic,
    becomes, eventually, run,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Servers with a proxy under load.
pub(crate) struct Scene {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) proxy: Proxy,
    pub(crate) ledger: Ledger,
    readers: Traffic,
}

/// Two replicas that acknowledge, in front of which no proxy stands yet.
pub(crate) fn lossless(flavour: Flavour) -> Plan {
    let sandbox = Options { flavour, replicas: 2, lossless: true, ..Options::default() };
    Plan { sandbox, configuration: String::new() }
}

impl Scene {
    /// With the settings that everybody has.
    pub(crate) async fn set(stage: &Stage) -> Result<Self, Failure> {
        Self::set_with(stage, &[], "").await
    }

    /// With more keys for the tables of some servers, by their place, and with more tables.
    pub(crate) async fn set_with(
        stage: &Stage,
        keys: &[(usize, &str)],
        tables: &str,
    ) -> Result<Self, Failure> {
        let sandbox = stage.sandbox().await?;
        let servers = servers(&sandbox, keys);
        Self::set_on(sandbox, &servers, tables).await
    }

    /// With these first lines of the configuration, which name the servers.
    pub(crate) async fn set_on(sandbox: Arc<Sandbox>, servers: &str, tables: &str) -> Result<Self, Failure> {
        let proxy = Proxy::spawn_on(&sandbox, servers, &format!("{PATIENT}{tables}"))?;
        proxy.ready(LIMIT).await?;
        let ledger = Ledger::start(sandbox.primary(), &[proxy.options(APP, "app")], WRITERS).await?;
        let load = Load { readers: READERS, writers: 0, transactions: 0, pace: Duration::from_millis(5) };
        let readers = Traffic::start(proxy.options(APP, "app"), load).await?;
        proxy.settled(&sandbox, LIMIT).await;
        let scene = Self { sandbox, proxy, ledger, readers };
        scene.goes_on().await;
        Ok(scene)
    }

    /// Writes and reads that were begun from now on are answered.
    pub(crate) async fn goes_on(&self) {
        self.ledger.goes_on(&[0]).await;
        self.reads_go_on().await;
    }

    /// Reads that were begun from now on are answered.
    pub(crate) async fn reads_go_on(&self) {
        let enough = self.readers.tally().reads + ENOUGH_READS;
        eventually("reads go on", LIMIT, async || self.readers.tally().reads >= enough).await;
    }

    /// Waits until another server than `old` is the primary and takes writes; says which, and how long writes had
    /// paused since `fault`.
    pub(crate) async fn replaced(
        &self,
        old: &Server,
        fault: Instant,
    ) -> Result<(Arc<Server>, Duration), Failure> {
        let looked = tokio::time::timeout(LIMIT, async {
            while self.status().await["primary"].as_str().is_none_or(|name| name == old.name()) {
                sleep(LOOK_EVERY).await;
            }
        });
        if looked.await.is_err() {
            let (status, story) = (self.status().await, self.proxy.story());
            return Err(format!(
                "expected within {LIMIT:?}: another primary than {}; {status}\n{story}",
                old.name()
            )
            .into());
        }
        self.goes_on().await;
        let pause = self.ledger.longest_pause(0, fault);
        let new = self.proxy.primary(&self.sandbox).await?;
        println!("{} is the primary; writes paused for {} ms", new.name(), pause.as_millis());
        Ok((new, pause))
    }

    /// Kills the primary and waits for the next one, as [`Scene::replaced`] does.
    pub(crate) async fn lose_primary(&self) -> Result<(Arc<Server>, Duration), Failure> {
        let killed = Instant::now();
        self.sandbox.primary().kill().await?;
        self.replaced(self.sandbox.primary(), killed).await
    }

    /// Waits until writes are held for a reason with all of these words in it.
    pub(crate) async fn held(&self, words: &[&str]) {
        self.held_where(&format!("writes are held because of {words:?}"), |reason| {
            words.iter().all(|word| reason.contains(word))
        })
        .await;
    }

    /// Waits until writes are held because too many servers, or ackers, do not answer. Which of the two is said first
    /// depends on when the silent server was asked.
    pub(crate) async fn lacks_proof(&self) {
        self.held_where("servers or ackers are missing", |reason| {
            reason.contains("of 3 servers") || reason.contains("of 2 ackers")
        })
        .await;
    }

    /// Waits until writes are held for such a reason.
    async fn held_where(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let look = async || self.status().await["failover"]["held"].as_str().unwrap_or_default().to_owned();
        let held = becomes(what, LIMIT, look, |reason: &String| wanted(reason)).await;
        println!("held: {held}");
    }

    /// No server that runs takes writes, but those of `but`.
    pub(crate) async fn nobody_writable(&self, but: &[&Server]) -> Result<(), Failure> {
        for server in self.sandbox.servers() {
            if server.pid().await.is_none() || but.iter().any(|other| other.name() == server.name()) {
                continue;
            }
            let read_only: Vec<bool> = server.rows("SELECT @@global.read_only").await?;
            assert_eq!(read_only, [true], "{} takes writes", server.name());
        }
        Ok(())
    }

    /// Waits until a primary that died now could be replaced.
    pub(crate) async fn ready(&self) {
        eventually("a dying primary could be replaced", LIMIT, async || {
            let failover = &self.status().await["failover"];
            failover["phase"] == "STABLE" && failover["unready"].is_null()
        })
        .await;
    }

    /// Waits until nothing has been written on `server` for a while.
    pub(crate) async fn rests(&self, server: &Server) -> Outcome {
        let (mut last, mut since) = (server.position().await?, Instant::now());
        let deadline = since + LIMIT;
        while since.elapsed() < REST {
            let position = server.position().await?;
            if position != last {
                (last, since) = (position, Instant::now());
            }
            assert!(Instant::now() < deadline, "{} is still written to", server.name());
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Runs a command of the program against the proxy.
    pub(crate) async fn order(&self, arguments: &[&str]) -> Result<Ran, Failure> {
        run(&[arguments, &["--endpoint", &self.proxy.endpoint()]].concat(), "").await
    }

    /// What status shows; null where it does not answer.
    pub(crate) async fn status(&self) -> Value {
        self.proxy.status().await.unwrap_or_default()
    }

    /// The part of status that tells of one server.
    pub(crate) async fn status_of(&self, server: &Server) -> Value {
        let status = self.status().await;
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().find(|one| one["name"] == server.name()).cloned().unwrap_or_default()
    }

    /// Every acknowledged row is on the primary, each of `epochs` epochs had one server that acknowledged, nothing
    /// ended in an error but what was in flight in one of `deaths`, and no read did.
    pub(crate) async fn prove(&self, epochs: usize, deaths: usize) -> Result<Proof, Failure> {
        let proof = self.ledger.prove(&*self.proxy.primary(&self.sandbox).await?).await?;
        println!("{} rows acknowledged, server of each epoch: {:?}", proof.acknowledged, proof.epochs);
        assert_eq!(proof.epochs.len(), epochs, "{proof:?}");
        self.ledger.few_failed(&[0], deaths);
        for failed in self.ledger.failed() {
            assert!(SAID.iter().any(|said| failed.error.contains(said)), "{failed:?}");
        }
        let tally = self.readers.tally();
        assert_eq!(tally.failed_reads, 0, "{:?}", self.readers.read_errors());
        Ok(proof)
    }
}

impl Drop for Scene {
    /// The suite tells only of the proxy that it has started itself.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut out = std::io::stderr();
            drop(std::io::Write::write_all(&mut out, self.proxy.story().as_bytes()));
        }
    }
}

/// As [`Sandbox::configuration`], with more keys for some servers.
fn servers(sandbox: &Sandbox, keys: &[(usize, &str)]) -> String {
    let mut text = format!("user = \"{}\"\npassword = \"{}\"\n", SERVICE.0, SERVICE.1);
    for (at, server) in sandbox.servers().iter().enumerate() {
        text += &format!("[[server]]\nname = \"{}\"\naddress = \"{}\"\n", server.name(), server.address());
        for (_, key) in keys.iter().filter(|(of, _)| *of == at) {
            text += &format!("{key}\n");
        }
    }
    text
}

/// Far above what a busy machine needs, below the five seconds and more that might be waited for wrongly.
pub(crate) const RESUMED_WITHIN: Duration = Duration::from_millis(4500);
/// What a write in flight may end with: nobody knows, or the word of a MySQL that shuts down and has not committed it.
const SAID: [&str; 2] = ["ERROR 1158 (08007)", "ERROR 3100 (HY000)"];
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Longer than the heartbeat goes on after the last write.
const REST: Duration = Duration::from_millis(2500);
const WRITERS: usize = 3;
const READERS: usize = 2;
const ENOUGH_READS: u64 = 30;
