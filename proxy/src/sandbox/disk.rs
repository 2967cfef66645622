//! A small disk of its own for the data of one server, so that it can be filled.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::unistd::{getegid, geteuid};
use tokio::process::Command;

use super::Error;
use super::programs::run;

/// Mounts one of `mebibytes` at `data`. The janitor takes it away when the process that made it cannot.
///
/// # Errors
///
/// For anybody who is neither root nor may use sudo without a password.
pub(super) async fn mount(data: &Path, mebibytes: u64) -> Result<(), Error> {
    fs::create_dir_all(data).map_err(|source| Error::File { path: data.to_owned(), source })?;
    let (user, group) = (geteuid(), getegid());
    let options = format!("size={mebibytes}m,uid={user},gid={group}");
    let mut command = as_root("mount");
    command.args(["-t", "tmpfs", "-o", &options, "pointsman-sandbox"]).arg(data);
    run(command, Path::new("mount")).await.map(drop)
}

/// Takes it away with all that is on it.
///
/// # Errors
///
/// When nothing is mounted there.
pub(super) async fn unmount(data: &Path) -> Result<(), Error> {
    let mut command = as_root("umount");
    command.arg("-l").arg(data);
    run(command, Path::new("umount")).await.map(drop)
}

fn as_root(program: &str) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

/// Leaves no room at all.
///
/// # Errors
///
/// When the file that takes all the room cannot be made or written for another reason.
pub(super) fn fill(data: &Path) -> Result<(), Error> {
    let path = data.join(BALLAST);
    write_all_that_fits(&path).map_err(|source| Error::File { path, source })
}

fn write_all_that_fits(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    for size in [LARGE_BYTES, PAGE_BYTES] {
        let block = vec![0; size];
        loop {
            match file.write(&block) {
                Ok(_) => {}
                Err(full) if full.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Gives back what [`fill`] has taken.
///
/// # Errors
///
/// When it was not filled.
pub(super) fn make_room(data: &Path) -> Result<(), Error> {
    let path = data.join(BALLAST);
    fs::remove_file(&path).map_err(|source| Error::File { path, source })
}

const BALLAST: &str = "ballast";
const LARGE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 1 << 12;
