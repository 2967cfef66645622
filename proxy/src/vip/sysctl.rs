//! Kernel settings of this network namespace that forwarding needs: set, looked at again, and put back at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use pointsman_config::Forwarding;

/// Settings and their values, by their path below `/proc/sys`.
pub(super) type Settings = BTreeMap<String, String>;

/// What forwarding of this kind needs.
pub(super) fn wanted(forwarding: Forwarding, ipv6: bool, interface: &str) -> Settings {
    let mut settings = Settings::new();
    let mut set = |path: &str, value: &str| settings.insert(path.to_owned(), value.to_owned());
    // A client of a server that was deleted is told so at its next packet, and does not hang.
    set("net/ipv4/vs/expire_nodest_conn", "1");
    if forwarding == Forwarding::Masquerade {
        // Without it IPVS' packets are not tracked, and NAT never sees them.
        set("net/ipv4/vs/conntrack", "1");
        if ipv6 {
            set("net/ipv6/conf/all/forwarding", "1");
        } else {
            set("net/ipv4/ip_forward", "1");
        }
    }
    if !ipv6 {
        // Forwarding turns redirects on, which would tell clients of the same network to go round us. The larger of
        // the two counts.
        set("net/ipv4/conf/all/send_redirects", "0");
        set(&format!("net/ipv4/conf/{interface}/send_redirects"), "0");
    }
    settings
}

/// Writes what differs and returns what was there before.
pub(super) fn ensure(wanted: &Settings) -> io::Result<Settings> {
    let mut changed = Settings::new();
    for (path, value) in wanted {
        let before = read(path)?;
        if before != *value {
            write(path, value)?;
            changed.insert(path.clone(), before);
        }
    }
    Ok(changed)
}

/// Puts back what was there before, where nobody has set something else since.
pub(super) fn restore(before: &Settings, ours: &Settings) -> io::Result<()> {
    for (path, value) in before {
        // The setting goes with its module or link.
        let Ok(now) = read(path) else { continue };
        if ours.get(path) == Some(&now) {
            write(path, value)?;
        }
    }
    Ok(())
}

/// The value of a setting.
pub(super) fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(file(path)).map(|text| text.trim().to_owned()).map_err(|error| named(path, &error))
}

fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(file(path), value).map_err(|error| named(path, &error))
}

fn file(path: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(path)
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("setting {}: {error}", path.replace('/', ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_forwarding_has_its_settings() {
        let check = |forwarding, ipv6, expected: &[&str]| {
            let settings = wanted(forwarding, ipv6, "eth0.7");
            assert_eq!(settings.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        };
        let masquerade = [
            "net/ipv4/conf/all/send_redirects",
            "net/ipv4/conf/eth0.7/send_redirects",
            "net/ipv4/ip_forward",
            "net/ipv4/vs/conntrack",
            "net/ipv4/vs/expire_nodest_conn",
        ];
        check(Forwarding::Masquerade, false, &masquerade);
        check(Forwarding::Direct, true, &["net/ipv4/vs/expire_nodest_conn"]);
    }
}
