//! A filled data directory, made once and copied for every server.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pointsman_router::intent::Flavour;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::programs::{Programs, cache_directory, joined, run, tail};
use super::{Error, dialect};

/// The template for these programs: from the cache when it is there, else made now.
///
/// `scratch` is where it is made when there is no cache that can be written.
pub(super) async fn prepare(programs: &Programs, scratch: &Path) -> Result<PathBuf, Error> {
    let name = format!("{:?}-{:016x}", programs.flavour, key(programs).await?).to_lowercase();
    let cache = cache_directory().map(|cache| cache.join("sandbox"));
    let home = cache.filter(|cache| fs::create_dir_all(cache).is_ok()).unwrap_or_else(|| scratch.to_owned());
    let finished = home.join(name);
    if finished.is_dir() {
        return Ok(finished);
    }
    let growing = tempfile::Builder::new()
        .prefix("growing-")
        .tempdir_in(&home)
        .map_err(|source| Error::File { path: home, source })?;
    let data = growing.path().join("data");
    match programs.flavour {
        Flavour::Mariadb => fill_mariadb(programs, &data).await?,
        Flavour::Mysql => fill_mysql(programs, growing.path(), &data).await?,
    }
    match fs::rename(&data, &finished) {
        // Somebody else was faster with the same.
        Err(_) if finished.is_dir() => Ok(finished),
        Err(source) => Err(Error::File { path: finished, source }),
        Ok(()) => Ok(finished),
    }
}

/// Copies a template to where a server will run on it, which may be there already, and empty.
pub(super) async fn copy(template: &Path, data: &Path) -> Result<(), Error> {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto", "--no-target-directory", "--"]).arg(template).arg(data);
    run(command, Path::new("cp")).await.map(drop)
}

/// Changes with everything that a template is made of.
async fn key(programs: &Programs) -> Result<u64, Error> {
    let mut hasher = DefaultHasher::new();
    programs.version().await?.hash(&mut hasher);
    dialect::accounts(programs.flavour).hash(&mut hasher);
    dialect::storage_options(programs.flavour).hash(&mut hasher);
    Ok(hasher.finish())
}

async fn fill_mariadb(programs: &Programs, data: &Path) -> Result<(), Error> {
    let installer = programs.installer();
    let mut command = Command::new(&installer);
    command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    // A machine need not be able to look up its own name.
    command.arg("--skip-name-resolve");
    command.arg(joined("--datadir=", data)).args(dialect::storage_options(Flavour::Mariadb));
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    run(command, &installer).await?;
    let mut server = programs.server();
    server.arg("--bootstrap").arg(joined("--datadir=", data)).arg("--plugin-load-add=auth_ed25519");
    server.args(dialect::storage_options(Flavour::Mariadb));
    feed(server, &format!("FLUSH PRIVILEGES;\n{}", dialect::accounts(Flavour::Mariadb))).await
}

async fn fill_mysql(programs: &Programs, scratch: &Path, data: &Path) -> Result<(), Error> {
    let init = scratch.join("init.sql");
    fs::write(&init, dialect::accounts(Flavour::Mysql))
        .map_err(|source| Error::File { path: init.clone(), source })?;
    let mut server = programs.server();
    server.arg("--initialize-insecure").arg("--skip-log-bin").arg(joined("--datadir=", data));
    server.arg(joined("--init-file=", &init)).args(dialect::storage_options(Flavour::Mysql));
    run(server, Path::new("mysqld")).await?;
    // Each copy must make an identity of its own.
    let identity = data.join("auto.cnf");
    match fs::remove_file(&identity) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: identity, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs a server that reads statements from its standard input.
async fn feed(mut server: Command, sql: &str) -> Result<(), Error> {
    let program = PathBuf::from("mariadbd");
    let spawn = |source| Error::Spawn { program: "mariadbd".into(), source };
    server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = server.spawn().map_err(spawn)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(sql.as_bytes()).await.map_err(spawn)?;
    }
    let output = child.wait_with_output().await.map_err(spawn)?;
    let log = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && !log.contains("ERROR") {
        return Ok(());
    }
    Err(Error::Failed { program, status: output.status, output: tail(&log).to_owned() })
}
