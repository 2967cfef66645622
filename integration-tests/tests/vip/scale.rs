//! Many services: how long changes take, and that nothing grows with them. Prints figures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use pointsman::vip::ipvs::Ipvs;
use pointsman::vip::nat::Nat;
use pointsman_config::{Forwarding, Scheduler};
use pointsman_router::vip::{Cause, Change, Owned, ServiceKey, Wanted, Wish, plan};

use crate::bed::{Bed, inside, on};

const SERVICES: u16 = 2_000;
const SERVERS: u8 = 10;
/// Changes a second, and for how long.
const RATE: u32 = 100;
const STEADY: Duration = Duration::from_secs(60);
/// KiB
const MOST_RESIDENT: u64 = 100 * 1024;

fn key(number: u16) -> ServiceKey {
    ServiceKey { address: IpAddr::from([10, 0, 0, 100]), port: 10_000 + number }
}

fn wishes(numbers: std::ops::Range<u16>) -> BTreeMap<ServiceKey, Wish> {
    let wanted = Wanted { weight: 100, cause: Cause::Serving, until: None };
    let servers = (0..SERVERS).map(|n| (SocketAddr::from(([10, 0, 1, n], 3306)), wanted));
    let wish = Wish {
        scheduler: Scheduler::Wrr,
        forwarding: Forwarding::Masquerade,
        destinations: servers.collect(),
        untouched: BTreeSet::new(),
    };
    numbers.map(|number| (key(number), wish.clone())).collect()
}

/// Makes the differences; how many there were, and how long it took.
fn apply(ipvs: &mut Ipvs, wishes: &BTreeMap<ServiceKey, Wish>, owned: &Owned) -> (usize, Duration) {
    let start = Instant::now();
    let table = ipvs.table().expect("the table");
    let changes = plan(&table, wishes, owned, Duration::ZERO);
    for change in &changes {
        ipvs.change(*change).unwrap_or_else(|error| panic!("{change:?}: {error}"));
    }
    (changes.len(), start.elapsed())
}

pub(crate) fn scale(_: &Bed) -> Result<(), Failed> {
    let figures = inside("d1", measure);
    let rules = on("d1", "nft list chain ip pointsman post");
    assert_eq!(rules.matches("masquerade").count(), 1, "{rules}");
    println!("{figures}");
    on("d1", "ipvsadm -C");
    Ok(())
}

fn measure() -> String {
    let mut ipvs = Ipvs::open().expect("IPVS");
    let mut nat = Nat::open(false).expect("nftables");
    let first = wishes(0..SERVICES);
    let (count, made) = apply(&mut ipvs, &first, &Owned::new());
    assert_eq!(count, usize::from(SERVICES) * (usize::from(SERVERS) + 1));
    assert!(made < Duration::from_secs(10), "{made:?}");

    let mut single = Vec::new();
    for number in 0..200_u16 {
        let server = SocketAddr::from(([10, 0, 1, 3], 3306));
        let (service, weight) = (key(number * 7 % SERVICES), 50 + u32::from(number % 2));
        let change = Change::SetDestination { service, server, weight, forwarding: Forwarding::Masquerade };
        let start = Instant::now();
        ipvs.change(change).expect("a change");
        single.push(start.elapsed());
    }
    single.sort();
    let (median, p99) = (median(&single), single[197]);
    assert!(median < Duration::from_millis(1), "{median:?}");
    assert!(p99 < Duration::from_millis(5), "{p99:?}");
    let (first_changes, last_changes) = changes_at_a_rate(&mut ipvs);
    assert!(last_changes < 2 * first_changes, "{first_changes:?} {last_changes:?}");

    // As it was, for the counts below.
    let owned: Owned = first.keys().copied().collect();
    apply(&mut ipvs, &first, &owned);
    let start = Instant::now();
    let table = ipvs.table().expect("the table");
    let dump = start.elapsed();
    assert_eq!(table.services.len(), usize::from(SERVICES));
    assert!(dump < Duration::from_secs(5), "{dump:?}");

    let start = Instant::now();
    let services: BTreeSet<_> = first.keys().copied().collect();
    assert!(nat.ensure(&services).expect("the NAT table"));
    let rule = start.elapsed();
    assert!(!nat.ensure(&services).expect("the NAT table"), "nothing to do the second time");

    // 200 services get another port; the other 1,800 are not touched.
    let renamed = wishes(200..SERVICES + 200);
    let (count, rename) = apply(&mut ipvs, &renamed, &owned);
    assert_eq!(count, 200 * (usize::from(SERVERS) + 1) + 200);
    let resident = resident();
    assert!(resident < MOST_RESIDENT, "{resident} KiB");
    format!(
        "scale: {SERVICES} services x {SERVERS} servers: made in {made:?}, one weight {median:?} (median) \
         {p99:?} (p99), {RATE} changes a second for {STEADY:?}: median {first_changes:?} in the first tenth, \
         {last_changes:?} in the last, dump {dump:?}, NAT table {rule:?}, 200 services renamed in {rename:?}, \
         resident {resident} KiB"
    )
}

/// The medians of the first and of the last tenth of changes of random weights.
fn changes_at_a_rate(ipvs: &mut Ipvs) -> (Duration, Duration) {
    let start = Instant::now();
    let mut took = Vec::new();
    let mut next = start;
    while start.elapsed() < STEADY {
        let service = key(rand::random_range(0..SERVICES));
        let server = SocketAddr::from(([10, 0, 1, rand::random_range(0..SERVERS)], 3306));
        let weight = rand::random_range(1..100);
        let began = Instant::now();
        let forwarding = Forwarding::Masquerade;
        ipvs.change(Change::SetDestination { service, server, weight, forwarding }).expect("a change");
        took.push(began.elapsed());
        next += Duration::from_secs(1) / RATE;
        sleep(next.saturating_duration_since(Instant::now()));
    }
    let tenth = took.len() / 10;
    let all = took.len();
    assert!(all as f64 > 0.9 * STEADY.as_secs_f64() * f64::from(RATE), "{all} changes");
    (median(&took[..tenth]), median(&took[all - tenth..]))
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
