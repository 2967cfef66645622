//! Where the programs of a server are found, and how they are run.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pointsman_router::intent::Flavour;
use tokio::process::Command;

use super::Error;

/// The programs of one server installation.
#[derive(Clone, Debug)]
pub struct Programs {
    pub flavour: Flavour,
    server: PathBuf,
    /// The dynamic loader and libraries of a private installation made for another system than this one.
    loader: Option<(PathBuf, PathBuf)>,
    /// Where the server finds its messages and plugins when it was moved from where it was built for.
    base: Option<PathBuf>,
}

impl Programs {
    /// Finds the server programs of `flavour`.
    ///
    /// MariaDB comes from `POINTSMAN_MARIADB_HOME` or the usual places; MySQL from `POINTSMAN_MYSQL_HOME`, from
    /// what `scripts/mysql` unpacked into the cache, or from the usual places.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrograms`] with what to do about it.
    pub fn find(flavour: Flavour) -> Result<Self, Error> {
        let (home, name, advice) = match flavour {
            Flavour::Mariadb => ("POINTSMAN_MARIADB_HOME", "mariadbd", "install the package mariadb-server"),
            Flavour::Mysql => {
                ("POINTSMAN_MYSQL_HOME", "mysqld", "run scripts/mysql, or set POINTSMAN_MYSQL_HOME")
            }
        };
        let mut homes: Vec<PathBuf> = env::var_os(home).map(PathBuf::from).into_iter().collect();
        if flavour == Flavour::Mysql && homes.is_empty() {
            homes.extend(cache_directory().map(|cache| cache.join("mysql")));
        }
        homes
            .iter()
            .find_map(|home| Self::in_home(flavour, home, name))
            .or_else(|| Self::in_usual_places(flavour, name))
            .ok_or(Error::NoPrograms { flavour, advice })
    }

    fn in_home(flavour: Flavour, home: &Path, name: &str) -> Option<Self> {
        let root = home.join("root");
        let server = root.join("usr/sbin").join(name);
        if server.is_file() {
            let (loader, libraries) = private_loader(&root)?;
            return Some(Self {
                flavour,
                server,
                loader: Some((loader, libraries)),
                base: Some(root.join("usr")),
            });
        }
        ["bin", "sbin", "libexec"]
            .iter()
            .map(|folder| home.join(folder).join(name))
            .find(|server| server.is_file())
            .map(|server| Self { flavour, server, loader: None, base: Some(home.to_owned()) })
    }

    fn in_usual_places(flavour: Flavour, name: &str) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(["/usr/sbin", "/usr/libexec", "/usr/local/sbin"].map(PathBuf::from))
            .map(|folder| folder.join(name))
            .find(|server| server.is_file() && belongs_to(server, flavour))
            .map(|server| Self { flavour, server, loader: None, base: None })
    }

    /// The server program with the arguments that every use of it needs.
    pub fn server(&self) -> Command {
        let mut command = match &self.loader {
            None => Command::new(&self.server),
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.server);
                command
            }
        };
        command.arg("--no-defaults");
        if let Some(base) = &self.base {
            command.arg(joined("--basedir=", base));
            command.arg(joined("--lc-messages-dir=", &base.join("share/mysql")));
            command.arg(joined("--character-sets-dir=", &base.join("share/mysql/charsets")));
            command.arg(joined("--plugin-dir=", &base.join("lib/mysql/plugin")));
        }
        if nix::unistd::geteuid().is_root() {
            command.arg("--user=root");
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What the server says about its version: one line.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub async fn version(&self) -> Result<String, Error> {
        let mut command = self.server();
        command.arg("--version");
        let output = run(command, &self.server).await?;
        Ok(output.trim().to_owned())
    }

    /// The program that fills an empty data directory, for the flavour that has one beside the server.
    pub(super) fn installer(&self) -> PathBuf {
        match &self.base {
            Some(base) => base.join("scripts/mariadb-install-db"),
            None => "mariadb-install-db".into(),
        }
    }
}

/// Runs a program to its end and returns what it printed.
pub(super) async fn run(mut command: Command, program: &Path) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Some installers complain on the standard output.
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let output_text = String::from_utf8_lossy(said);
    Err(Error::Failed {
        program: program.to_owned(),
        status: output.status,
        output: tail(&output_text).to_owned(),
    })
}

/// The last lines of a log.
pub(super) fn tail(log: &str) -> &str {
    let mut starts = log.trim_end().rmatch_indices('\n').map(|(at, _)| at + 1);
    &log[starts.nth(TAIL_LINES - 1).unwrap_or(0)..]
}

/// Where programs and data directories are kept between runs; none without a home directory.
pub fn cache_directory() -> Option<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) if !cache.is_empty() => PathBuf::from(cache),
        _ => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(cache.join("pointsman"))
}

pub(super) fn joined(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(path);
    text
}

/// Debian's folder names: the loader of the unpacked system and its libraries.
fn private_loader(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let (triple, loader) = match env::consts::ARCH {
        "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        _ => return None,
    };
    let libraries = root.join("usr/lib").join(triple);
    Some((libraries.join(loader), libraries))
}

/// MariaDB also ships a program of the name `mysqld`.
fn belongs_to(server: &Path, flavour: Flavour) -> bool {
    let output = std::process::Command::new(server).args(["--no-defaults", "--version"]).output();
    let Ok(output) = output else { return false };
    let mariadb = String::from_utf8_lossy(&output.stdout).contains("MariaDB");
    mariadb == (flavour == Flavour::Mariadb)
}

const TAIL_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\n"), "a\nb\n");
        let long: String = (0..20).map(|n| format!("{n}\n")).collect();
        assert_eq!(tail(&long), "12\n13\n14\n15\n16\n17\n18\n19\n");
    }
}
