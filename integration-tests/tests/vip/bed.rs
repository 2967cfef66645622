//! A switched network of namespaces: a client, two directors, a primary and three replicas that say their names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const VIP: &str = "10.0.0.100";
pub(crate) const VIP6: &str = "fd00::100";
pub(crate) const PORT: u16 = 3306;
/// The guest's own host, where real servers run.
pub(crate) const SERVERS: &str = "10.0.0.30";
pub(crate) const SERVERS6: &str = "fd00::30";
/// The emulated machine is slow, and nothing waits for this long when all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Namespace and last byte of its addresses.
const HOSTS: [(&str, u8); 7] =
    [("c", 2), ("d1", 11), ("d2", 12), ("p", 20), ("r1", 21), ("r2", 22), ("r3", 23)];

#[derive(Debug)]
pub(crate) struct Bed {
    built: Once,
}

/// A connection through the virtual address.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) server: String,
    /// Whom the server took for its client.
    pub(crate) seen: String,
    pub(crate) stream: TcpStream,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self { built: Once::new() }
    }

    pub(crate) fn build(&self) {
        self.built.call_once(|| {
            sh("ip netns add sw; ip -n sw link add br0 type bridge forward_delay 0; ip -n sw link set br0 up");
            for (name, number) in HOSTS {
                sh(&format!(
                    "ip netns add {name}; ip link add {name} netns sw type veth peer name eth0 netns {name}; \
                     ip -n sw link set {name} master br0 up; ip -n {name} link set lo up; \
                     ip -n {name} addr add 10.0.0.{number}/24 dev eth0; \
                     ip -n {name} addr add fd00::{number}/64 dev eth0 nodad; ip -n {name} link set eth0 up"
                ));
            }
            sh(&format!(
                "ip link add servers type veth peer name servers netns sw; \
                 ip -n sw link set servers master br0 up; ip addr add {SERVERS}/24 dev servers; \
                 ip addr add {SERVERS6}/64 dev servers nodad; ip link set servers up"
            ));
            for name in ["p", "r1", "r2", "r3"] {
                serve(name);
            }
        });
    }

    /// Takes away what a failed test has left.
    pub(crate) fn clean(&self) {
        for director in ["d1", "d2"] {
            // Nothing there is fine, of all these.
            drop(run(&format!(
                "ip -n {director} link set eth0 up; ip netns exec {director} ipvsadm -C; \
                 ip netns exec {director} ipvsadm --stop-daemon master; \
                 ip netns exec {director} ipvsadm --stop-daemon backup; ip -n {director} link del pointsman0; \
                 ip -n {director} addr del {VIP6}/128 dev eth0; ip -n {director} addr del {VIP}/32 dev eth0; \
                 ip netns exec {director} nft flush ruleset; rm -rf {}",
                state_dir(director)
            )));
        }
        for server in ["p", "r1", "r2", "r3"] {
            drop(run(&format!("ip -n {server} addr del {VIP}/32 dev lo")));
        }
        drop(run("ip -n r3 link set eth0 up; ip -n c neigh flush all"));
        // An interface that was down has lost its IPv6 address.
        for (host, number) in HOSTS {
            drop(run(&format!("ip -n {host} addr replace fd00::{number}/64 dev eth0 nodad")));
        }
        drop(run(&format!("rm {HIDDEN} && modprobe -a $(cat /run/vm/modules)")));
    }
}

/// Takes modules away, and keeps the kernel from loading them.
pub(crate) fn hide(modules: &str) {
    let hidden: String = modules.split(' ').map(|name| format!("install {name} /bin/false\n")).collect();
    fs::write(HIDDEN, hidden).expect("a file");
    sh(&format!("modprobe -r {modules}"));
}

/// Brings them back.
pub(crate) fn show(modules: &str) {
    fs::remove_file(HIDDEN).expect("a file");
    sh(&format!("modprobe -a {modules}"));
}

/// Ends what runs beside a body when that ends, or panics: a scope waits for its threads.
#[derive(Debug)]
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A process of a test; killed when dropped.
#[derive(Debug)]
pub(crate) struct Serving(pub(crate) Child);

impl Serving {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a process");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn state_dir(director: &str) -> String {
    format!("/run/pointsman-{director}")
}

