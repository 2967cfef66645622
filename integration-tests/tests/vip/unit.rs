//! The Debian package's unit under a real systemd, with the settings that docs/vip.md gives it for the address.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use libtest_mimic::Failed;
use pointsman_integration_tests::program;

use crate::bed::{Bed, Serving, VIP, eventually, inside, on, sh, state_dir, vip};
use crate::stand::{
    ALONE, Proxy, START_LIMIT, Servers, configuration, log_file, log_in, socket, until_weight,
};

/// Its own user holds the address with two capabilities, and takes all of it away when the unit is stopped.
pub(crate) fn systemd(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    install(&configuration("d1", servers, &ALONE))?;
    let proxy = Proxy::new("d1", Serving(first_process().spawn()?));
    proxy.until("serving");
    for replica in servers.replicas() {
        until_weight(replica, Some(100));
    }
    assert!(fs::metadata(ADMIN_SOCKET)?.uid() != 0, "it runs as root");
    inside("c", || log_in(vip()))?;

    sh("nsenter -m -p -t $(pgrep -x systemd) systemctl stop pointsman");
    eventually("an end that leaves nothing", START_LIMIT, || {
        !on("d1", "ip addr show; ipvsadm -Ln; nft list ruleset").contains(VIP)
    });
    assert_eq!(on("d1", "nft list ruleset"), "");
    Ok(())
}

/// What the package installs, and what an administrator writes.
fn install(configuration: &str) -> Result<(), Failed> {
    sh("useradd --system pointsman; mkdir -p /etc/pointsman; touch /usr/bin/pointsman");
    sh(&format!("mount --bind {} /usr/bin/pointsman", program()?.display()));
    let configuration =
        configuration.replace(&socket("d1"), ADMIN_SOCKET).replace(&state_dir("d1"), "/var/lib/pointsman");
    fs::write("/etc/pointsman/pointsman.toml", configuration)?;
    sh("chown root:pointsman /etc/pointsman/pointsman.toml; chmod 640 /etc/pointsman/pointsman.toml");
    // Where this host's proxy is asked; an earlier one may have left its own.
    sh(&format!("ln -sfn {ADMIN_SOCKET} {}", socket("d1")));

    let settings = GUIDE.split_once("```ini\n").and_then(|(_, rest)| rest.split_once("```"));
    let (settings, _) = settings.ok_or("docs/vip.md has no settings for the unit")?;
    // No other unit of this machine is to be started in the guest.
    let unit: Vec<_> = UNIT.lines().filter(|line| !line.contains("network-online.target")).collect();
    let alone =
        format!("[Unit]\nDefaultDependencies=no\n[Service]\nStandardError=append:{}\n", log_file("d1"));
    fs::create_dir_all(format!("{UNITS}/pointsman.service.d"))?;
    for (file, text) in [
        ("pointsman.service", unit.join("\n").as_str()),
        ("pointsman.service.d/vip.conf", settings),
        ("pointsman.service.d/alone.conf", &alone),
        ("boot.target", "[Unit]\nWants=pointsman.service\n"),
    ] {
        fs::write(format!("{UNITS}/{file}"), text)?;
    }
    Ok(())
}

/// systemd, which thinks that it runs in a container; it ends with this process.
fn first_process() -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "d1", "unshare", "--pid", "--fork", "--kill-child", "--mount"]);
    command.args([
        "bash",
        "-ec",
        "mount -t proc proc /proc; mount -t cgroup2 cgroup2 /sys/fs/cgroup; \
         container=guest exec /lib/systemd/systemd --system --unit=boot.target --show-status=no",
    ]);
    command
}

const UNIT: &str = include_str!("../../../proxy/debian/pointsman.service");
const GUIDE: &str = include_str!("../../../docs/vip.md");
const UNITS: &str = "/run/systemd/system";
const ADMIN_SOCKET: &str = "/run/pointsman/admin.sock";
