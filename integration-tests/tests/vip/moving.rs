//! The address between two directors. The test is the lease store: it says whose the address is and for how long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use crate::bed::{Bed, LIMIT, VIP, dial, dial_here, eventually, inside, on, vip};
use crate::director::{Director, FIVE_THREE_TWO, Plan};

const WITHIN: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(3);

fn started(host: &str, own: &str) -> Director {
    let mut director = Director::start(host, &Plan { own: own.to_owned(), ..Plan::default() });
    director.servers(&FIVE_THREE_TWO);
    director
}

/// Counts moments in which both hosts have the address, every 10 ms.
struct Watch<'a> {
    stop: &'a AtomicBool,
    both: &'a AtomicUsize,
}

impl Watch<'_> {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let owners = ["d1", "d2"].into_iter().filter(|host| inside(host, has_address)).count();
            if owners > 1 {
                self.both.fetch_add(1, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// Whether this namespace has the address, without starting a program.
fn has_address() -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
    table.contains(&format!("|-- {VIP}\n"))
}

/// Runs `change` while a client dials every 20 ms; how many dials failed, and how often there were two owners.
fn dialling(change: impl FnOnce()) -> (usize, usize) {
    let (stop, both, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| Watch { stop: &stop, both: &both }.run());
        scope.spawn(|| {
            inside("c", || {
                while !stop.load(Ordering::Relaxed) {
                    if dial_here(vip(), WITHIN).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(Duration::from_millis(20));
                }
            });
        });
        sleep(Duration::from_millis(500));
        change();
        stop.store(true, Ordering::Relaxed);
    });
    (failed.load(Ordering::Relaxed), both.load(Ordering::Relaxed))
}

/// Renews the lease of one until it is gone, then gives it to the other.
pub(crate) fn crash(_: &Bed) -> Result<(), Failed> {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let lease = LEASE.as_millis().to_string();
        let mut first = started("d1", &lease);
        first.until("serving");
        let mut second = started("d2", "none");
        second.until("standby");
        let mut took = Duration::ZERO;
        let (_, both) = dialling(|| {
            first.say(&format!("own {lease}"));
            let renewed = Instant::now();
            first.signal(signal);
            // The store gives it away when it has run out, and not before.
            while renewed.elapsed() < LEASE {
                sleep(Duration::from_millis(10));
            }
            second.say("own 60000");
            eventually("a new connection", LIMIT, || {
                inside("c", || dial_here(vip(), Duration::from_millis(200))).is_ok()
            });
            took = renewed.elapsed();
            sleep(Duration::from_millis(500));
            if signal == Signal::SIGSTOP {
                first.signal(Signal::SIGCONT);
                sleep(Duration::from_secs(1));
            }
        });
        assert_eq!(both, 0, "{signal}: moments with two owners");
        assert!(took < LEASE + Duration::from_secs(1), "{signal}: {took:?}");
        assert!(!inside("d1", has_address));
        if signal == Signal::SIGSTOP {
            first.until("standby");
        }
        first.kill();
        second.leave();
        // A later life takes away what the first has left.
        started("d1", "none").leave();
    }
    Ok(())
}

pub(crate) fn no_lease(_: &Bed) -> Result<(), Failed> {
    let mut first = started("d1", &LEASE.as_millis().to_string());
    let mut second = started("d2", "none");
    first.until("serving");
    second.until("standby");
    let start = Instant::now();
    // A dial that is under way when this ends is waited for, so the time is taken inside.
    let mut took = Duration::ZERO;
    let (_, both) = dialling(|| {
        eventually("dropped at its end", LIMIT, || !inside("d1", has_address));
        took = start.elapsed();
    });
    assert_eq!(both, 0);
    assert!(took < LEASE, "before the end: {took:?}");
    assert!(!inside("d2", has_address));
    first.until("standby");
    // It comes back with the store.
    first.say("own 60000");
    first.until("serving");
    dial("c", vip(), WITHIN)?;
    first.leave();
    second.leave();
    Ok(())
}

/// What a planned move does on both hosts, in the order in which the lease lets them.
pub(crate) fn planned(_: &Bed) -> Result<(), Failed> {
    let mut first = started("d1", "60000");
    first.until("serving");
    let mut second = started("d2", "none");
    second.until("standby");
    let mut old = dial("c", vip(), WITHIN)?;
    old.answers(WITHIN)?;
    let mac = on("d2", "cat /sys/class/net/eth0/address");
    // The best of several: an emulated machine stands still now and then.
    let (mut seen, mut reset) = (LIMIT, Duration::ZERO);
    for _ in 0..MOVES {
        let (failed, both) = dialling(|| {
            assert_eq!(first.say("give_up"), true);
            second.say("own 60000");
            let moved = Instant::now();
            eventually("the client sends to the new owner", LIMIT, || {
                on("c", &format!("ip neigh show {VIP}")).contains(&mac)
            });
            seen = seen.min(moved.elapsed());
            if reset.is_zero() {
                assert!(old.answers(WITHIN).is_err(), "an old connection goes on");
                reset = moved.elapsed();
            }
            // What was dropped meanwhile is sent again within a second.
            sleep(Duration::from_secs(2));
        });
        assert_eq!((failed, both), (0, 0), "failed dials, moments with two owners");
        assert!(!inside("d1", has_address));
        assert_eq!(on("d1", "nft list tables"), "table ip pointsman");
        // And back, to begin again.
        second.say("give_up");
        first.say("own 60000");
        first.until("serving");
        second.until("standby");
        dial("c", vip(), WITHIN)?;
    }
    // Where the lease is about to end there is no time for anybody.
    first.say("own 700");
    let began = Instant::now();
    first.say("give_up");
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(!inside("d1", has_address));
    println!(
        "the client knew after {} ms, an old connection after {} ms",
        seen.as_millis(),
        reset.as_millis()
    );
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert!(reset < Duration::from_secs(2), "{reset:?}");
    first.leave();
    second.leave();
    assert_eq!(on("d1", "nft list tables"), "");
    Ok(())
}

const MOVES: usize = 5;
