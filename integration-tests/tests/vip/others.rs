//! Others on the same host: their things stay, ours are repaired; and a host that does not let us.

use std::time::Duration;

use libtest_mimic::Failed;

use crate::bed::{Bed, LIMIT, counts, dial, eventually, inside, on, server, sh, spread, table, vip};
use crate::director::{Director, FIVE_THREE_TWO, Plan, usual};

const WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn masquerade(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    assert_eq!(dial("c", vip(), WITHIN)?.seen, "10.0.0.11", "servers see the director");
    on("d1", "sysctl -qw net.ipv4.vs.conntrack=0");
    eventually("conntrack is on again", LIMIT, || on("d1", "sysctl -n net.ipv4.vs.conntrack") == "1");
    assert_eq!(dial("c", vip(), WITHIN)?.seen, "10.0.0.11");
    director.leave();
    Ok(())
}

pub(crate) fn hairpin(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    for client in ["r1", "d1"] {
        assert_eq!(spread(client, vip(), 20), counts(&[("r1", 10), ("r2", 6), ("r3", 4)]), "{client}");
    }
    director.leave();
    Ok(())
}

/// What others may have: a service, a NAT table, an address.
const FOREIGN: &str = "ipvsadm -A -t 10.0.0.77:80 -s rr; ipvsadm -a -t 10.0.0.77:80 -r 10.0.0.21:80 -m -w 7; \
    ipvsadm -A -u 10.0.0.77:53 -s rr; ipvsadm -A -f 9 -s wlc; \
    nft add table ip theirs; nft add chain ip theirs c; nft add rule ip theirs c counter; \
    ip link add theirs0 type dummy; ip addr add 10.0.0.77/32 dev theirs0";

fn foreign_state() -> String {
    let ipvs = on("d1", "ipvsadm -Sn");
    let ipvs: Vec<_> = ipvs.lines().filter(|line| !line.contains(&vip().to_string())).collect();
    let nft = on("d1", "nft list table ip theirs");
    let address = on("d1", "ip -o addr show dev theirs0");
    format!("{ipvs:?}\n{nft}\n{address}")
}

pub(crate) fn foreign(_: &Bed) -> Result<(), Failed> {
    on("d1", FOREIGN);
    let before = foreign_state();
    let mut director = Director::serving("d1", &Plan::default());
    assert_eq!(foreign_state(), before, "after the start");
    let start = director.say("status")["generation"].as_u64().unwrap_or(0);
    for number in 0..500_u32 {
        let weight = 100 + number % 2;
        director.servers(&[
            FIVE_THREE_TWO[0],
            ("r1", "online", weight, 0),
            ("r2", "online", 201 - weight, 0),
        ]);
    }
    eventually("a thousand changes", LIMIT, || {
        director.say("status")["generation"].as_u64().is_some_and(|now| now >= start + 1_000)
    });
    assert_eq!(foreign_state(), before, "after changes");
    director.kill();
    assert_eq!(foreign_state(), before, "after a crash");
    let director = Director::serving("d1", &Plan::default());
    director.leave();
    assert_eq!(foreign_state(), before, "after the end");
    on("d1", "ipvsadm -C; nft delete table ip theirs; ip link del theirs0");
    Ok(())
}

pub(crate) fn tampering(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    let whole = usual(&[("r1", 500), ("r2", 300), ("r3", 200)]);
    let mut open = loop {
        let dialled = dial("c", vip(), WITHIN)?;
        if dialled.server == "r1" {
            break dialled;
        }
    };
    let (service, r2, r3) = (vip(), server("r2"), server("r3"));
    for damage in [
        format!("ipvsadm -d -t {service} -r {r2}"),
        format!("ipvsadm -e -t {service} -r {r3} -m -w 9"),
        format!("ipvsadm -a -t {service} -r 10.0.0.99:3306 -m -w 9"),
        format!("ipvsadm -E -t {service} -s rr"),
    ] {
        on("d1", &damage);
        eventually(&damage, LIMIT, || table("d1") == whole);
        // What was not damaged was not touched.
        open.answers(WITHIN)?;
    }
    on("d1", "nft flush set ip pointsman vips");
    eventually("the element is back", LIMIT, || {
        on("d1", "nft list set ip pointsman vips").contains("10.0.0.100")
    });
    on("d1", "nft flush chain ip pointsman post");
    eventually("the rule is back", LIMIT, || on("d1", "nft list table ip pointsman").contains("masquerade"));
    sh("ip -n d1 addr del 10.0.0.100/32 dev pointsman0");
    eventually("the address is back", LIMIT, || on("d1", "ip -o addr").contains("10.0.0.100/32"));
    open.answers(WITHIN)?;
    on("d1", "ipvsadm -C");
    eventually("the service is back", LIMIT, || table("d1") == whole);
    assert_eq!(spread("c", vip(), 10), counts(&[("r1", 5), ("r2", 3), ("r3", 2)]));
    director.leave();
    Ok(())
}

pub(crate) fn restart(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    let mut open = dial("c", vip(), WITHIN)?;
    director.kill();
    assert_eq!(
        spread("c", vip(), 10),
        counts(&[("r1", 5), ("r2", 3), ("r3", 2)]),
        "a crash leaves it running"
    );
    on("d1", &format!("ipvsadm -e -t {} -r {} -m -w 0", vip(), server("r2")));
    let dials = std::thread::spawn(|| {
        inside("c", || (0..60).filter(|_| crate::bed::dial_here(vip(), WITHIN).is_err()).count())
    });
    let director = Director::serving("d1", &Plan::default());
    assert_eq!(
        table("d1"),
        usual(&[("r1", 500), ("r2", 300), ("r3", 200)]),
        "adopted, and the weight put right"
    );
    let failed = dials.join().map_err(|_| "the dialling thread")?;
    assert_eq!(failed, 0, "no dial fails while a later life takes over");
    open.answers(WITHIN)?;
    director.leave();
    assert!(table("d1").is_empty());
    Ok(())
}
