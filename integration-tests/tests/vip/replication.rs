//! Lag, a stopped applying thread, a killed server and a promotion, all of them real.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::Server;

use crate::bed::{Bed, SERVERS6, Stop, VIP6, eventually, inside, vip, vip6};
use crate::stand::{
    ALONE, Proxy, START_LIMIT, Servers, Session, Setup, json, log_in, logins, until_weight, weight,
};

pub(crate) fn lag(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    let proxy = Proxy::start("d1", servers, &ALONE);
    proxy.until("serving");
    let [first, second] = servers.replicas();
    until_weight(first, Some(100));
    until_weight(second, Some(100));
    let _writes = servers.write();
    let mut session = Session::on(vip(), first);
    let only_second = BTreeMap::from([(second.id(), 10)]);

    // Who applies the writes has to wait for this lock.
    let mut holder = servers.runtime.block_on(first.connect())?;
    let mut tell = |statement: &str| servers.runtime.block_on(holder.query_drop(statement));
    tell(HOLD)?;
    until_weight(first, Some(50));
    until_weight(first, Some(0));
    assert_eq!(logins(vip(), 10), only_second);
    assert_eq!(session.server()?, first.id(), "an open session goes on");
    tell(RELEASE)?;
    until_weight(first, Some(100));

    lag_that_comes_and_goes(&proxy, first, |held| tell(if held { HOLD } else { RELEASE }).expect("a lock"));
    until_weight(first, Some(100));

    servers.runtime.block_on(first.stop_applier())?;
    until_weight(first, Some(0));
    assert_eq!(logins(vip(), 10), only_second);
    assert_eq!(session.server()?, first.id(), "an open session goes on");
    servers.runtime.block_on(first.start_applier())?;
    until_weight(first, Some(100));
    drop(session);
    proxy.leave();
    Ok(())
}

/// The weight falls once, and does not come and go with the lag.
fn lag_that_comes_and_goes(proxy: &Proxy, server: &Server, mut hold: impl FnMut(bool)) {
    let (stop, changes, turns) = (AtomicBool::new(false), Mutex::new(Vec::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let (mut seen, mut late) = (weight(server), false);
            while !stop.load(Ordering::Relaxed) {
                let now = weight(server);
                if now != seen {
                    changes.lock().expect("no panic").push(now);
                    seen = now;
                }
                let lag = lag_ms(proxy, server).unwrap_or_default();
                if (late && lag < 800) || (!late && lag > 1000) {
                    late = !late;
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let begun = Instant::now();
        hold(true);
        until_weight(server, Some(50));
        while begun.elapsed() < OSCILLATION {
            hold(false);
            sleep(Duration::from_millis(1200));
            hold(true);
            sleep(Duration::from_millis(1800));
        }
        hold(false);
    });
    let turns = turns.into_inner();
    let changes = changes.into_inner().expect("no panic");
    println!("{OSCILLATION:?} of lag over 1 s and under 0.8 s {turns} times: weights {changes:?}");
    assert!(turns >= LEAST_TURNS, "the lag did not come and go: {turns}");
    assert_eq!(changes, [Some(50)]);
}

/// What the proxy has measured.
fn lag_ms(proxy: &Proxy, server: &Server) -> Option<u64> {
    let status = json(&proxy.get("/api/v1/status")?);
    let shown = status["servers"].as_array()?.iter().find(|shown| shown["name"] == server.name())?;
    shown["lag_ms"].as_u64()
}

pub(crate) fn killed(_: &Bed) -> Result<(), Failed> {
    killed_behind(vip(), &ALONE)
}

pub(crate) fn killed_ipv6(_: &Bed) -> Result<(), Failed> {
    killed_behind(vip6(), &Setup { address: VIP6, servers: SERVERS6, ..ALONE })
}

fn killed_behind(address: SocketAddr, setup: &Setup) -> Result<(), Failed> {
    let servers = Servers::get();
    let proxy = Proxy::start("d1", servers, setup);
    let [first, second] = servers.replicas();
    until_weight(first, Some(100));
    until_weight(second, Some(100));
    proxy.until("serving");
    let (stop, dials) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let dialled = || dials.lock().expect("no panic").len();
    let (killed, gone) = thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            inside("c", || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let outcome = log_in(address).map_err(|error| error.to_string());
                    dials.lock().expect("no panic").push((begun, outcome));
                }
            });
        });
        eventually("dials before", START_LIMIT, || dialled() > ENOUGH_DIALS);
        let killed = Instant::now();
        servers.runtime.block_on(second.kill()).expect("a server");
        until_weight(second, None);
        let gone = Instant::now();
        let before = dialled();
        eventually("dials after", START_LIMIT, || dialled() > before + ENOUGH_DIALS);
        (killed, gone)
    });
    let took = gone - killed;
    let dials = dials.into_inner().expect("no panic");
    let between: Vec<_> = dials.iter().filter(|(begun, _)| (killed..gone).contains(begun)).collect();
    let failed: Vec<_> = between.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    println!(
        "{address}: out of the table {took:?} after kill -9, {} of {} dials failed until then",
        failed.len(),
        between.len()
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(failed.len() <= between.len() / 2 + 1, "{failed:?} of {}", between.len());
    let at_once =
        |error: &&String| error.contains("refused") || error.contains("reset") || error.contains("closed");
    assert!(failed.iter().all(|error| at_once(error)), "{failed:?}");
    let after: Vec<_> = dials.iter().filter(|(begun, outcome)| *begun >= gone && outcome.is_err()).collect();
    assert!(after.is_empty(), "{after:?}");
    servers.runtime.block_on(second.start())?;
    servers.runtime.block_on(second.run(&["START SLAVE"]))?;
    until_weight(second, Some(100));
    proxy.leave();
    Ok(())
}

