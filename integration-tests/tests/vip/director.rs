//! A director of its own process, told by lines what the proxy's control plane would tell it; and the other end.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pointsman::vip::{Addresses, Handle, Ownership, Settings};
use pointsman_config::{Forwarding, Scheduler, VipFallback};
use pointsman_router::topology::{Role, ServerId, ServerView, State, Topology};
use pointsman_router::vip::{Policy, ServiceKey};
use serde_json::{Value, json};

use crate::bed::{LIMIT, PORT, VIP, server, state_dir, vip};

/// How a director is started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: String,
    pub(crate) scheduler: &'static str,
    pub(crate) forwarding: &'static str,
    pub(crate) fallback: &'static str,
    pub(crate) drain: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) slow_start: Duration,
    /// `alone`, `none`, or milliseconds from now.
    pub(crate) own: String,
    /// Words in front of the program.
    pub(crate) under: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            address: VIP.to_owned(),
            scheduler: "wrr",
            forwarding: "masquerade",
            fallback: "none",
            drain: Duration::from_secs(60),
            idle_timeout: Duration::ZERO,
            slow_start: Duration::ZERO,
            own: "alone".to_owned(),
            under: Vec::new(),
        }
    }
}

/// A running director; killed when dropped.
#[derive(Debug)]
pub(crate) struct Director {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// One server of the topology: name, state as in `pointsman status`, weight, lag in ms.
pub(crate) type Row<'a> = (&'a str, &'a str, u32, u64);

/// The primary and replicas of the usual weights, all online.
pub(crate) const FIVE_THREE_TWO: [Row<'static>; 4] =
    [("p", "primary", 100, 0), ("r1", "online", 500, 0), ("r2", "online", 300, 0), ("r3", "online", 200, 0)];

impl Director {
    pub(crate) fn start(host: &str, plan: &Plan) -> Self {
        let program = env::current_exe().expect("this program");
        let mut child = Command::new("ip")
            .args(["netns", "exec", host])
            .args(&plan.under)
            .arg(program)
            .args(["director", host, &plan.address, plan.scheduler, plan.forwarding, plan.fallback])
            .args([millis(plan.drain), millis(plan.idle_timeout), millis(plan.slow_start), plan.own.clone()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a director");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// Started on a host with the usual servers, and in step.
    pub(crate) fn serving(host: &str, plan: &Plan) -> Self {
        let mut director = Self::start(host, plan);
        director.servers(&FIVE_THREE_TWO);
        director.until("serving");
        director
    }

    /// Says something and reads the answer, which comes when the kernel has been told.
    pub(crate) fn say(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").expect("a director that listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("a director that answers");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    pub(crate) fn servers(&mut self, rows: &[Row<'_>]) {
        let servers: Vec<_> =
            rows.iter().map(|(name, state, weight, lag)| json!([name, state, weight, lag])).collect();
        self.say(&format!("servers {}", Value::from(servers)));
    }

    /// Waits until the view says this state without a reason.
    pub(crate) fn until(&mut self, state: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let view = self.say("status");
            if view["state"] == state {
                return view;
            }
            assert!(Instant::now() < deadline, "expected {state}, got {view}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a process");
    }

    /// Ends it without a chance to clean up.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Lets it take away what it has made.
    pub(crate) fn leave(mut self) {
        self.say("leave");
        self.child.wait().expect("an end");
    }

    fn end(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.end();
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// The other end: one line, one answer.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [host, address, scheduler, forwarding, fallback, drain, idle, slow_start, own] = arguments else {
        return ExitCode::FAILURE;
    };
    let duration = |text: &String| Duration::from_millis(text.parse().unwrap_or(0));
    let policy = Policy {
        scheduler: named::<Scheduler>(scheduler),
        forwarding: named::<Forwarding>(forwarding),
        fallback: named::<VipFallback>(fallback),
        lag: pointsman_config::Lag { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) },
        dwell: Duration::from_secs(2),
        slow_start: duration(slow_start),
        drain: duration(drain),
    };
    let settings = Settings {
        service: ServiceKey { address: address.parse().expect("an address"), port: PORT },
        interface: None,
        link: "pointsman0".to_owned(),
        idle_timeout: duration(idle),
        policy,
        state_dir: PathBuf::from(state_dir(host)),
    };
    let handle = Handle::start(settings, ownership(own)).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut output = std::io::stdout();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match word {
            "servers" => {
                let (topology, addresses) = picture(rest, address.contains(':'));
                handle.servers(Arc::new(topology), addresses);
                Value::Null
            }
            "unready" => {
                handle.servers(Arc::default(), Addresses::new());
                Value::Null
            }
            "own" => {
                handle.own(ownership(rest));
                Value::Null
            }
            "give_up" => runtime.block_on(handle.give_up()).into(),
            "evict" => runtime.block_on(handle.evict(ServerId(rest.parse().expect("a number")))).into(),
            "leave" => {
                runtime.block_on(handle.leave());
                Value::Null
            }
            _ => handle.view().document(),
        };
        writeln!(output, "{answer}").expect("somebody who reads");
        output.flush().expect("somebody who reads");
        if word == "leave" {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(Value::from(name)).expect("a word of the configuration")
}

fn ownership(text: &str) -> Ownership {
    match text {
        "alone" => Ownership::Alone,
        "none" => Ownership::None,
        millis => Ownership::Until(Instant::now() + Duration::from_millis(millis.parse().expect("a number"))),
    }
}

fn picture(rows: &str, ipv6: bool) -> (Topology, Addresses) {
    let rows: Vec<(String, String, u32, u64)> = serde_json::from_str(rows).expect("servers");
    let mut topology = Topology { ready: true, ..Topology::default() };
    let mut addresses = Addresses::new();
    for (number, (name, state, weight, lag)) in (0..).zip(rows) {
        let id = ServerId(number);
        let is_primary = state == "primary";
        if is_primary {
            topology.primary = Some(id);
        }
        let address: SocketAddr = if ipv6 { crate::bed::server6(&name) } else { server(&name) };
        addresses.insert(id, address);
        topology.servers.push(ServerView {
            id,
            name,
            address: address.to_string(),
            weight,
            zone: String::new(),
            role: if is_primary { Role::Primary } else { Role::Replica },
            state: match state.as_str() {
                "lagging" => State::Lagging,
                "draining" => State::Draining,
                "excluded" => State::Excluded,
                "down" => State::Down,
                "unknown" => State::Unknown,
                _ => State::Online,
            },
            reason: String::new(),
            lag: Some(Duration::from_millis(lag)),
            position: pointsman_router::gtid::GtidSet::default(),
            position_at: Duration::ZERO,
            online_since: Duration::ZERO,
            read_only: !is_primary,
            version: String::new(),
        });
    }
    (topology, addresses)
}

/// Waits until the kernel's table of a host is this one.
pub(crate) fn until_table(host: &str, expected: &[&str]) -> Duration {
    crate::bed::eventually(&format!("{expected:?}, got {:?}", crate::bed::table(host)), LIMIT, || {
        crate::bed::table(host) == expected
    })
}

/// The usual service with these servers and weights.
pub(crate) fn usual(servers: &[(&str, u32)]) -> Vec<String> {
    let mut rows = vec![format!("wrr {}", vip())];
    rows.extend(servers.iter().map(|(name, weight)| format!("{} -m {weight}", server(name))));
    rows
}
