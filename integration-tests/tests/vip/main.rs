//! The virtual address in a real kernel: each test asserts on what `ipvsadm`, `nft` and `ip` show, and on what
//! clients see. The tests run in a guest (`scripts/vm`), which this file starts once for all of them.

#![expect(clippy::disallowed_methods, reason = "plain threads in namespaces: nothing here is on a runtime")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures and faults of a test run are its output"
)]

mod agreeing;
mod bed;
mod director;
mod measured;
mod moving;
mod others;
mod replication;
mod scale;
mod serving;
mod stand;
mod unit;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use bed::Bed;

type Case = fn(&Bed) -> Result<(), Failed>;

/// The tests, by the number of the case in docs/vip.md.
const CASES: &[(&str, Case)] = &[
    ("01 a service is made exactly as configured", serving::create),
    ("01 ipv6", serving::create_ipv6),
    ("02 schedulers change in place", serving::schedulers),
    ("02 connections are spread as the scheduler says", serving::shares),
    ("03 lag drains and comes back", serving::lag),
    ("03 replication lags and stops, an open session goes on", replication::lag),
    ("04 a server is killed", replication::killed),
    ("04 ipv6", replication::killed_ipv6),
    ("05 a dead host resets its connections", serving::dead_host),
    ("06 all lagging, all dead, last resort", serving::last_ones),
    ("07 a reused port goes to another server", serving::port_reuse),
    ("08 idle connections", serving::idle),
    ("09 masquerading, and conntrack switched off", others::masquerade),
    ("10 a server and the director as clients", others::hairpin),
    ("11 what belongs to others stays", others::foreign),
    ("12 tampering is repaired", others::tampering),
    ("13 kill, restart and leave", others::restart),
    ("14 nothing known after a restart", others::partial),
    ("15 a planned move", moving::planned),
    ("15 ipv6", moving::planned_ipv6),
    ("15 two proxies with etcd, a planned move", agreeing::planned),
    ("16 and 17 two proxies with etcd, owner and etcd lost", agreeing::lost),
    ("16 the director dies or freezes", moving::crash),
    ("17 no lease store", moving::no_lease),
    ("18 direct routing", serving::direct),
    ("18 direct routing with the kernel's synchronisation", serving::direct_synchronised),
    ("19 scale", scale::scale),
    ("20 privileges", others::privileges),
    ("20 modules that are missing", others::modules),
    ("20 without IPVS the proxy goes on", measured::without_ipvs),
    ("the program", others::program),
    ("a session on a candidate is reset before it is writable", replication::promoted),
    ("every metric that is named exists", measured::metrics),
    ("sysbench through the address and through the proxy", measured::sysbench),
    ("a candidate for promotion loses its connections", serving::evict),
    ("the Debian unit under systemd", unit::systemd),
];

fn main() -> ExitCode {
    let mut arguments: Vec<_> = env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "director") {
        return director::run(&arguments.split_off(2));
    }
    if env::var_os(IN_GUEST).is_some() {
        return run_cases();
    }
    in_guest(&arguments)
}

/// Starts this very program in the guest.
fn in_guest(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--list") {
        return run_cases();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm");
    let mut guest = Command::new(script);
    guest.args(["-m", "2560", "-c", "2", "-t", LIMIT_SECONDS, "-e", &format!("{IN_GUEST}=1")]);
    if let Ok(program) = env::var(PROGRAM) {
        guest.args(["-e", &format!("{PROGRAM}={program}")]);
    }
    let status = guest.arg("--").args(arguments).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        outcome => {
            eprintln!("expected the tests in the guest to pass: {outcome:?}");
            ExitCode::FAILURE
        }
    }
}

fn run_cases() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one network.
    arguments.test_threads = Some(1);
    let bed: &'static Bed = Box::leak(Box::new(Bed::new()));
    let trial = |(name, case): &(&str, Case)| {
        let case = *case;
        Trial::test(*name, move || {
            bed.build();
            let _cleaned = Cleaned(bed);
            case(bed)
        })
    };
    libtest_mimic::run(&arguments, CASES.iter().map(trial).collect()).exit_code()
}

/// Cleans up also after a case that has panicked, so that the next one finds the bed as it expects it.
struct Cleaned(&'static Bed);

impl Drop for Cleaned {
    fn drop(&mut self) {
        self.0.clean();
    }
}

const IN_GUEST: &str = "POINTSMAN_IN_GUEST";
/// Another build of the program than the one beside the tests.
const PROGRAM: &str = "POINTSMAN_BIN";
const LIMIT_SECONDS: &str = "2400";
