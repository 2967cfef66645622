//! The configuration that a command works with: file, environment and flags.

use std::path::PathBuf;

use clap::Args;
use pointsman_config::{Config, Flag, Loaded, Sources, load};

use super::exit::{Exit, Failure};
use super::output::{counted, note};

/// The flags that say what the configuration is; without any file they suffice.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SettingsArgs {
    /// The configuration, in TOML or JSON.
    #[arg(short, long, env = "POINTSMAN_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where clients connect, as host:port.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A server, as host:port; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    server: Vec<String>,
    /// The service account.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file that holds the service account's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl SettingsArgs {
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self { config: Some(file), ..Self::default() }
    }

    /// Reads and checks everything; warnings go to standard error.
    ///
    /// # Errors
    ///
    /// All faults, each on its own line, with the exit code for them.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        let loaded = self.read()?;
        for warning in &loaded.warnings {
            note(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }

    fn read(&self) -> Result<Loaded, Failure> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let sources = Sources { file: self.config.clone(), environment, flags: self.flags() };
        load(&sources).map_err(|faults| {
            let count = counted(faults.0.len(), "fault");
            let of_what = match &self.config {
                Some(_) => String::new(),
                None => "no file was given: --config FILE or POINTSMAN_CONFIG\n".to_owned(),
            };
            Failure::new(Exit::Usage, format!("{of_what}{count} in the configuration\n{faults}"))
        })
    }

    /// As [`SettingsArgs::load`], and every file that the configuration names must be there.
    ///
    /// # Errors
    ///
    /// As [`SettingsArgs::load`].
    pub(super) fn load_complete(&self) -> Result<Loaded, Failure> {
        complete(self.load()?)
    }

    /// As [`SettingsArgs::load_complete`], for a process that runs: nothing is printed.
    ///
    /// # Errors
    ///
    /// All faults, each on its own line.
    pub(super) fn load_again(&self) -> Result<Config, String> {
        let loaded = self.read().and_then(complete);
        loaded.map(|loaded| loaded.config).map_err(|failure| failure.message)
    }

    fn flags(&self) -> Vec<Flag> {
        let path = |file: &PathBuf| vec![file.display().to_string()];
        let given = [
            ("--listen", "listen.rw.address", self.listen.iter().cloned().collect()),
            ("--server", "servers", self.server.clone()),
            ("--user", "user", self.user.iter().cloned().collect()),
            ("--password-file", "password_file", self.password_file.as_ref().map(path).unwrap_or_default()),
        ];
        let flag = |(name, key, values): (&str, &str, Vec<String>)| {
            let flag = Flag { name: name.to_owned(), key: key.to_owned(), values };
            (!flag.values.is_empty()).then_some(flag)
        };
        given.into_iter().filter_map(flag).collect()
    }
}

fn complete(loaded: Loaded) -> Result<Loaded, Failure> {
    if loaded.absent.is_empty() {
        return Ok(loaded);
    }
    let lines: Vec<_> = loaded.absent.iter().map(ToString::to_string).collect();
    Err(Failure::usage(format!("files that the configuration names are missing\n{}", lines.join("\n"))))
}
