//! The register of one proxy: a file that survives a crash of process and machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use pointsman_router::failover::Revision;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Cas, Coordinator, CoordinatorError, Found, Heard, News, Reply, Sessions};

/// `<cluster>.json` in a directory. Several processes may share it: swaps exclude each other by a lock file.
#[derive(Debug)]
pub struct Local {
    file: Arc<Place>,
    proxy: String,
    says: Mutex<String>,
    /// Nobody else is heard of.
    news: News,
}

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    name: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    revision: u64,
    value: Option<String>,
}

impl Local {
    /// The register of `cluster` in `directory`, which must exist.
    pub fn new(directory: &Path, cluster: &str, proxy: &str) -> Self {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let name = cluster.chars().map(safe).collect();
        Self {
            file: Arc::new(Place { directory: directory.to_owned(), name }),
            proxy: proxy.to_owned(),
            says: Mutex::default(),
            news: News::default(),
        }
    }
}

impl Coordinator for Local {
    fn get(&self) -> Reply<'_, Found> {
        let file = self.file.clone();
        Box::pin(async move {
            let stored = blocking(move || file.read()).await?;
            let revision = Revision(stored.revision);
            self.news.hear(revision, stored.value.as_ref());
            let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Found {
                revision,
                value: stored.value,
                sessions: BTreeMap::from([(self.proxy.clone(), says)]),
            })
        })
    }

    fn cas(&self, expected: Revision, value: String) -> Reply<'_, Cas> {
        let file = self.file.clone();
        Box::pin(async move {
            let cas = blocking({
                let value = value.clone();
                move || file.swap(expected, value)
            })
            .await?;
            match &cas {
                Cas::Won { revision } => self.news.hear(*revision, Some(&value)),
                Cas::Lost { revision, value } => self.news.hear(*revision, value.as_ref()),
            }
            Ok(cas)
        })
    }

    fn watch(&self) -> watch::Receiver<Heard> {
        self.news.heard.subscribe()
    }

    fn sessions(&self) -> watch::Receiver<Sessions> {
        self.news.sessions.subscribe()
    }

    fn session(&self, says: String) -> Reply<'_, ()> {
        Box::pin(async move {
            *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
            Ok(())
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CoordinatorError> + Send + 'static,
) -> Result<T, CoordinatorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(CoordinatorError::File { path: String::new(), source: io::Error::other(error) }),
    }
}

impl Place {
    fn path(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.{ending}", self.name))
    }

    fn failed(path: &Path) -> impl Fn(io::Error) -> CoordinatorError + '_ {
        move |source| CoordinatorError::File { path: path.display().to_string(), source }
    }

    fn read(&self) -> Result<Stored, CoordinatorError> {
        let path = self.path("json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(source) => return Err(Self::failed(&path)(source)),
        };
        serde_json::from_str(&text).map_err(|error| CoordinatorError::Content {
            path: path.display().to_string(),
            what: error.to_string(),
        })
    }

    fn swap(&self, expected: Revision, value: String) -> Result<Cas, CoordinatorError> {
        let lock = self.path("lock");
        let opened = File::create(&lock).map_err(Self::failed(&lock))?;
        let _locked = Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, error)| Self::failed(&lock)(error.into()))?;
        let stored = self.read()?;
        if stored.revision != expected.0 {
            return Ok(Cas::Lost { revision: Revision(stored.revision), value: stored.value });
        }
        let revision = expected.0 + 1;
        self.write(&Stored { revision, value: Some(value) })?;
        Ok(Cas::Won { revision: Revision(revision) })
    }

    /// Whole or not at all, and on disk before it is said to be done.
    fn write(&self, stored: &Stored) -> Result<(), CoordinatorError> {
        let (path, new) = (self.path("json"), self.path("new"));
        let text = serde_json::to_string(stored).map_err(io::Error::from).map_err(Self::failed(&path))?;
        let mut file = File::create(&new).map_err(Self::failed(&new))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Self::failed(&new))?;
        fs::rename(&new, &path).map_err(Self::failed(&path))?;
        let directory = File::open(&self.directory).map_err(Self::failed(&self.directory))?;
        directory.sync_all().map_err(Self::failed(&self.directory))
    }
}
