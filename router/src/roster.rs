//! Which server has which [`ServerId`], over every change of the configuration.
//!
//! An id is never given to another server: connections, counters and observations of one that is gone must not be taken
//! for somebody else's.

use pointsman_config::Server;

use crate::topology::ServerId;

/// Every server that the configuration has named since the process began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    /// Indexed by [`ServerId`].
    members: Vec<Member>,
}

/// One server.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub server: Server,
    /// The configuration names it no more.
    pub gone: bool,
}

impl Roster {
    /// The servers of the first configuration, in its order.
    pub fn new(servers: &[Server]) -> Self {
        Self::default().followed_by(servers)
    }

    /// The same after the configuration has changed. One that comes back, by name and address, gets its id again.
    #[must_use]
    pub fn followed_by(&self, servers: &[Server]) -> Self {
        let mut members = self.members.clone();
        members.iter_mut().for_each(|member| member.gone = true);
        for server in servers {
            let known = members
                .iter_mut()
                .find(|member| member.server.name == server.name && member.server.address == server.address);
            let named = Member { server: server.clone(), gone: false };
            match known {
                Some(member) => *member = named,
                None => members.push(named),
            }
        }
        Self { members }
    }

    /// All of them, those that are gone included.
    pub fn members(&self) -> impl Iterator<Item = (ServerId, &Member)> {
        // The configuration holds at most as many servers as ids exist.
        let id = |at: usize| ServerId(u16::try_from(at).unwrap_or(u16::MAX));
        self.members.iter().enumerate().map(move |(at, member)| (id(at), member))
    }

    /// Those that the configuration names.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.members().filter(|(_, member)| !member.gone).map(|(id, member)| (id, &member.server))
    }

    pub fn find(&self, name: &str) -> Option<ServerId> {
        self.servers().find(|(_, server)| server.name == name).map(|(id, _)| id)
    }

    pub fn get(&self, id: ServerId) -> Option<&Member> {
        self.members.get(usize::from(id.0))
    }

    /// The name of a server, gone or not; empty where there is none.
    pub fn name(&self, id: ServerId) -> &str {
        self.get(id).map_or("", |member| &member.server.name)
    }

    /// `host:port`
    pub fn address(&self, id: ServerId) -> &str {
        self.get(id).map_or("", |member| &member.server.address)
    }

    /// How many ids have been given.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(names: &str) -> Vec<Server> {
        let server = |name: &str| {
            let (name, port) = name.split_once(':').unwrap_or((name, "1"));
            Server { name: name.to_owned(), address: format!("{name}:{port}"), ..Server::default() }
        };
        names.split_whitespace().map(server).collect()
    }

    #[test]
    fn ids_stay_and_are_never_given_twice() {
        let check = |roster: &Roster, expected: &str| {
            let shown: Vec<_> =
                roster.servers().map(|(id, server)| format!("{}={}", id.0, server.address)).collect();
            assert_eq!(shown.join(" "), expected);
        };
        let first = Roster::new(&servers("a b"));
        check(&first, "0=a:1 1=b:1");
        let second = first.followed_by(&servers("c b"));
        check(&second, "1=b:1 2=c:1");
        assert_eq!((second.find("a"), second.find("c")), (None, Some(ServerId(2))));
        assert_eq!(second.name(ServerId(0)), "a", "for what is still said of it");
        check(&second.followed_by(&servers("a b c")), "0=a:1 1=b:1 2=c:1");
        let moved = second.followed_by(&servers("b:2 c"));
        check(&moved, "2=c:1 3=b:2");
        assert_eq!((moved.find("b"), moved.len()), (Some(ServerId(3)), 4));
    }
}
