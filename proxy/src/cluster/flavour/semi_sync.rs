//! Reads semi-synchronous settings and status, whose names differ by flavour and version in one word only.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::discover::SemiSync;

use crate::cluster::connection::{Record, is_on};

/// Reads both answers, variables and status: rows of name and value, or a column for each name.
pub(super) fn read(answers: &[Vec<Record>]) -> SemiSync {
    let pairs = answers.iter().flatten().flat_map(|row| {
        let listed = row.text(&["Variable_name"]).map(|name| vec![(name, row.at(1).unwrap_or_default())]);
        listed.unwrap_or_else(|| row.pairs())
    });
    from_pairs(pairs)
}

fn from_pairs(pairs: impl Iterator<Item = (String, String)>) -> SemiSync {
    let values: BTreeMap<String, String> = pairs.map(|(name, value)| (neutral(&name), value)).collect();
    let on = |name: &str| values.get(name).is_some_and(|value| is_on(value));
    let number = |name: &str| values.get(name).and_then(|value| value.parse::<u64>().ok());
    let small = |name: &str| number(name).and_then(|value| u32::try_from(value).ok());
    SemiSync {
        source: on("source_enabled"),
        replica: on("replica_enabled"),
        acknowledges: on("replica_status"),
        active: on("source_status"),
        after_sync: values
            .get("source_wait_point")
            .is_some_and(|point| point.eq_ignore_ascii_case("AFTER_SYNC")),
        waits_alone: on("source_wait_no_replica"),
        timeout: Duration::from_millis(number("source_timeout").unwrap_or_default()),
        ackers: small("source_clients").unwrap_or_default(),
        // MariaDB has no such setting: one acknowledgement is enough.
        wait_for: small("source_wait_for_replica_count").unwrap_or(1),
    }
}

/// `rpl_semi_sync_master_wait_for_slave_count` and its newer name both become `source_wait_for_replica_count`.
fn neutral(name: &str) -> String {
    let name = name.to_lowercase().replace("master", "source").replace("slave", "replica");
    name.strip_prefix("rpl_semi_sync_").unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: SemiSync) {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        assert_eq!(from_pairs(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))), expected);
    }

    #[test]
    fn reads_every_spelling() {
        let expected = SemiSync {
            source: true,
            replica: false,
            acknowledges: true,
            active: true,
            after_sync: true,
            waits_alone: true,
            timeout: Duration::from_secs(10),
            ackers: 2,
            wait_for: 1,
        };
        check(
            "rpl_semi_sync_master_enabled=ON rpl_semi_sync_slave_enabled=OFF rpl_semi_sync_master_timeout=10000 \
             rpl_semi_sync_master_wait_point=AFTER_SYNC \
             rpl_semi_sync_master_wait_no_slave=ON Rpl_semi_sync_master_clients=2 \
             Rpl_semi_sync_master_status=ON Rpl_semi_sync_slave_status=ON",
            expected,
        );
        check(
            "rpl_semi_sync_source_enabled=ON rpl_semi_sync_replica_enabled=OFF rpl_semi_sync_source_timeout=10000 \
             rpl_semi_sync_source_wait_point=AFTER_SYNC \
             rpl_semi_sync_source_wait_no_replica=ON Rpl_semi_sync_source_clients=2 \
             rpl_semi_sync_source_wait_for_replica_count=2 Rpl_semi_sync_source_status=ON \
             Rpl_semi_sync_replica_status=ON",
            SemiSync { wait_for: 2, ..expected },
        );
        check("", SemiSync { wait_for: 1, ..SemiSync::default() });
    }
}
