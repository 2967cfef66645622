//! Two proxies that agree through a real etcd whose the address is.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use crate::bed::{Bed, VIP, eventually, inside, sh, vip};
use crate::moving::{Dialling, dialling, has_address};
use crate::stand::{ALONE, LEASE, Proxy, START_LIMIT, Servers, Setup, log_in};

const TOGETHER: Setup = Setup { with_etcd: true, ..ALONE };
const LOGINS: Dialling = Dialling { address: VIP, dial: || log_in(vip()).is_ok() };

const AT_ONCE: Duration = Duration::from_millis(300);

/// Who has the address on its host.
fn holders() -> Vec<&'static str> {
    ["d1", "d2"].into_iter().filter(|host| inside(host, || has_address(VIP))).collect()
}

/// Two of them, and which one has the address.
struct Pair {
    proxies: [Proxy; 2],
    owner: usize,
}

impl Pair {
    fn start(servers: &Servers) -> Self {
        let proxies = ["d1", "d2"].map(|host| Proxy::start(host, servers, &TOGETHER));
        let owner = new_owner(&proxies);
        proxies[1 - owner].until("standby");
        Self { proxies, owner }
    }

    fn owner(&self) -> &Proxy {
        &self.proxies[self.owner]
    }

    fn other(&self) -> &Proxy {
        &self.proxies[1 - self.owner]
    }

    /// What `change` does makes the other one the owner, with no failed login; says how long that took.
    fn moves_without_a_failure(&mut self, change: impl FnOnce(&Proxy)) -> Duration {
        let mut took = Duration::ZERO;
        let (failed, both) = dialling(&LOGINS, || {
            let begun = Instant::now();
            change(self.owner());
            eventually("the other one has it", START_LIMIT, || holders() == [self.other().host]);
            took = begun.elapsed();
            // What was dropped meanwhile is sent again within a second.
            std::thread::sleep(Duration::from_secs(2));
        });
        assert_eq!((failed, both), (0, 0), "failed logins, moments with two owners");
        self.owner = 1 - self.owner;
        took
    }

    /// What `fault` does to the owner lets new connections through within its lease and a second.
    fn is_replaced(&mut self, what: &str, fault: impl FnOnce(&Proxy)) {
        let mut took = Duration::ZERO;
        let (_, both) = dialling(&LOGINS, || {
            let begun = Instant::now();
            fault(self.owner());
            // One that began before the new owner said where it is comes through a second later.
            eventually("a new connection", START_LIMIT, || {
                holders().contains(&self.other().host)
                    && inside("c", || TcpStream::connect_timeout(&vip(), AT_ONCE).is_ok())
            });
            took = begun.elapsed();
            assert!(inside("c", LOGINS.dial));
        });
        println!("{what}: new connections after {} ms", took.as_millis());
        assert_eq!(both, 0, "{what}: moments with two owners");
        assert!(took < LEASE + Duration::from_secs(1), "{what}: {took:?}");
        self.owner = 1 - self.owner;
    }
}

fn new_owner(proxies: &[Proxy; 2]) -> usize {
    eventually("one has the address", START_LIMIT, || holders().len() == 1);
    let at = usize::from(holders() == [proxies[1].host]);
    proxies[at].until("serving");
    at
}

pub(crate) fn planned(_: &Bed) -> Result<(), Failed> {
    let mut pair = Pair::start(Servers::get());
    let refused = pair.other().command(&["vip", "move"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("does not have the virtual address"), "{said}");
    pair.moves_without_a_failure(|owner| println!("{}", owner.done(&["vip", "move"])));
    // The end of the process gives it away at once, too.
    let took = pair.moves_without_a_failure(|owner| owner.signal(Signal::SIGTERM));
    println!("the end of the owner: moved after {} ms", took.as_millis());
    assert!(took < LEASE, "{took:?}");
    pair.proxies.into_iter().for_each(Proxy::leave);
    Ok(())
}

pub(crate) fn lost(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    let mut pair = Pair::start(servers);
    pair.is_replaced("kill -9 of the owner", |owner| owner.signal(Signal::SIGKILL));
    let at = 1 - pair.owner;
    pair.proxies[at] = Proxy::start(pair.other().host, servers, &TOGETHER);
    pair.other().until("standby");

    let link = |host: &str, state: &str| sh(&format!("ip -n {host} link set eth0 {state}"));
    pair.is_replaced("the owner's network is down", |owner| drop(link(owner.host, "down")));
    link(pair.other().host, "up");
    pair.other().until("standby");

    // Nobody can say any more whose it is.
    let (_, both) = dialling(&LOGINS, || {
        let begun = Instant::now();
        servers.etcd.signal(Signal::SIGSTOP);
        eventually("nobody has the address", START_LIMIT, || holders().is_empty());
        assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
        servers.etcd.signal(Signal::SIGCONT);
        eventually("somebody has it again", START_LIMIT, || inside("c", LOGINS.dial));
    });
    assert_eq!(both, 0, "moments with two owners");
    pair.proxies.into_iter().for_each(Proxy::leave);
    Ok(())
}
