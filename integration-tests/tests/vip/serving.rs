//! Who serves, with which weights, and what becomes of connections when that changes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use socket2::{Domain, Socket, Type};

use crate::bed::{
    Bed, LIMIT, PORT, VIP6, counts, dial, dial_here, eventually, greeted, inside, on, server6, sh, spread,
    table, vip,
};
use crate::director::{Director, FIVE_THREE_TWO, Plan, until_table, usual};

const WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn create(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    assert_eq!(table("d1"), usual(&[("r1", 500), ("r2", 300), ("r3", 200)]));
    let address = on("d1", "ip -o addr show dev pointsman0");
    assert!(address.contains("10.0.0.100/32"), "{address}");
    let rules = on("d1", "nft list table ip pointsman");
    assert_eq!(rules.matches("masquerade").count(), 1, "{rules}");
    assert!(rules.contains("elements = { 10.0.0.100 . 3306 }"), "{rules}");
    let rule = "meta l4proto tcp ct original ip daddr . ct original proto-dst @vips masquerade";
    assert!(rules.contains(rule), "{rules}");
    for (setting, value) in [("vs.conntrack", "1"), ("vs.expire_nodest_conn", "1"), ("ip_forward", "1")] {
        assert_eq!(on("d1", &format!("sysctl -n net.ipv4.{setting}")), value, "{setting}");
    }
    assert_eq!(spread("c", vip(), 100), counts(&[("r1", 50), ("r2", 30), ("r3", 20)]));
    director.leave();
    assert!(table("d1").is_empty());
    assert_eq!(on("d1", "nft list ruleset"), "");
    for setting in ["vs.conntrack", "vs.expire_nodest_conn", "ip_forward"] {
        assert_eq!(on("d1", &format!("sysctl -n net.ipv4.{setting}")), "0", "{setting} is put back");
    }
    assert!(!on("d1", "ip -o link").contains("pointsman0"));
    Ok(())
}

pub(crate) fn create_ipv6(_: &Bed) -> Result<(), Failed> {
    let plan = Plan { address: VIP6.to_owned(), ..Plan::default() };
    let mut director = Director::serving("d1", &plan);
    let address = SocketAddr::new(VIP6.parse()?, PORT);
    let mut expected = vec![format!("wrr {address}")];
    expected.extend(
        [("r1", 500), ("r2", 300), ("r3", 200)]
            .map(|(name, weight)| format!("{} -m {weight}", server6(name))),
    );
    assert_eq!(table("d1"), expected);
    assert_eq!(spread("c", address, 100), counts(&[("r1", 50), ("r2", 30), ("r3", 20)]));
    let rules = on("d1", "nft list table ip6 pointsman");
    assert_eq!(rules.matches("masquerade").count(), 1, "{rules}");
    assert!(rules.contains("elements = { fd00::100 . 3306 }"), "{rules}");
    director.servers(&[FIVE_THREE_TWO[0], FIVE_THREE_TWO[1], ("r2", "down", 300, 0), FIVE_THREE_TWO[3]]);
    eventually("r2 is deleted", LIMIT, || table("d1").len() == 3);
    assert_eq!(spread("c", address, 7), counts(&[("r1", 5), ("r3", 2)]));
    director.leave();
    assert!(!on("d1", "ip -o addr").contains("fd00::100"));
    Ok(())
}

pub(crate) fn schedulers(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan::default());
    let mut open = dial("c", vip(), WITHIN)?;
    for scheduler in ["rr", "lc", "wlc", "sh", "mh", "wrr"] {
        // A crash, and a later life with another configuration.
        director.kill();
        director = Director::serving("d1", &Plan { scheduler, ..Plan::default() });
        eventually(scheduler, LIMIT, || table("d1").first() == Some(&format!("{scheduler} {}", vip())));
        assert_eq!(table("d1").len(), 4);
        open.answers(WITHIN)?;
        let spread = spread("c", vip(), 6);
        let is_hash = matches!(scheduler, "sh" | "mh");
        assert!(!is_hash || spread.len() == 1, "{scheduler}: one client, one server: {spread:?}");
    }
    director.leave();
    Ok(())
}

fn spread_of(scheduler: &'static str, weights: [u32; 3]) -> BTreeMap<String, usize> {
    let mut director = Director::start("d1", &Plan { scheduler, ..Plan::default() });
    let [one, two, three] = weights;
    director.servers(&[
        FIVE_THREE_TWO[0],
        ("r1", "online", one, 0),
        ("r2", "online", two, 0),
        ("r3", "online", three, 0),
    ]);
    director.until("serving");
    // All open at once, so that connections can be counted by those that count them.
    let servers = inside("c", || {
        let mut open = Vec::new();
        let mut servers = BTreeMap::new();
        for _ in 0..200 {
            let dialled = dial_here(vip(), LIMIT).expect("a server");
            *servers.entry(dialled.server.clone()).or_default() += 1;
            open.push(dialled);
        }
        servers
    });
    director.leave();
    servers
}

