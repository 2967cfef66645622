//! Takes up certificates that were replaced on disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::{ClientTls, Reloaded, ServerTls, TlsError};
use crate::shared::Shared;

/// How often the files are looked at. Polling also sees what is swapped by symbolic links, as in Kubernetes.
const PERIOD: Duration = Duration::from_secs(5);

/// Looks at the files of both sides for as long as the process lives.
pub async fn watch(shared: Arc<Shared>) {
    let mut server = shared.server_tls.as_ref().map(|tls| Watched::new(tls.files()));
    let mut client = shared.client_tls.as_ref().map(|tls| Watched::new(tls.files()));
    let mut timer = tokio::time::interval(PERIOD);
    loop {
        timer.tick().await;
        if let (Some(watched), Some(tls)) = (&mut server, &shared.server_tls) {
            watched.look("tls", || ServerTls::reload(tls));
        }
        if let (Some(watched), Some(tls)) = (&mut client, &shared.client_tls) {
            watched.look("backend_tls", || ClientTls::reload(tls));
        }
    }
}

/// Files and what they looked like.
struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// Differs when a file was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let seen = stamps(&files);
        Self { files, seen }
    }

    /// Reloads when a file has changed; a file that is no use is named once and tried again when it changes.
    fn look(&mut self, section: &str, reload: impl Fn() -> Result<Reloaded, TlsError>) {
        let now = stamps(&self.files);
        if now == self.seen {
            return;
        }
        self.seen = now;
        match reload() {
            Ok(Reloaded::NewCertificate) => info!(section, "a new certificate is in use"),
            Ok(Reloaded::SameCertificate) => info!(section, "keys and authorities are read again"),
            Err(error) => warn!(section, %error, "the old certificate stays in use"),
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    #[test]
    fn only_changes_are_acted_on() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut watched = Watched::new(vec![link.clone()]);
        let reloads = Cell::new(0);
        let mut check = |expected: u32| {
            watched.look("tls", || {
                reloads.set(reloads.get() + 1);
                Ok(Reloaded::NewCertificate)
            });
            assert_eq!(reloads.get(), expected);
        };
        check(0);
        fs::write(&file, "22").unwrap();
        check(1);
        check(1);
        let other = directory.path().join("other");
        fs::write(&other, "22").unwrap();
        fs::remove_file(&link).unwrap();
        check(2);
        std::os::unix::fs::symlink(&other, &link).unwrap();
        check(3);
        check(3);
    }
}
