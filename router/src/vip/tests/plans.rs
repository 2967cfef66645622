use proptest::prelude::*;

use super::*;

const KEY: ServiceKey =
    ServiceKey { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100)), port: 3306 };

fn key(number: u8) -> ServiceKey {
    ServiceKey { port: 3306 + u16::from(number), ..KEY }
}

fn there(weight: u32, active: u32) -> Destination {
    Destination { weight, forwarding: Some(Forwarding::Masquerade), active, inactive: 3 }
}

fn service(destinations: &[(u8, u32, u32)]) -> Service {
    let destinations = destinations.iter().map(|&(n, weight, active)| (address(n), there(weight, active)));
    Service { scheduler: Some(Scheduler::Wrr), persistent: false, destinations: destinations.collect() }
}

fn wish(destinations: &[(u8, u32, Option<u64>)]) -> Wish {
    let wanted = |weight, until: Option<u64>| {
        let until = until.map(Duration::from_secs);
        Wanted { weight, cause: Cause::Serving, until }
    };
    let destinations = destinations.iter().map(|&(n, weight, until)| (address(n), wanted(weight, until)));
    Wish {
        scheduler: Scheduler::Wrr,
        forwarding: Forwarding::Masquerade,
        destinations: destinations.collect(),
        untouched: BTreeSet::new(),
    }
}

