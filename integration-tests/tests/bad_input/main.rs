//! Bad bytes end the connection that they come on, at most: nobody else notices, and memory stays bounded.
//!
//! | bad input | test |
//! |---|---|
//! | garbage, truncated, oversized before login; wrong sequence ids; capabilities that nobody has | `logins` |
//! | the same after login, unknown commands, junk in SEND_LONG_DATA | `commands`, `endless` |
//! | junk in EXECUTE, in compressed headers | `executions`, `compressed` |
//! | junk in SEND_LONG_DATA of a statement that is there | `long_data::as_the_server` |
//! | slow-loris logins, a flood of logins | `announced`, `siege::slow_logins`, `siege::login_flood` |
//! | a client that never reads a huge result | `deaf` |
//! | a server that dies in mid-packet, or in the middle of a write | `siege::dying_servers`, `siege::dying_primary` |
//! | nested parentheses, joins, `+1`, over 16 MiB, invalid UTF-8, gbk | `statements::as_the_server`, `classify_properties` of the router |
//! | a server that miscounts its columns | `statements::miscounted` |
//! | a wrong configuration | `siege::wrong_configuration`, the tests of `config` |
//! | any bytes | the targets in `fuzz/` |

mod fixtures;
mod long_data;
mod siege;
mod statements;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{FLAVOURS, Failure, Outcome, Plan, Proxy, Stage, Suite, eventually};
use pointsman_protocol::capability::Capabilities;
use tokio::time::{Instant, interval};

use self::fixtures::{Bad, ID, PING, Then, framed};
use self::statements::{Told, answer, prepared};
use self::wire::{Refusal, Wire, error_code};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.sandbox.options.push("--max-allowed-packet=64M".to_owned());
        // The servers that die come back in their places.
        plan.configuration = "[failover]\nmode = \"off\"\n[routing]\nhold_timeout = \"4s\"\n".to_owned();
        let stage = suite.stage(plan);
        suite.test(&stage, "no login", logins);
        suite.test(&stage, "no command", commands);
        suite.test(&stage, "no execution", executions);
        suite.test(&stage, "not compressed", compressed);
        suite.test(&stage, "half a packet costs no memory", announced);
        suite.test(&stage, "a packet without end", endless);
        suite.test(&stage, "clients that do not read", deaf);
        suite.test(&stage, "statements that have ended parsers", statements::as_the_server);
        suite.test(&stage, "no data of a parameter", long_data::as_the_server);
        suite.test(&stage, "columns that servers do not count", statements::miscounted);
        suite.test(&stage, "logins that take their time", siege::slow_logins);
        suite.test(&stage, "a flood of logins", siege::login_flood);
        suite.test(&stage, "servers that die in the middle of a packet", siege::dying_servers);
        suite.test(&stage, "a primary that dies in the middle of writes", siege::dying_primary);
        suite.test(&stage, "no wrong configuration", siege::wrong_configuration);
    }
    suite.run()
}

/// Somebody who has nothing to do with all this.
struct Bystander {
    conn: Conn,
    proxy: Arc<Proxy>,
    pid: Option<u32>,
}

impl Bystander {
    async fn new(stage: &Stage) -> Result<Self, Failure> {
        let proxy = stage.proxy().await?;
        let mut conn = proxy.connect(APP, "app").await?;
        conn.query_drop("SET @mine = 42").await?;
        Ok(Self { conn, pid: proxy.pid().await, proxy })
    }

    /// The session goes on as it was, new ones are let in, and the program is the same.
    async fn unaffected(mut self) -> Outcome {
        let mine: Option<u32> = self.conn.query_first("SELECT @mine").await?;
        assert_eq!(mine, Some(42));
        let mut other = self.proxy.connect(APP, "app").await?;
        assert_eq!(other.query_first("SELECT 1").await?, Some(1));
        assert!(self.pid.is_some());
        assert_eq!(self.proxy.pid().await, self.pid);
        let log = self.proxy.log();
        assert!(!log.contains("panicked"), "{log}");
        Ok(())
    }