pub(crate) fn shares(_: &Bed) -> Result<(), Failed> {
    let rr: Vec<_> = spread_of("rr", [500, 300, 200]).into_values().collect();
    assert_eq!(rr.iter().sum::<usize>(), 200);
    assert!(rr.iter().all(|count| matches!(count, 66 | 67)), "{rr:?}");
    assert_eq!(spread_of("wrr", [500, 300, 200]), counts(&[("r1", 100), ("r2", 60), ("r3", 40)]));
    let lc: Vec<_> = spread_of("lc", [500, 300, 200]).into_values().collect();
    assert!(lc.iter().all(|count| matches!(count, 66 | 67)), "{lc:?}");
    let wlc = spread_of("wlc", [500, 300, 200]);
    for (name, expected) in [("r1", 100_usize), ("r2", 60), ("r3", 40)] {
        assert!(wlc[name].abs_diff(expected) <= 1, "{wlc:?}");
    }
    Ok(())
}

pub(crate) fn lag(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan::default());
    let at = |lag| [FIVE_THREE_TWO[0], ("r1", "online", 500, lag), FIVE_THREE_TWO[2], FIVE_THREE_TWO[3]];
    let mut open = loop {
        let dialled = dial("c", vip(), WITHIN)?;
        if dialled.server == "r1" {
            break dialled;
        }
    };
    director.servers(&at(2_000));
    until_table("d1", &as_strs(&usual(&[("r1", 250), ("r2", 300), ("r3", 200)])));
    director.servers(&at(11_000));
    until_table("d1", &as_strs(&usual(&[("r1", 0), ("r2", 300), ("r3", 200)])));
    assert_eq!(spread_no_r1(50), 50);
    open.answers(WITHIN)?;
    // Less lag counts after a while only; the director of this test waits two seconds.
    director.servers(&at(100));
    assert_eq!(table("d1"), usual(&[("r1", 0), ("r2", 300), ("r3", 200)]));
    let start = Instant::now();
    eventually("r1 is back", LIMIT, || {
        director.servers(&at(100));
        table("d1") == usual(&[("r1", 500), ("r2", 300), ("r3", 200)])
    });
    assert!(start.elapsed() > Duration::from_millis(1_500), "{:?}", start.elapsed());
    director.leave();
    Ok(())
}

fn spread_no_r1(count: usize) -> usize {
    spread("c", vip(), count)
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "r2" | "r3"))
        .map(|(_, n)| n)
        .sum()
}

fn as_strs(rows: &[String]) -> Vec<&str> {
    rows.iter().map(String::as_str).collect()
}

pub(crate) fn dead_host(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan::default());
    let mut open = loop {
        let dialled = dial("c", vip(), WITHIN)?;
        if dialled.server == "r3" {
            break dialled;
        }
    };
    sh("ip -n r3 link set eth0 down");
    director.servers(&[FIVE_THREE_TWO[0], FIVE_THREE_TWO[1], FIVE_THREE_TWO[2], ("r3", "down", 200, 0)]);
    until_table("d1", &as_strs(&usual(&[("r1", 500), ("r2", 300)])));
    let start = Instant::now();
    let error = open.answers(LIMIT).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(spread("c", vip(), 8), counts(&[("r1", 5), ("r2", 3)]));
    director.leave();
    Ok(())
}

pub(crate) fn last_ones(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan { fallback: "primary", ..Plan::default() });
    let primary = FIVE_THREE_TWO[0];
    director.servers(&[
        primary,
        ("r1", "online", 500, 30_000),
        ("r2", "online", 300, 20_000),
        ("r3", "down", 200, 0),
    ]);
    until_table("d1", &as_strs(&usual(&[("r1", 0), ("r2", 300)])));
    assert_eq!(spread("c", vip(), 5), counts(&[("r2", 5)]));
    director.servers(&[primary, ("r1", "down", 500, 0), ("r2", "down", 300, 0), ("r3", "down", 200, 0)]);
    until_table("d1", &as_strs(&usual(&[("p", 1)])));
    assert_eq!(spread("c", vip(), 5), counts(&[("p", 5)]));
    director.kill();
    let mut director = Director::serving("d1", &Plan::default());
    director.servers(&[primary, ("r1", "down", 500, 0), ("r2", "down", 300, 0), ("r3", "down", 200, 0)]);
    until_table("d1", &as_strs(&usual(&[])));
    let start = Instant::now();
    let error = dial("c", vip(), WITHIN).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // 100 ms, and five times that in an emulated machine.
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    director.leave();
    Ok(())
}

