use pointsman_config::VipFallback;

use super::super::{Policy, ReadPool};
use super::*;
use crate::gtid::GtidSet;
use crate::topology::{Role, ServerId, ServerView, State, Topology};

fn policy() -> Policy {
    Policy {
        scheduler: Scheduler::Wrr,
        forwarding: Forwarding::Masquerade,
        lag: pointsman_config::Lag { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) },
        dwell: Duration::from_secs(5),
        slow_start: Duration::from_secs(8),
        drain: Duration::from_secs(60),
        fallback: VipFallback::None,
    }
}

/// A server from a word: `p` primary, `r` replica, `u` unknown role; then the state `+` online, `l` lagging,
/// `d` draining, `x` excluded, `-` down, `?` unknown; then the weight; then the lag in ms after `@`.
fn view(number: u16, word: &str) -> ServerView {
    let (what, rest) = word.split_at(2);
    let (weight, lag) = rest.split_once('@').map_or((rest, Some("0")), |(weight, lag)| (weight, Some(lag)));
    let role = match &what[..1] {
        "p" => Role::Primary,
        "r" => Role::Replica,
        _ => Role::Unknown,
    };
    let state = match &what[1..] {
        "+" => State::Online,
        "l" => State::Lagging,
        "d" => State::Draining,
        "x" => State::Excluded,
        "-" => State::Down,
        _ => State::Unknown,
    };
    ServerView {
        id: ServerId(number),
        name: format!("db-{number}"),
        address: String::new(),
        weight: weight.parse().unwrap(),
        zone: String::new(),
        role,
        state,
        reason: String::new(),
        lag: lag.filter(|lag| *lag != "?").map(|lag| Duration::from_millis(lag.parse().unwrap())),
        position: GtidSet::default(),
        position_at: Duration::ZERO,
        online_since: Duration::ZERO,
        read_only: true,
        version: String::new(),
    }
}

fn topology(words: &str) -> Topology {
    let servers: Vec<_> = (0..).zip(words.split(' ')).map(|(number, word)| view(number, word)).collect();
    let primary = servers.iter().find(|view| view.role == Role::Primary).map(|view| view.id);
    Topology { ready: true, primary, servers, ..Topology::default() }
}

fn addresses(count: u16) -> BTreeMap<ServerId, SocketAddr> {
    (0..count).map(|number| (ServerId(number), address(u8::try_from(number).unwrap()))).collect()
}

fn shown(wish: Option<Wish>) -> String {
    let Some(wish) = wish else { return "kept".to_owned() };
    let number = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let one = |(address, wanted): (&SocketAddr, &Wanted)| {
        let until = wanted.until.map(|until| format!(" until {}", until.as_secs())).unwrap_or_default();
        format!("{}={} {}{until}", number(address), wanted.weight, wanted.cause.name())
    };
    let mut parts: Vec<_> = wish.destinations.iter().map(one).collect();
    parts.extend(wish.untouched.iter().map(|address| format!("{}=as it is", number(address))));
    parts.join(", ")
}

/// Pictures of servers at seconds, and what the service shall be at the last of them.
fn check_with(policy: Policy, pictures: &[(u64, &str)], expected: &str) {
    let mut pool = ReadPool::new(policy);
    let mut last = String::new();
    for (second, words) in pictures {
        let topology = topology(words);
        let count = u16::try_from(topology.servers.len()).unwrap();
        last = shown(pool.wish(&topology, &addresses(count), Duration::from_secs(*second)));
    }
    assert_eq!(last, expected, "{pictures:?}");
}

fn check(pictures: &[(u64, &str)], expected: &str) {
    check_with(policy(), pictures, expected);
}

#[test]
fn replicas_serve_by_their_weights() {
    check(&[(0, "p+100 r+500 r+300 r+200")], "1=500 serving, 2=300 serving, 3=200 serving");
    check(&[(0, "p+100 r+100 r+0")], "1=100 serving, 2=0 no weight");
    check(&[(0, "p+100")], "");
}

#[test]
fn lag_takes_weight_in_steps() {
    check(&[(0, "p+100 r+100 r+100@1001")], "1=100 serving, 2=50 behind");
    check(&[(0, "p+100 r+100 r+1@1001")], "1=100 serving, 2=1 behind");
    check(&[(0, "p+100 r+100 r+100@10001")], "1=100 serving, 2=0 lagging");
    check(&[(0, "p+100 r+100 rl100@?")], "1=100 serving, 2=0 lagging");
    // Back only after a while, and then without a slow start: connections have gone on all the time.
    let back = [(0, "p+100 r+100 r+100@20000"), (1, "p+100 r+100 r+100"), (5, "p+100 r+100 r+100")];
    check(&back, "1=100 serving, 2=0 lagging");
    let later = [back[0], back[1], (6, "p+100 r+100 r+100")];
    check(&later, "1=100 serving, 2=100 serving");
}

