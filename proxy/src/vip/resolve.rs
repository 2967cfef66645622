//! From the names of servers to the addresses that the kernel forwards to, off the director's thread: a name server
//! that does not answer must not hold up what is known already.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_router::topology::{ServerView, Topology};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::{Addresses, Handle};

/// Tells the director of every change of the topology, with addresses. Ends with the cluster task.
pub(super) async fn feed(handle: Handle, mut topology: watch::Receiver<Arc<Topology>>) {
    let ipv6 = handle.view().address.is_ipv6();
    let mut names = Names { ipv6, known: BTreeMap::new() };
    loop {
        let current = topology.borrow_and_update().clone();
        let addresses = names.addresses(&current).await;
        handle.servers(current, addresses);
        if topology.changed().await.is_err() {
            return;
        }
    }
}

/// Addresses by `host:port`.
struct Names {
    /// The kernel translates between addresses of one family only.
    ipv6: bool,
    known: BTreeMap<String, Known>,
}

struct Known {
    address: Option<SocketAddr>,
    /// When to ask again.
    until: Instant,
}

impl Names {
    async fn addresses(&mut self, topology: &Topology) -> Addresses {
        let mut addresses = Addresses::new();
        for view in topology.members() {
            if let Some(address) = self.address(view).await {
                addresses.insert(view.id, address);
            }
        }
        addresses
    }

    /// The address of a server; the one known before while its name does not resolve.
    async fn address(&mut self, view: &ServerView) -> Option<SocketAddr> {
        let now = Instant::now();
        let before = self.known.get(&view.address).and_then(|known| known.address);
        if let Some(known) = self.known.get(&view.address)
            && now < known.until
        {
            return known.address;
        }
        let found = self.look_up(&view.address).await;
        if found.is_none() && before.is_none() {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            warn!(
                server = view.name,
                address = view.address,
                "no {family} address: the server is not behind the virtual address"
            );
        }
        let after = if found.is_some() { REFRESH } else { RETRY };
        let address = found.or(before);
        self.known.insert(view.address.clone(), Known { address, until: now + after });
        address
    }

    async fn look_up(&self, name: &str) -> Option<SocketAddr> {
        let found = timeout(LOOK_UP_WITHIN, tokio::net::lookup_host(name)).await.ok()?.ok()?;
        let mut found: Vec<_> = found.filter(|address| address.is_ipv6() == self.ipv6).collect();
        // The order of a name server's answers changes; which address we use should not.
        found.sort();
        found.into_iter().next()
    }
}

const REFRESH: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(5);
const LOOK_UP_WITHIN: Duration = Duration::from_secs(1);