/// A session on the candidate never finds it writable: it is reset before.
pub(crate) fn promoted(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    let proxy = Proxy::start("d1", servers, &Setup { failover: "manual", ..ALONE });
    proxy.until("serving");
    let (primary, [candidate, other]) = (servers.primary(), servers.replicas());
    until_weight(candidate, Some(100));
    until_weight(other, Some(100));
    let mut session = Session::on(vip(), candidate);
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let fault = thread::scope(|scope| {
        let _stop = Stop(&stop);
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let asked = session.conn.query_first::<u8, _>("SELECT @@read_only");
                match session.runtime.block_on(asked) {
                    Ok(read_only) => assert_eq!(read_only, Some(1), "writable through the address"),
                    Err(error) => return Some(error.to_string()),
                }
                answers.fetch_add(1, Ordering::Relaxed);
            }
            None
        });
        eventually("the session asks", START_LIMIT, || answers.load(Ordering::Relaxed) > 10);
        println!("{}", proxy.done(&["switchover", "--yes", "--to", candidate.name()]));
        eventually("the session ends", START_LIMIT, || asking.is_finished());
        asking.join().expect("a client")
    });
    let fault = fault.unwrap_or_default();
    println!("{} answers of a read-only server, then: {fault}", answers.into_inner());
    assert!(fault.contains("reset"), "{fault}");
    assert_eq!(weight(candidate), None);
    until_weight(primary, Some(100));
    // The cases that follow expect the servers as they were.
    proxy.done(&["switchover", "--yes", "--to", primary.name()]);
    until_weight(candidate, Some(100));
    proxy.leave();
    Ok(())
}

const HOLD: &str = "LOCK TABLES app.written READ";
const RELEASE: &str = "UNLOCK TABLES";
const OSCILLATION: Duration = Duration::from_secs(60);
/// Each of twenty rounds is two.
const LEAST_TURNS: usize = 20;
const ENOUGH_DIALS: usize = 30;