pub(crate) fn port_reuse(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan::default());
    let from: SocketAddr = "10.0.0.2:40123".parse()?;
    let connect = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        // Ends with a reset, so that the client may use the port again at once.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.connect_timeout(&vip().into(), WITHIN)?;
        Ok(socket.into())
    };
    let first = inside("c", || greeted(connect()?, WITHIN))?;
    let drained = first.server.clone();
    let rows = FIVE_THREE_TWO.map(|row| if row.0 == drained { (row.0, "draining", row.2, 0) } else { row });
    director.servers(&rows);
    eventually("drained", LIMIT, || table("d1").iter().any(|row| row.ends_with(" 0")));
    drop(first);
    let start = Instant::now();
    let second = inside("c", || greeted(connect()?, WITHIN))?;
    assert_ne!(second.server, drained);
    // 200 ms, and five times that in an emulated machine.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    director.leave();
    Ok(())
}

pub(crate) fn idle(_: &Bed) -> Result<(), Failed> {
    let plan = Plan { idle_timeout: Duration::from_secs(4), ..Plan::default() };
    let director = Director::serving("d1", &plan);
    assert!(on("d1", "ipvsadm -l --timeout").contains(": 4 "));
    let mut open = dial("c", vip(), WITHIN)?;
    sleep(Duration::from_secs(7));
    let error = open.answers(LIMIT).expect_err("an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    director.leave();
    assert!(on("d1", "ipvsadm -l --timeout").contains(": 900 "), "put back");
    // With the kernel's own time-out the same pause is harmless.
    let director = Director::serving("d1", &Plan::default());
    let mut open = dial("c", vip(), WITHIN)?;
    sleep(Duration::from_secs(7));
    open.answers(WITHIN)?;
    director.leave();
    Ok(())
}

/// As docs/vip.md says that servers are set up.
fn set_up_for_direct_routing() {
    for server in ["r1", "r2", "r3"] {
        on(server, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        sh(&format!("ip -n {server} addr add 10.0.0.100/32 dev lo"));
    }
}

pub(crate) fn direct(_: &Bed) -> Result<(), Failed> {
    set_up_for_direct_routing();
    let director = Director::serving("d1", &Plan { forwarding: "direct", ..Plan::default() });
    assert!(table("d1")[1].contains(" -g 500"), "{:?}", table("d1"));
    assert_eq!(on("d1", "nft list ruleset"), "");
    let dialled = dial("c", vip(), WITHIN)?;
    assert_eq!(dialled.seen, "10.0.0.2", "servers see the client's own address");
    assert_eq!(spread("c", vip(), 10), counts(&[("r1", 5), ("r2", 3), ("r3", 2)]));
    director.leave();
    Ok(())
}

/// The kernel's own synchronisation, which is the host's to start, keeps a session over a move.
pub(crate) fn direct_synchronised(_: &Bed) -> Result<(), Failed> {
    set_up_for_direct_routing();
    for (host, role) in [("d1", "master"), ("d2", "backup")] {
        on(host, &format!("ipvsadm --start-daemon {role} --mcast-interface eth0"));
        on(host, "sysctl -qw net.ipv4.vs.sync_threshold=\"1 5\" net.ipv4.vs.sync_refresh_period=1");
    }
    let plan = |own: &str| Plan { forwarding: "direct", own: own.to_owned(), ..Plan::default() };
    let mut first = Director::serving("d1", &plan("60000"));
    let mut second = Director::start("d2", &plan("none"));
    second.servers(&FIVE_THREE_TWO);
    second.until("standby");
    let mut open = dial("c", vip(), WITHIN)?;
    eventually("the other one knows the connection", LIMIT, || {
        open.answers(WITHIN).expect("an answer");
        on("d2", "ipvsadm -Lnc").contains("ESTABLISHED")
    });
    assert_eq!(first.say("give_up"), true);
    second.say("own 60000");
    second.until("serving");
    open.answers(LIMIT)?;
    for (host, role) in [("d1", "master"), ("d2", "backup")] {
        on(host, &format!("ipvsadm --stop-daemon {role}"));
    }
    first.leave();
    second.leave();
    Ok(())
}

pub(crate) fn evict(_: &Bed) -> Result<(), Failed> {
    let mut director = Director::serving("d1", &Plan::default());
    let mut open = loop {
        let dialled = dial("c", vip(), WITHIN)?;
        if dialled.server == "r1" {
            break dialled;
        }
    };
    // The answer says that the kernel has done it: from here on nothing can reach the server through the address.
    assert_eq!(director.say("evict 1"), true);
    assert_eq!(table("d1"), usual(&[("r2", 300), ("r3", 200)]));
    let error = open.answers(LIMIT).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    // It stays out although it still looks like a replica.
    director.servers(&FIVE_THREE_TWO);
    sleep(Duration::from_secs(2));
    assert_eq!(table("d1"), usual(&[("r2", 300), ("r3", 200)]));
    director.leave();
    Ok(())
}
