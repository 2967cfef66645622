//! Removes what a sandbox has made, also when the process that made it is killed.
//!
//! A shell waits for the end of its standard input, which the kernel closes when this process ends in any way.
//! It then kills the processes noted in the directory, unmounts what is mounted in it, and removes the directory.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Error;

/// The directory of a sandbox; gone, with all processes noted in it, when this value is dropped.
#[derive(Debug)]
pub struct Janitor {
    directory: PathBuf,
    shell: Child,
}

impl Janitor {
    /// Makes a new directory and the process that watches over it.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or no shell can be run.
    pub fn new() -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("pointsman-sandbox-")
            .tempdir()
            .map_err(|source| Error::File { path: std::env::temp_dir(), source })?
            .keep();
        let pids = directory.join(PIDS);
        fs::create_dir(&pids).map_err(|source| Error::File { path: pids, source })?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "pointsman-sandbox"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to our process group must not end the one who cleans up after it.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: "sh".into(), source })?;
        Ok(Self { directory, shell })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes a process to be killed in the end. Its command line must name the directory, which protects a
    /// stranger who got the same id later.
    ///
    /// # Errors
    ///
    /// When the note cannot be written.
    pub fn watch(&self, name: &str, pid: u32) -> Result<(), Error> {
        note(&self.directory, name, pid)
    }
}

/// The same as [`Janitor::watch`], for those who only know the directory.
pub(super) fn note(directory: &Path, name: &str, pid: u32) -> Result<(), Error> {
    let path = directory.join(PIDS).join(name);
    fs::write(&path, pid.to_string()).map_err(|source| Error::File { path, source })
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let ended: io::Result<_> = self.shell.wait();
        if let Err(error) = ended {
            tracing::warn!(directory = %self.directory.display(), %error, "sandbox may have left files behind");
        }
    }
}

const PIDS: &str = "pids";
const SCRIPT: &str = r#"
cat >/dev/null
for note in "$1"/pids/*; do
  pid=$(cat "$note" 2>/dev/null) || continue
  if tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$1/"; then kill -9 "$pid"; fi
done
while read -r _ place _; do
  case $place in "$1"/*) umount -l -- "$place" || sudo --non-interactive umount -l -- "$place" ;; esac
done </proc/mounts
tries=0
while [ -e "$1" ] && [ "$tries" -lt 200 ]; do
  rm -rf -- "$1" 2>/dev/null || sleep 0.05
  tries=$((tries + 1))
done
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_files_are_gone_when_it_is_dropped() {
        let janitor = Janitor::new().unwrap();
        let directory = janitor.directory().to_owned();
        fs::write(directory.join("file"), "x").unwrap();
        let marker = format!("sleep 60 # {}/", directory.display());
        let mut child = Command::new("sh").args(["-c", &marker]).spawn().unwrap();
        janitor.watch("child", child.id()).unwrap();
        drop(janitor);
        assert!(!child.wait().unwrap().success());
        assert!(!directory.exists());
    }
}
