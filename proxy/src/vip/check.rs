//! What the kernel lacks for the virtual address, and how to get it.

use std::fs;
use std::io;

use pointsman_config::{Config, Forwarding};

use super::Settings;
use super::ipvs::scheduler_name;
use super::kernel::{
    CHANGE_SERVICE, FIND_IPVS, Fault, Kernel, MAKE_SERVICE, OPEN_NAT, WRITE_NAT, WRITE_SETTINGS,
};
use super::sysctl;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "error",
        }
    }
}

/// A fault with what to do about it, for people.
pub(super) fn explain(fault: &Fault) -> String {
    let advice = match (fault.doing, fault.source.raw_os_error(), fault.source.kind()) {
        (FIND_IPVS, Some(ENOENT), _) | (FIND_IPVS, _, io::ErrorKind::NotFound) => {
            "the kernel has no IPVS: load the module ip_vs on the host (modprobe ip_vs); where modprobe does not find \
             it, boot a kernel with CONFIG_IP_VS, or do without the address and use listen.ro"
        }
        (OPEN_NAT, Some(EPROTONOSUPPORT), _) => {
            "the kernel has no nftables: load the modules nf_tables, nft_chain_nat, nft_ct and nft_masq on the host"
        }
        (MAKE_SERVICE | CHANGE_SERVICE, Some(ENOENT), _) => {
            "the kernel lacks the scheduler's module: load ip_vs_wrr or the one of vip.scheduler on the host"
        }
        (WRITE_NAT, Some(ENOENT | EOPNOTSUPP), _) => {
            "nftables lacks a module: load nft_chain_nat, nft_ct and nft_masq on the host"
        }
        (_, Some(EPERM | EACCES), _) | (_, _, io::ErrorKind::PermissionDenied) => {
            "CAP_NET_ADMIN is missing, or only held in a user namespace: give it on the host (and CAP_NET_RAW to \
             announce the address)"
        }
        (WRITE_SETTINGS, _, io::ErrorKind::ReadOnlyFilesystem) => {
            "/proc/sys is read-only here: set it on the host"
        }
        _ => return fault.to_string(),
    };
    format!("{fault}; {advice}")
}

/// Looks at what the address needs; changes nothing.
pub fn findings(config: &Config) -> Vec<Finding> {
    let Some(settings) = Settings::new(config) else {
        let message = "vip.address is not set: there is nothing to check".to_owned();
        return vec![Finding { what: "configuration", verdict: Verdict::Warning, message }];
    };
    let mut findings = vec![kernel_release(), capabilities()];
    match Kernel::open(&settings) {
        Ok(kernel) => {
            findings.push(good("ipvs", "the kernel has IPVS"));
            findings.push(good("interface", format!("{} answers towards clients", kernel.interface)));
            findings.extend(kernel_settings(&settings, &kernel.interface));
            findings.push(scheduler(&settings));
        }
        Err(fault) => {
            findings.push(Finding { what: "ipvs", verdict: Verdict::Bad, message: explain(&fault) });
            let message = "not looked at, for the reason above: interface, settings and scheduler".to_owned();
            findings.push(Finding { what: "the rest", verdict: Verdict::Warning, message });
        }
    }
    findings.extend(ports(config));
    findings
}

fn good(what: &'static str, message: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Good, message: message.into() }
}

fn kernel_release() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge_release(release.trim())
}

/// Before 5.9 a reused client port either waits a second or goes to a drained server.
fn judge_release(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= FIRST_GOOD_KERNEL {
        return good("kernel", format!("Linux {release}"));
    }
    let message = format!(
        "Linux {release} is older than 5.9: with net.ipv4.vs.conn_reuse_mode=1 clients that reuse a port wait a \
         second, with 0 they go back to a drained server"
    );
    Finding { what: "kernel", verdict: Verdict::Warning, message }
}

fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let initial_users = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    let lacking: Vec<_> = [("CAP_NET_ADMIN", CAP_NET_ADMIN), ("CAP_NET_RAW", CAP_NET_RAW)]
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| *name)
        .collect();
    if !lacking.is_empty() {
        let message = format!(
            "{} missing for this user: needed to program the kernel and to announce the address",
            lacking.join(" and ")
        );
        return Finding { what: "capabilities", verdict: Verdict::Bad, message };
    }
    if !initial_users {
        let message = "this is a user namespace: the kernel may refuse IPVS here; run on the host, or in a \
                       container with the host's users"
            .to_owned();
        return Finding { what: "capabilities", verdict: Verdict::Warning, message };
    }
    good("capabilities", "CAP_NET_ADMIN and CAP_NET_RAW are there")
}

fn kernel_settings(settings: &Settings, interface: &str) -> Vec<Finding> {
    let ipv6 = settings.service.address.is_ipv6();
    let mut findings = Vec::new();
    for (path, value) in sysctl::wanted(settings.policy.forwarding, ipv6, interface) {
        let name = path.replace('/', ".");
        let finding = match sysctl::read(&path) {
            Ok(now) if now == value => good("settings", format!("{name} = {value}")),
            Ok(now) => {
                good("settings", format!("{name} is {now}; serve sets it to {value} and back at its end"))
            }
            Err(error) => Finding { what: "settings", verdict: Verdict::Bad, message: error.to_string() },
        };
        findings.push(finding);
    }
    findings
}

fn scheduler(settings: &Settings) -> Finding {
    let module = format!("ip_vs_{}", scheduler_name(settings.policy.scheduler));
    let is_loaded = fs::read_to_string("/proc/modules")
        .is_ok_and(|modules| modules.lines().any(|line| line.split(' ').next() == Some(&*module)));
    if is_loaded {
        return good("scheduler", format!("{module} is loaded"));
    }
    good(
        "scheduler",
        format!("{module} is not loaded; the kernel loads it when the service is made, if it has it"),
    )
}

/// Without masquerading the kernel cannot translate ports.
fn ports(config: &Config) -> Vec<Finding> {
    if config.vip.forwarding == Forwarding::Masquerade {
        return Vec::new();
    }
    let other = config.servers.iter().filter(|server| {
        server.address.rsplit(':').next().and_then(|port| port.parse().ok()) != Some(config.vip.port)
    });
    let finding = |server: &pointsman_config::Server| Finding {
        what: "ports",
        verdict: Verdict::Bad,
        message: format!(
            "{} listens on another port than vip.port: only vip.forwarding = \"masquerade\" translates ports",
            server.address
        ),
    };
    other.map(finding).collect()
}

const FIRST_GOOD_KERNEL: (u32, u32) = (5, 9);
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;
/// Those with advice above.
pub(super) const ADVISED: [i32; 5] = [EPERM, ENOENT, EACCES, EPROTONOSUPPORT, EOPNOTSUPP];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_to_do() {
        let check = |doing, errno, expected: &str| {
            let text = explain(&Fault { doing, source: io::Error::from_raw_os_error(errno) });
            assert!(text.contains(expected), "{text}");
        };
        check(FIND_IPVS, ENOENT, "modprobe ip_vs");
        check("make the virtual service", ENOENT, "scheduler's module");
        check("make the virtual service", EPERM, "CAP_NET_ADMIN");
        check("add a server", 12, "add a server: ");
    }

    #[test]
    fn old_kernels_are_named() {
        assert_eq!(judge_release("5.8.18-generic").verdict, Verdict::Warning);
        assert_eq!(judge_release("4.19.0").verdict, Verdict::Warning);
        assert_eq!(judge_release("5.9.0-rc1").verdict, Verdict::Good);
        assert_eq!(judge_release("6.1.0-56-amd64").verdict, Verdict::Good);
    }
}