    /// Clients to whom the answer to a query for 200 MB is on its way.
    async fn large_results(&self) -> Result<Vec<Wire>, Failure> {
        let mut wires = Vec::new();
        for _client in 0..10 {
            let mut wire = Wire::logged_in(self.proxy.port(), Capabilities::empty()).await?;
            wire.send(&framed(0, LARGE_RESULT)).await;
            wire.packet().await?;
            wires.push(wire);
        }
        Ok(wires)
    }

    /// Resident memory in MiB.
    fn memory(&self) -> Result<u64, Failure> {
        let pid = self.pid.ok_or("the proxy has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024)
    }

    /// The most that is resident during some time, in MiB.
    async fn most_memory(&self, time: Duration) -> Result<u64, Failure> {
        let end = Instant::now() + time;
        let mut ticks = interval(SAMPLE_PERIOD);
        let mut most = 0;
        while Instant::now() < end {
            ticks.tick().await;
            most = most.max(self.memory()?);
        }
        Ok(most)
    }
}

async fn logins(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    for bad in fixtures::logins() {
        let (mut wire, _greeting) = Wire::greeted(bystander.proxy.port()).await?;
        wire.send(&bad.bytes).await;
        let refused = refused(&mut wire, &bad, &bystander.proxy, &[1043, 1045, 1153, 1156]).await;
        refused.map_err(|failure| format!("{}: {failure}", bad.name))?;
    }
    bystander.unaffected().await
}

async fn commands(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    for bad in fixtures::commands() {
        let mut wire = Wire::logged_in(bystander.proxy.port(), Capabilities::empty()).await?;
        judge(&mut wire, &bad, &bystander.proxy)
            .await
            .map_err(|failure| format!("{}: {failure}", bad.name))?;
    }
    bystander.unaffected().await
}

async fn executions(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let direct = stage.sandbox().await?.primary().port();
    for (name, bytes) in fixtures::executions() {
        let mut told = Vec::new();
        for port in [direct, bystander.proxy.port()] {
            let answer = executed(port, &bytes).await;
            told.push(answer.map_err(|failure| format!("{name} on port {port}: {failure}"))?);
        }
        // Types of parameters are for the proxy to read, which has an error of its own for half of them.
        let cut = told[0] == (Told::Error(1835), true) && told[1] == (Told::Error(1210), true);
        assert!(cut || told[1] == told[0], "{name}: expected what the server says, got {told:?}");
    }
    bystander.unaffected().await
}

/// What the execution says, and whether the session goes on.
async fn executed(port: u16, bytes: &[u8]) -> Result<(Told, bool), Failure> {
    let mut wire = Wire::logged_in(port, Capabilities::empty()).await?;
    let id = prepared(&mut wire, b"SELECT ?").await?;
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(4).position(|bytes| bytes == [ID; 4]).ok_or("a fixture without an id")?;
    bytes[at..at + 4].copy_from_slice(&id);
    wire.send(&bytes).await;
    let told = answer(&mut wire).await?;
    wire.send(&framed(0, &[PING])).await;
    let pong = wire.packet().await?;
    Ok((told, pong.is_some_and(|pong| pong.first() == Some(&0))))
}

/// The connection ends without an OK, and somebody is told why.
async fn refused(wire: &mut Wire, bad: &Bad, proxy: &Proxy, codes: &[u16]) -> Outcome {
    if bad.then == Then::Left {
        wire.finish().await;
    }
    let refusal = wire.refused().await?;
    match refusal {
        Some(Refusal { code, message }) => {
            assert!(codes.contains(&code) && !message.is_empty(), "{}: {code} {message:?}", bad.name);
        }
        None if bad.then == Then::Left => {}
        None => {
            assert_eq!(bad.then, Then::Ended, "{}: expected an ERR packet", bad.name);
            let client = format!("client={}", wire.address()?);
            eventually(
                &format!("a reason in the log for {}, {client}", bad.name),
                LOGGED_WITHIN,
                async || proxy.log().lines().any(|line| line.contains(&client) && line.contains("error=")),
            )
            .await;
        }
    }
    Ok(())
}

/// Sends bad bytes, and after them asks whether anybody is there.
async fn judge(wire: &mut Wire, bad: &Bad, proxy: &Proxy) -> Outcome {
    wire.send(&bad.bytes).await;
    wire.send(&[1, 0, 0, 0, PING]).await;
    match bad.then {
        Then::Told | Then::Ended | Then::Left => refused(wire, bad, proxy, &[1156, 1835]).await?,
        Then::Refused(expected) => {
            let answer = wire.packet().await?.ok_or("expected an error, got the end")?;
            assert_eq!(error_code(&answer), Some(expected), "{}: {answer:02x?}", bad.name);
            alive(wire).await?;
        }
        Then::Ignored => alive(wire).await?,
        Then::Either => {
            wire.finish().await;
            wire.closed().await?;
        }
    }
    Ok(())
}

/// The next packet is the OK of a ping.
async fn alive(wire: &mut Wire) -> Outcome {
    let pong = wire.packet().await?.ok_or("expected a session that goes on, got the end")?;
    assert_eq!(pong.first(), Some(&0), "{pong:02x?}");
    Ok(())
}

async fn compressed(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    for bad in fixtures::compressed() {
        let mut wire = Wire::logged_in(bystander.proxy.port(), Capabilities::COMPRESS).await?;
        wire.send(&bad.bytes).await;
        let refused = refused(&mut wire, &bad, &bystander.proxy, &[1835]).await;
        refused.map_err(|failure| format!("{}: {failure}", bad.name))?;
    }
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// Hundreds of clients that announce 16 MiB before they have logged in.
async fn announced(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    let mut wires = Vec::new();
    for _client in 0..200 {
        let (mut wire, _greeting) = Wire::greeted(bystander.proxy.port()).await?;
        wire.send(&[0xfe, 0xff, 0xff, 1]).await;
        wire.send(&[0; 4096]).await;
        wires.push(wire);
    }
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// Nobody is made to take in what no server would.
async fn endless(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    let mut wire = Wire::logged_in(bystander.proxy.port(), Capabilities::empty()).await?;
    let bytes = fixtures::endless();
    // More than max_allowed_packet.
    for sequence in 0..6 {
        wire.send(&[&[0xff, 0xff, 0xff, sequence], &bytes[4..]].concat()).await;
    }
    let bad = Bad { name: "a packet without end".to_owned(), bytes, then: Then::Ended };
    refused(&mut wire, &bad, &bystander.proxy, &[1153]).await?;
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// Clients that ask for 200 MB each and read none of it.
async fn deaf(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    let _wires = bystander.large_results().await?;
    // The servers go on sending for as long as anybody takes it.
    let grown = bystander.most_memory(RESULTS_COME_IN).await?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// A line is written a little after the connection has ended.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);
/// Much longer than a server needs to send 200 MB.
const RESULTS_COME_IN: Duration = Duration::from_secs(3);
const SAMPLE_PERIOD: Duration = Duration::from_millis(20);
/// What the program may grow by through one of the tests here.
const MEMORY_MIB: u64 = 64;
/// A query for 200 rows of a megabyte.
const LARGE_RESULT: &[u8] =
    b"\x03SELECT REPEAT('x', 1000000) FROM (SELECT 1 AS a UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 \
        UNION SELECT 5 UNION SELECT 6) AS a JOIN (SELECT 1 AS b UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 \
        UNION SELECT 5 UNION SELECT 6) AS b JOIN (SELECT 1 AS c UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 \
        UNION SELECT 5 UNION SELECT 6) AS c";