pub(crate) fn vip() -> SocketAddr {
    SocketAddr::new(VIP.parse().expect("an address"), PORT)
}

pub(crate) fn vip6() -> SocketAddr {
    SocketAddr::new(VIP6.parse().expect("an address"), PORT)
}

/// The address of a host's server.
pub(crate) fn server(name: &str) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number(name)], PORT))
}

pub(crate) fn server6(name: &str) -> SocketAddr {
    let number = u16::from_str_radix(&number(name).to_string(), 16).expect("a number");
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)), PORT)
}

fn number(name: &str) -> u8 {
    HOSTS.iter().find(|(host, _)| *host == name).map(|(_, number)| *number).expect("a host of the bed")
}

/// Runs shell commands; what they print.
///
/// # Panics
///
/// When they fail.
pub(crate) fn sh(commands: &str) -> String {
    run(&format!("set -e; {commands}")).unwrap_or_else(|error| panic!("{commands}: {error}"))
}

fn run(commands: &str) -> Result<String, String> {
    let output = Command::new("bash").args(["-c", commands]).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs shell commands in a host.
pub(crate) fn on(host: &str, commands: &str) -> String {
    sh(&format!("ip netns exec {host} bash -ec '{commands}'"))
}

/// Runs `work` on a thread that is in a host's namespace.
pub(crate) fn inside<T: Send>(host: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{host}")).expect("a namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("to enter a namespace");
            work()
        });
        inside.join().expect("work in a namespace to end")
    })
}

/// One connection from a host, with the line that the server says first.
pub(crate) fn dial(host: &str, to: SocketAddr, within: Duration) -> std::io::Result<Dialled> {
    inside(host, || dial_here(to, within))
}

pub(crate) fn dial_here(to: SocketAddr, within: Duration) -> std::io::Result<Dialled> {
    let stream = TcpStream::connect_timeout(&to, within)?;
    greeted(stream, within)
}

pub(crate) fn greeted(stream: TcpStream, within: Duration) -> std::io::Result<Dialled> {
    stream.set_read_timeout(Some(within))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(server), Some(seen)) = (words.next(), words.next()) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    Ok(Dialled { server, seen, stream })
}

impl Dialled {
    /// Whether the server still answers on this connection.
    pub(crate) fn answers(&mut self, within: Duration) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(within))?;
        self.stream.write_all(b"x")?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte)
    }
}

/// How many of `count` connections, one after the other, came to each server.
pub(crate) fn spread(host: &str, to: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    inside(host, || {
        let mut servers = BTreeMap::new();
        for _ in 0..count {
            let name = dial_here(to, LIMIT).map_or_else(|error| error.to_string(), |dialled| dialled.server);
            *servers.entry(name).or_default() += 1;
        }
        servers
    })
}

pub(crate) fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// The kernel's table of a director, one line a service or server: `wrr 10.0.0.100:3306` and
/// `10.0.0.21:3306 masq 500`.
pub(crate) fn table(director: &str) -> Vec<String> {
    let rows = on(director, "ipvsadm -Sn");
    let row = |row: &str| {
        let words: Vec<_> = row.split_whitespace().collect();
        match words[..] {
            ["-A", _, service, "-s", scheduler, ..] => format!("{scheduler} {service}"),
            ["-a", _, _, "-r", server, way, "-w", weight, ..] => format!("{server} {way} {weight}"),
            _ => row.to_owned(),
        }
    };
    rows.lines().map(row).collect()
}

/// Asks again and again until the answer is yes.
///
/// # Panics
///
/// When it takes too long.
pub(crate) fn eventually(what: &str, within: Duration, mut question: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !question() {
        assert!(start.elapsed() < within, "expected within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// A server in a host's namespace that says its name and its client's address, then echoes.
fn serve(name: &'static str) {
    let listener = inside(name, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a listener"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let Ok(peer) = stream.peer_addr() else { return };
                let line = format!("{name} {}\n", peer.ip().to_canonical());
                let mut bytes = [0; 1024];
                if stream.write_all(line.as_bytes()).is_err() {
                    return;
                }
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

const HIDDEN: &str = "/etc/modprobe.d/hidden.conf";
