//! What Pointsman has made in the kernel, kept in a file so that a later life takes away or takes over exactly that.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pointsman_router::vip::{Owned, ServiceKey};
use serde::{Deserialize, Serialize};

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    made: Made,
}

/// Everything that is not as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Made {
    pub(super) services: Vec<SocketAddr>,
    /// The virtual addresses and the interfaces that they were put on.
    pub(super) addresses: Vec<(String, IpAddr)>,
    pub(super) link: Option<String>,
    /// What kernel settings were before.
    pub(super) settings: BTreeMap<String, String>,
    /// The time-out of idle connections before.
    pub(super) tcp_timeout_seconds: Option<u32>,
}

impl Memory {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be understood: then nobody knows what is ours.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let made = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Made::default(),
            Err(error) => return Err(named(&path, &error)),
        };
        Ok(Self { path, made })
    }

    /// Whether nothing has been made.
    pub(super) fn is_empty(&self) -> bool {
        self.made == Made::default()
    }

    pub(super) fn made(&self) -> &Made {
        &self.made
    }

    /// The services that are ours.
    pub(super) fn owned(&self) -> Owned {
        self.made.services.iter().map(|at| ServiceKey { address: at.ip(), port: at.port() }).collect()
    }

    /// Notes something; to be called before it is made.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Made)) -> io::Result<()> {
        let mut made = self.made.clone();
        note(&mut made);
        if made == self.made {
            return Ok(());
        }
        self.made = made;
        self.write().map_err(|error| named(&self.path, &error))
    }

    /// Everything is as it was found.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.made = Made::default();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&self.path, &error)),
            _ => Ok(()),
        }
    }

    fn write(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&self.made)?)?;
        // Half a file would be worse than an old one.
        fs::rename(&new, &self.path)
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

const FILE: &str = "vip.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_life_knows() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        let mut memory = Memory::open(&directory).unwrap();
        assert!(memory.owned().is_empty());
        let at: SocketAddr = "[fd00::64]:3306".parse().unwrap();
        memory.note(|made| made.services.push(at)).unwrap();
        memory.note(|made| made.addresses.push(("eth0".to_owned(), at.ip()))).unwrap();
        let mut later = Memory::open(&directory).unwrap();
        assert_eq!(later.owned(), Owned::from([ServiceKey { address: at.ip(), port: 3306 }]));
        assert_eq!(later.made(), memory.made());
        later.forget().unwrap();
        later.forget().unwrap();
        assert_eq!(Memory::open(&directory).unwrap().made(), &Made::default());
        fs::write(directory.join(FILE), "{").unwrap();
        assert!(Memory::open(&directory).is_err());
    }
}