fn shown(changes: &[Change]) -> String {
    let number =
        |server: SocketAddr| server.ip().to_string().rsplit('.').next().unwrap_or_default().to_owned();
    let one = |change: &Change| match *change {
        Change::AddService { scheduler, .. } => format!("new {scheduler:?}"),
        Change::SetService { scheduler, .. } => format!("now {scheduler:?}"),
        Change::AddDestination { server, weight, .. } => format!("+{}={weight}", number(server)),
        Change::SetDestination { server, weight, .. } => format!("{}={weight}", number(server)),
        Change::DeleteDestination { server, .. } => format!("-{}", number(server)),
        Change::DeleteService { service } => format!("gone {}", service.port),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// One service at second 10.
fn check(there: Option<Service>, wish: &Wish, expected: &str) {
    let table = Table { services: there.map(|service| (KEY, service)).into_iter().collect() };
    let wishes = BTreeMap::from([(KEY, wish.clone())]);
    assert_eq!(shown(&plan(&table, &wishes, &Owned::new(), Duration::from_secs(10))), expected);
}

#[test]
fn only_differences() {
    let three = wish(&[(1, 5, None), (2, 3, None), (3, 2, None)]);
    check(None, &three, "new Wrr +1=5 +2=3 +3=2");
    check(Some(service(&[(1, 5, 0), (2, 3, 9), (3, 2, 0)])), &three, "");
    check(Some(service(&[(1, 5, 0), (2, 3, 9)])), &three, "+3=2");
    // A weight that an earlier life left behind.
    check(Some(service(&[(1, 0, 0), (2, 3, 9), (3, 2, 0)])), &three, "1=5");
    let hash = Wish { scheduler: Scheduler::Sh, ..three.clone() };
    check(Some(service(&[(1, 5, 0), (2, 3, 9), (3, 2, 0)])), &hash, "now Sh");
    let direct = Wish { forwarding: Forwarding::Direct, ..wish(&[(1, 5, None)]) };
    check(Some(service(&[(1, 5, 0)])), &direct, "1=5");
    let foreign =
        Service { scheduler: None, persistent: false, ..service(&[(1, 5, 0), (2, 3, 0), (3, 2, 0)]) };
    check(Some(foreign), &three, "now Wrr");
    let persistent = Service { persistent: true, ..service(&[(1, 5, 0), (2, 3, 0), (3, 2, 0)]) };
    check(Some(persistent), &three, "now Wrr");
}

#[test]
fn more_comes_before_less() {
    let after = wish(&[(1, 1, None), (2, 9, None), (4, 4, None)]);
    check(Some(service(&[(1, 5, 0), (2, 3, 9), (3, 2, 0)])), &after, "2=9 +4=4 1=1 -3");
}

#[test]
fn what_ends_ends_when_it_is_idle_or_late() {
    let ending = wish(&[(1, 5, None), (2, 0, Some(20))]);
    check(Some(service(&[(1, 5, 0), (2, 5, 3)])), &ending, "2=0");
    check(Some(service(&[(1, 5, 0), (2, 5, 0)])), &ending, "2=0");
    check(Some(service(&[(1, 5, 0), (2, 0, 3)])), &ending, "");
    check(Some(service(&[(1, 5, 0), (2, 0, 0)])), &ending, "-2");
    check(Some(service(&[(1, 5, 0)])), &ending, "");
    let late = wish(&[(1, 5, None), (2, 0, Some(10))]);
    check(Some(service(&[(1, 5, 0), (2, 0, 3)])), &late, "-2");
}

#[test]
fn what_is_not_known_is_left() {
    let mut partly = wish(&[(1, 5, None)]);
    partly.untouched.insert(address(2));
    check(Some(service(&[(1, 5, 0), (2, 3, 0)])), &partly, "");
    check(Some(service(&[(1, 5, 0)])), &partly, "");
}

#[test]
fn only_services_that_are_ours_are_deleted() {
    let table = Table { services: (0..3).map(|n| (key(n), service(&[(1, 1, 0)]))).collect() };
    let wishes = BTreeMap::from([(key(0), wish(&[(1, 1, None)]))]);
    let owned = Owned::from([key(0), key(1), key(7)]);
    assert_eq!(shown(&plan(&table, &wishes, &owned, Duration::ZERO)), "gone 3307");
}

fn any_table() -> impl Strategy<Value = Table> {
    let destination = (0_u32..4, 0_u32..3, any::<bool>()).prop_map(|(weight, active, ours)| {
        let forwarding = ours.then_some(Forwarding::Masquerade);
        Destination { weight, forwarding, active, inactive: 0 }
    });
    let destinations = prop::collection::btree_map((1_u8..6).prop_map(address), destination, 0..5);
    let service =
        (any::<bool>(), any::<bool>(), destinations).prop_map(|(ours, persistent, destinations)| Service {
            scheduler: ours.then_some(Scheduler::Wrr),
            persistent,
            destinations,
        });
    prop::collection::btree_map((0_u8..5).prop_map(key), service, 0..5)
        .prop_map(|services| Table { services })
}

fn any_wishes() -> impl Strategy<Value = BTreeMap<ServiceKey, Wish>> {
    let one = prop::collection::vec((1_u8..6, 0_u32..4, prop::option::of(0_u64..20)), 0..5).prop_map(|all| {
        let all: Vec<_> = all
            .into_iter()
            .map(|(n, weight, until)| (n, if until.is_some() { 0 } else { weight }, until))
            .collect();
        wish(&all)
    });
    prop::collection::btree_map((0_u8..5).prop_map(key), one, 0..4)
}

fn sum(table: &Table, key: ServiceKey) -> u32 {
    let weights = |service: &Service| service.destinations.values().map(|there| there.weight).sum();
    table.services.get(&key).map_or(0, weights)
}

proptest! {
    #[test]
    fn a_plan_leads_to_the_wish_and_touches_nothing_else(
        before in any_table(),
        wishes in any_wishes(),
        owned in prop::collection::btree_set((0_u8..5).prop_map(key), 0..4),
    ) {
        let now = Duration::from_secs(10);
        let mut table = before.clone();
        let changes = plan(&before, &wishes, &owned, now);
        let mut sums: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for change in &changes {
            table.apply(*change);
            sums.entry(change.service()).or_default().push(sum(&table, change.service()));
        }
        for (key, wish) in &wishes {
            let service = &table.services[key];
            prop_assert_eq!(service.scheduler, Some(Scheduler::Wrr));
            prop_assert!(!service.persistent);
            for (server, wanted) in &wish.destinations {
                let there = service.destinations.get(server);
                if wanted.until.is_none() || there.is_some() {
                    prop_assert_eq!(there.map(|there| there.weight), Some(wanted.weight));
                }
            }
            prop_assert!(service.destinations.keys().all(|server| wish.destinations.contains_key(server)));
            // A service that had servers and will have some never stands empty in between.
            if sum(&before, *key) > 0 && sum(&table, *key) > 0 {
                prop_assert!(sums.get(key).into_iter().flatten().all(|sum| *sum > 0));
            }
        }
        for (key, service) in &before.services {
            if !wishes.contains_key(key) {
                let kept = table.services.get(key) == Some(service);
                prop_assert_eq!(kept, !owned.contains(key));
            }
        }
        // A second look finds at most what has just come to its end.
        let again = plan(&table, &wishes, &owned, now);
        let only_ends = again.iter().all(|change| matches!(change, Change::DeleteDestination { .. }));
        prop_assert!(only_ends, "{:?}", again);
    }
}
