//! What servers do with each other and with clients that come directly.

use std::cmp::Reverse;

use pointsman_router::failover::{Durability, Phase, Request};

use crate::server::{Server, Waiter};
use crate::world::{Due, ForProxy, World};

impl World {
    /// Replication for a moment.
    pub(crate) fn round(&mut self) {
        for replica in 0..self.servers.len() {
            let most = if self.servers[replica].slow { usize::from(self.random.below(8) == 0) } else { 1000 };
            self.servers[replica].apply(most);
            let Some(source) = self.servers[replica].source.filter(|source| *source != replica) else {
                continue;
            };
            let linked = self.connected(replica, source);
            let (one, other) = (&self.servers[replica], &self.servers[source]);
            let serves =
                one.alive() && one.receives && !one.full && other.alive() && linked && one.fits(other);
            let from = one.received();
            if serves {
                // What is committed before it was sent to an acker has not been sent at all.
                let entries: Vec<_> = other.log[from..].to_vec();
                self.servers[replica].receive(&entries);
                if self.now.is_multiple_of(100) {
                    self.servers[replica].hear();
                }
                self.servers[replica].connected = true;
            } else if !linked && self.servers[replica].connected {
                // It notices only after a while.
                if self.random.below(100) == 0 {
                    self.servers[replica].connected = false;
                }
            } else if !self.servers[source].frozen {
                self.servers[replica].connected = false;
            }
        }
        for primary in 0..self.servers.len() {
            self.acknowledge(primary);
        }
        let since_healed = self.healed.map(|healed| self.now - healed / 10 * 10);
        if matches!(since_healed, Some(3_000 | 16_000)) {
            self.set_up_anew();
        }
        if since_healed == Some(12_000) {
            self.servers.iter_mut().for_each(Server::make_room);
        }
        if since_healed == Some(8_000) {
            self.accept_loss();
        }
    }

    /// Replicas that are attached and acknowledge, and how far.
    pub(crate) fn attached(&self, primary: usize) -> Vec<usize> {
        let attached = self.servers.iter().enumerate().filter(|(at, server)| {
            server.semi_replica
                && server.alive()
                && !server.full
                && server.connected
                && server.source == Some(primary)
                && self.connected(*at, primary)
        });
        attached.map(|(_, server)| server.received()).collect()
    }

    pub(crate) fn acknowledge(&mut self, primary: usize) {
        let server = &self.servers[primary];
        if !server.alive() {
            return;
        }
        if server.semi_source && server.committed < server.log.len() {
            let mut attached = self.attached(primary);
            attached.sort_unstable_by_key(|length| Reverse(*length));
            let wait_for = self.servers[primary].wait_for.max(1) as usize;
            if let Some(length) = attached.get(wait_for - 1) {
                let server = &mut self.servers[primary];
                server.committed = server.committed.max((*length).min(server.log.len()));
            }
        }
        let committed = self.servers[primary].committed;
        let waiters = std::mem::take(&mut self.servers[primary].waiters);
        let (done, wait) = waiters.into_iter().partition(|waiter: &Waiter| waiter.length <= committed);
        self.servers[primary].waiters = wait;
        for waiter in done {
            self.answer(primary, waiter);
        }
    }

    pub(crate) fn answer(&mut self, server: usize, waiter: Waiter) {
        let Some((proxy, life)) = waiter.via else {
            let epoch = self.servers[server].epoch_row().unwrap_or(1);
            let promised = self
                .coordinator
                .record
                .as_ref()
                .is_some_and(|record| record.durability == Durability::Lossless);
            if promised && self.servers[server].semi_source {
                self.check.acknowledged(
                    waiter.row,
                    server,
                    epoch,
                    self.coordinator.record.as_ref(),
                    &self.servers,
                );
            }
            return;
        };
        // A process that has ended has taken its connections with it.
        if self.connected(server, self.proxy_end(proxy)) && self.proxies[proxy].life == life {
            let at = self.now + self.latency();
            self.for_proxy(at, proxy, ForProxy::Ok { waiter, server });
        }
    }

    pub(crate) fn direct_write(&mut self) {
        let next = self.now + 30 + self.random.below(60);
        self.at(next, Due::DirectWrite);
        let writable: Vec<_> = (0..self.servers.len())
            .filter(|at| {
                let server = &self.servers[*at];
                server.alive() && !server.read_only && !server.full
            })
            .collect();
        if !self.scenario.direct || writable.is_empty() {
            return;
        }
        let server = writable[self.random.below(writable.len() as u64) as usize];
        let row = self.check.next_row();
        let length = self.servers[server].push(row, 0);
        self.servers[server].waiters.push(Waiter { length, row, via: None, epoch: 0 });
    }

    pub(crate) fn write(&mut self, server: usize, mut waiter: Waiter, life: u32) {
        let Some((proxy, _)) = waiter.via else { return };
        let reaches = self.connected(server, self.proxy_end(proxy));
        let one = &mut self.servers[server];
        if !one.alive() || !reaches || one.read_only || self.proxies[proxy].life != life {
            return;
        }
        if one.full {
            one.stuck.push(waiter);
        } else {
            waiter.length = one.push(waiter.row, 0);
            one.waiters.push(waiter);
        }
    }

    /// Servers that cannot follow are set up anew from the primary, as an operator would.
    pub(crate) fn set_up_anew(&mut self) {
        let Some(record) = &self.coordinator.record else { return };
        let source = match record.phase {
            Phase::Stable | Phase::Active => &record.primary,
            Phase::Chosen => &record.candidate,
            Phase::Fencing => return,
        };
        let primary = source.as_deref().and_then(|name| name[1..].parse::<usize>().ok());
        let Some(primary) = primary else { return };
        let log = self.servers[primary].log[..self.servers[primary].committed].to_vec();
        for at in (0..self.servers.len()).filter(|at| *at != primary) {
            if !self.servers[at].fits(&self.servers[primary]) {
                let one = &mut self.servers[at];
                one.crash();
                one.log.clone_from(&log);
                one.relay.clear();
                one.source = Some(primary);
                one.start(0, false);
            }
        }
    }

    /// An operator's last word, where crashes have destroyed every copy that could prove anything.
    pub(crate) fn accept_loss(&mut self) {
        let Some(record) = self.coordinator.record.clone() else { return };
        let names = record.ackers.iter().chain(&record.primary);
        let holders: Vec<_> = names.filter_map(|name| name.strip_prefix('s')?.parse().ok()).collect();
        if record.phase == Phase::Fencing && self.check.is_lost(&holders, &self.servers) {
            let request = Request::Failover { to: None, accept_loss: true, dry_run: false };
            self.request(0, request);
        }
    }
}
