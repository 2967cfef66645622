//! The address between two directors. The test is the lease store: it says whose the address is and for how long.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use crate::bed::{Bed, LIMIT, PORT, Stop, VIP, VIP6, dial, dial_here, eventually, inside, on, vip, vip6};
use crate::director::{Director, FIVE_THREE_TWO, Plan};

const WITHIN: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(3);

fn started(host: &str, own: &str) -> Director {
    started_at(VIP, host, own)
}

fn started_at(address: &str, host: &str, own: &str) -> Director {
    let plan = Plan { address: address.to_owned(), own: own.to_owned(), ..Plan::default() };
    let mut director = Director::start(host, &plan);
    director.servers(&FIVE_THREE_TWO);
    director
}

/// What a client dials again and again.
pub(crate) struct Dialling {
    pub(crate) address: &'static str,
    /// Whether it came through.
    pub(crate) dial: fn() -> bool,
}

const USUAL: Dialling = Dialling { address: VIP, dial: || dial_here(vip(), WITHIN).is_ok() };

/// Looks who has the address, every 10 ms.
struct Watch<'a> {
    address: &'static str,
    stop: &'a AtomicBool,
    looks: &'a AtomicUsize,
    both: &'a AtomicUsize,
}

impl Watch<'_> {
    fn run(&self) {
        let has = |host| inside(host, || has_address(self.address));
        while !self.stop.load(Ordering::Relaxed) {
            // It may go from the first to the second one between two looks.
            if has("d1") && has("d2") && has("d1") {
                self.both.fetch_add(1, Ordering::Relaxed);
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10));
        }
    }
}

/// Whether this namespace has the address, without starting a program.
pub(crate) fn has_address(address: &str) -> bool {
    let table = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    match address.parse::<Ipv6Addr>() {
        Ok(address) => table("if_inet6").contains(&format!("{:032x} ", address.to_bits())),
        Err(_) => table("fib_trie").contains(&format!("|-- {address}\n")),
    }
}

/// Runs `change` while a client dials every 20 ms; how many dials failed, and how often there were two owners.
///
/// # Panics
///
/// When there were too few dials or looks to tell.
pub(crate) fn dialling(what: &Dialling, change: impl FnOnce()) -> (usize, usize) {
    let (stop, looks, both) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (dials, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| Watch { address: what.address, stop: &stop, looks: &looks, both: &both }.run());
        scope.spawn(|| {
            inside("c", || {
                while !stop.load(Ordering::Relaxed) {
                    if !(what.dial)() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    dials.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20));
                }
            });
        });
        sleep(Duration::from_millis(500));
        change();
    });
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    let least = begun.elapsed().as_secs_f64() * LEAST_RATE;
    println!("{:?}: {} dials, {} looks for two owners", begun.elapsed(), count(&dials), count(&looks));
    assert!(count(&looks) as f64 > least, "{} looks", count(&looks));
    assert!(count(&dials) > 0);
    (count(&failed), count(&both))
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
        let (_, both) = dialling(&USUAL, || {
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
        assert!(!inside("d1", || has_address(VIP)));
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
    let (_, both) = dialling(&USUAL, || {
        eventually("dropped at its end", LIMIT, || !inside("d1", || has_address(VIP)));
        took = start.elapsed();
    });
    assert_eq!(both, 0);
    assert!(took < LEASE, "before the end: {took:?}");
    assert!(!inside("d2", || has_address(VIP)));
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
    planned_with(&USUAL)
}

pub(crate) fn planned_ipv6(_: &Bed) -> Result<(), Failed> {
    planned_with(&Dialling { address: VIP6, dial: || dial_here(vip6(), WITHIN).is_ok() })
}

fn planned_with(what: &Dialling) -> Result<(), Failed> {
    let address = SocketAddr::new(what.address.parse()?, PORT);
    let mut first = started_at(what.address, "d1", "60000");
    first.until("serving");
    let mut second = started_at(what.address, "d2", "none");
    second.until("standby");
    let mut old = dial("c", address, WITHIN)?;
    old.answers(WITHIN)?;
    let mac = on("d2", "cat /sys/class/net/eth0/address");
    // The best of several: an emulated machine stands still now and then.
    let (mut seen, mut reset) = (LIMIT, Duration::ZERO);
    assert!(inside("d1", || has_address(what.address)));
    for _ in 0..MOVES {
        let (failed, both) = dialling(what, || {
            assert_eq!(first.say("give_up"), true);
            second.say("own 60000");
            let moved = Instant::now();
            eventually("the client sends to the new owner", LIMIT, || {
                on("c", &format!("ip neigh show {}", what.address)).contains(&mac)
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
        assert!(!inside("d1", || has_address(what.address)));
        let family = if address.is_ipv6() { "ip6" } else { "ip" };
        assert_eq!(on("d1", "nft list tables"), format!("table {family} pointsman"));
        // And back, to begin again.
        second.say("give_up");
        first.say("own 60000");
        first.until("serving");
        second.until("standby");
        dial("c", address, WITHIN)?;
    }
    // Where the lease is about to end there is no time for anybody.
    first.say("own 700");
    let began = Instant::now();
    first.say("give_up");
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(!inside("d1", || has_address(what.address)));
    println!(
        "{}: the client knew after {} ms, an old connection after {} ms",
        what.address,
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
/// Looks a second: an emulated machine is slow.
const LEAST_RATE: f64 = 20.0;
