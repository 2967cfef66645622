//! What proxies say of themselves in their sessions at the coordinator.

use pointsman_router::failover::{Mark, Message};
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Says {
    /// The sender holds writes and has dropped every connection of an epoch before.
    fenced: u64,
    /// What it has acknowledged to clients; none where that is not known.
    mark: Option<String>,
}

pub(super) fn fenced(epoch: u64, mark: &Mark) -> String {
    let says = Says { fenced: epoch, mark: mark.known().map(ToString::to_string) };
    // Two plain fields can always be written.
    serde_json::to_string(&says).unwrap_or_default()
}

pub(super) fn parse(text: &str) -> Option<Message> {
    let says: Says = serde_json::from_str(text).ok()?;
    let mark = match says.mark {
        None => Mark::Unknown,
        Some(text) => {
            // Only MySQL's sets have colons.
            let flavour = if text.contains(':') { Flavour::Mysql } else { Flavour::Mariadb };
            Mark::Known(GtidSet::parse(flavour, &text).ok()?)
        }
    };
    Some(Message::Fenced { epoch: says.fenced, mark })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let position = GtidSet::parse(Flavour::Mariadb, "0-1-7").unwrap();
        for mark in [Mark::Unknown, Mark::Known(position), Mark::Known(GtidSet::default())] {
            assert_eq!(parse(&fenced(7, &mark)), Some(Message::Fenced { epoch: 7, mark }));
        }
        assert_eq!(parse(""), None);
    }
}
