//! Many services: how long changes take, and that nothing grows with them. Prints figures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use pointsman::vip::ipvs::Ipvs;
use pointsman::vip::nat::Nat;
use pointsman_config::{Forwarding, Scheduler};
use pointsman_router::vip::{Cause, Change, Owned, ServiceKey, Wanted, Wish, plan};

use crate::bed::{Bed, inside, on};

const SERVICES: u16 = 2_000;
const SERVERS: u8 = 10;

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
    assert!(made < Duration::from_secs(50), "{made:?}");

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
    let (median, p99) = (single[100], single[197]);
    assert!(median < Duration::from_millis(5), "{median:?}");

    let start = Instant::now();
    let table = ipvs.table().expect("the table");
    let dump = start.elapsed();
    assert_eq!(table.services.len(), usize::from(SERVICES));
    assert!(dump < Duration::from_secs(25), "{dump:?}");

    let start = Instant::now();
    let services: BTreeSet<_> = first.keys().copied().collect();
    assert!(nat.ensure(&services).expect("the NAT table"));
    let rule = start.elapsed();
    assert!(!nat.ensure(&services).expect("the NAT table"), "nothing to do the second time");

    // 200 services get another port; the other 1,800 are not touched.
    let owned: Owned = first.keys().copied().collect();
    let renamed = wishes(200..SERVICES + 200);
    let (count, rename) = apply(&mut ipvs, &renamed, &owned);
    // Of the 200 services whose weight was changed above, 29 are among the renamed.
    assert_eq!(count, 200 * (usize::from(SERVERS) + 1) + 200 + 171);
    format!(
        "scale: {SERVICES} services x {SERVERS} servers: made in {made:?}, one weight {median:?} (median) \
         {p99:?} (p99), dump {dump:?}, NAT table {rule:?}, 200 services renamed in {rename:?}"
    )
}