#[test]
fn lag_alone_never_empties_the_pool() {
    check(&[(0, "p+100 rl70@20000 rl30@15000")], "1=0 lagging, 2=30 least lagging");
    check(&[(0, "p+100 rl70@? rl30@15000")], "1=0 lagging, 2=30 least lagging");
    check(&[(0, "p+100 r-70 rl30@15000")], "2=30 least lagging");
    let with_primary = Policy { fallback: VipFallback::Primary, ..policy() };
    check_with(with_primary.clone(), &[(0, "p+100 rl70@20000")], "1=70 least lagging");
    // Draining and dead servers are not brought back.
    check(&[(0, "p+100 rd70 r-30")], "1=0 draining until 60");
    check_with(with_primary.clone(), &[(0, "p+100 rd70 r-30")], "0=1 last resort, 1=0 draining until 60");
    check_with(with_primary.clone(), &[(0, "p-100 r-70 r-30")], "");
    check_with(with_primary, &[(0, "p+100 r+70 r-30")], "1=70 serving");
}

#[test]
fn what_must_not_be_used_ends() {
    check(&[(3, "p+100 r+100 rd100")], "1=100 serving, 2=0 draining until 63");
    check(&[(3, "p+100 r+100 rd100"), (9, "p+100 r+100 rd100")], "1=100 serving, 2=0 draining until 63");
    check(&[(3, "p+100 r+100 rx100")], "1=100 serving, 2=0 excluded until 63");
    check(&[(3, "p+100 r+100 u+100")], "1=100 serving, 2=0 excluded until 63");
    check(&[(3, "p+100 r+100 r-100")], "1=100 serving");
    // A replica that has become the primary is no replica.
    check(&[(3, "p+100 r+100 r+100"), (4, "u-100 p+100 r+100")], "2=100 serving");
}

#[test]
fn what_is_not_known_is_left_as_it_is() {
    check(&[(0, "p+100 r?100 r+100")], "2=100 serving, 1=as it is");
    let mut pool = ReadPool::new(policy());
    let unready = Topology { ready: false, ..topology("p+100 r+100") };
    assert_eq!(pool.wish(&unready, &addresses(2), Duration::ZERO), None);
    // A name that does not resolve.
    let wish = pool.wish(&topology("p+100 r+100 r+100"), &addresses(2), Duration::ZERO);
    assert_eq!(shown(wish), "1=100 serving");
}

#[test]
fn only_who_comes_back_starts_slowly() {
    let gone = [(0, "p+100 r+100 r+100"), (1, "p+100 r+100 r-100")];
    let at = |second: u64| [gone[0], gone[1], (2, "p+100 r+100 r+100"), (second, "p+100 r+100 r+100")];
    check(&at(2), "1=100 serving, 2=25 slow start");
    check(&at(4), "1=100 serving, 2=50 slow start");
    check(&at(9), "1=100 serving, 2=100 slow start");
    check(&at(10), "1=100 serving, 2=100 serving");
    // Seen for the first time late, after having been down.
    check(&[(0, "p+100 r+100 r-100"), (9, "p+100 r+100 r+100")], "1=100 serving, 2=100 serving");
    let at_once = Policy { slow_start: Duration::ZERO, ..policy() };
    check_with(at_once, &at(2), "1=100 serving, 2=100 serving");
}

#[test]
fn an_evicted_server_is_out_whatever_it_seems_to_be() {
    let mut pool = ReadPool::new(policy());
    let (picture, addresses) = (topology("p+100 r+100 r+100"), addresses(3));
    pool.evict(ServerId(2));
    assert_eq!(shown(pool.wish(&picture, &addresses, Duration::ZERO)), "1=100 serving");
    pool.evict(ServerId(1));
    assert_eq!(shown(pool.wish(&picture, &addresses, Duration::ZERO)), "");
    pool.readmit(ServerId(2));
    assert_eq!(shown(pool.wish(&picture, &addresses, Duration::ZERO)), "2=100 serving");
}

#[test]
fn an_evicted_server_may_serve_again_after_it_was_the_primary() {
    let (mut pool, addresses) = (ReadPool::new(policy()), addresses(3));
    pool.evict(ServerId(1));
    let mut shown_at =
        |picture: &str, second| shown(pool.wish(&topology(picture), &addresses, Duration::from_secs(second)));
    assert_eq!(shown_at("p+100 r+100 r+100", 0), "2=100 serving");
    assert_eq!(shown_at("r+100 p+100 r+100", 1), "0=100 serving, 2=100 serving");
    assert_eq!(shown_at("r+100 r+100 p+100", 2), "0=100 serving, 1=100 serving");
}
