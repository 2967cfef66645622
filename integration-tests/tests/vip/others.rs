//! Others on the same host: their things stay, ours are repaired; and a host that does not let us.

use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use crate::bed::{
    Bed, LIMIT, Serving, counts, dial, eventually, hide, inside, on, server, sh, show, spread, table, vip,
};
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

/// Killed when dropped.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The whole program, in front of servers that do not speak MySQL: none is up, and everything else is as ever.
pub(crate) fn program(_: &Bed) -> Result<(), Failed> {
    let program = pointsman_integration_tests::program().map_err(|error| error.to_string())?;
    let program = program.display();
    std::fs::write(
        "/run/pointsman.toml",
        "servers = [\"10.0.0.21:3306\", \"10.0.0.22:3306\"]\nuser = \"x\"\npassword = \"y\"\n\
         [vip]\naddress = \"10.0.0.100\"\n[listen.rw]\naddress = \"127.0.0.1:3307\"\n\
         [coordination]\nstate_dir = \"/run/pointsman-d1\"\n[drain]\ndelay = \"0s\"\n",
    )?;
    let mut serve = Serving(
        std::process::Command::new("ip")
            .args(["netns", "exec", "d1", &program.to_string(), "serve", "--config", "/run/pointsman.toml"])
            .spawn()?,
    );
    // The program is large, and read through the guest's shared directory.
    eventually("the address is here", START_LIMIT, || on("d1", "ip -o addr").contains("10.0.0.100/32"));
    assert_eq!(table("d1"), usual(&[]));
    let status = on("d1", &format!("{program} vip status"));
    assert!(
        status.starts_with("vip      10.0.0.100:3306    serving    wrr masquerade    0 servers"),
        "{status}"
    );
    let status = on("d1", &format!("{program} status || true"));
    assert!(status.contains("vip      10.0.0.100:3306    serving"), "{status}");
    let check = on("d1", &format!("{program} vip check --config /run/pointsman.toml"));
    assert!(check.contains("the kernel has IPVS") && !check.contains("error"), "{check}");
    serve.signal(Signal::SIGTERM);
    assert!(serve.0.wait()?.success());
    assert!(table("d1").is_empty());
    assert!(!on("d1", "ip -o link").contains("pointsman0"));
    assert_eq!(on("d1", "nft list ruleset"), "");
    Ok(())
}

pub(crate) fn partial(_: &Bed) -> Result<(), Failed> {
    let director = Director::serving("d1", &Plan::default());
    director.kill();
    let mut director = Director::start("d1", &Plan::default());
    let whole = usual(&[("r1", 500), ("r2", 300), ("r3", 200)]);
    for _ in 0..20 {
        director.say("unready");
        sleep(Duration::from_millis(250));
        assert_eq!(table("d1"), whole);
    }
    // One server has answered, the others have not been asked yet.
    let unknown = |name, weight| (name, "unknown", weight, 0);
    director.servers(&[FIVE_THREE_TWO[0], FIVE_THREE_TWO[1], unknown("r2", 300), unknown("r3", 200)]);
    director.until("serving");
    assert_eq!(table("d1"), whole);
    director.leave();
    Ok(())
}

/// A kernel that lacks a module is said to, and served when it has it.
pub(crate) fn modules(_: &Bed) -> Result<(), Failed> {
    for (modules, scheduler, expected) in [
        ("ip_vs_mh", "mh", "load ip_vs_wrr or the one of vip.scheduler on the host"),
        ("nft_masq", "wrr", "load nft_chain_nat, nft_ct and nft_masq on the host"),
    ] {
        hide(modules);
        let mut director = Director::start("d1", &Plan { scheduler, ..Plan::default() });
        director.servers(&FIVE_THREE_TWO);
        let view = director.until("unavailable");
        let reason = view["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(expected), "{modules}: {reason}");
        show(modules);
        // It is tried again each 30 s.
        eventually("served", Duration::from_secs(60), || director.say("status")["state"] == "serving");
        dial("c", vip(), WITHIN)?;
        director.leave();
    }
    Ok(())
}

pub(crate) fn privileges(_: &Bed) -> Result<(), Failed> {
    let refused = |under: &str, expected: &str| {
        let under = under.split(' ').map(str::to_owned).collect();
        let mut director = Director::start("d2", &Plan { under, ..Plan::default() });
        director.servers(&FIVE_THREE_TWO);
        let view = director.until("unavailable");
        let reason = view["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(expected), "{reason}");
        assert!(table("d2").is_empty());
    };
    refused("setpriv --bounding-set=-net_admin --inh-caps=-net_admin", "CAP_NET_ADMIN");
    refused("unshare --user --map-root-user", "CAP_NET_ADMIN");
    Ok(())
}
