//! `pointsman dsn`: what an application puts in place of its server's address.

use clap::{Args, ValueEnum};
use pointsman_config::{Config, HostPort, Listener};
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, Table};
use super::settings::SettingsArgs;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The form; all of them when not given.
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// The host by which applications reach this proxy; by default this machine's name.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The schema.
    #[arg(long, default_value = "DATABASE", value_name = "NAME")]
    database: String,
    /// The application's user.
    #[arg(long = "as", default_value = "USER", value_name = "NAME")]
    account: String,
}

/// The ways in which applications write an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Url,
    Jdbc,
    Go,
    Sqlalchemy,
    Pdo,
    Dotnet,
}

impl Form {
    const ALL: [Self; 6] = [Self::Url, Self::Jdbc, Self::Go, Self::Sqlalchemy, Self::Pdo, Self::Dotnet];

    fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Jdbc => "jdbc",
            Self::Go => "go",
            Self::Sqlalchemy => "sqlalchemy",
            Self::Pdo => "pdo",
            Self::Dotnet => "dotnet",
        }
    }

    /// The password stays a word to be replaced: it is not the proxy's to print.
    fn write(self, place: &Place<'_>) -> String {
        let Place { host, port, user, database } = place;
        let in_url = if host.contains(':') { format!("[{host}]") } else { (*host).to_owned() };
        match self {
            Self::Url => format!("mysql://{user}:PASSWORD@{in_url}:{port}/{database}"),
            Self::Jdbc => format!("jdbc:mysql://{in_url}:{port}/{database}?user={user}&password=PASSWORD"),
            Self::Go => format!("{user}:PASSWORD@tcp({in_url}:{port})/{database}"),
            Self::Sqlalchemy => format!("mysql+pymysql://{user}:PASSWORD@{in_url}:{port}/{database}"),
            Self::Pdo => format!("mysql:host={host};port={port};dbname={database}"),
            Self::Dotnet => format!("Server={host};Port={port};Database={database};Uid={user};Pwd=PASSWORD"),
        }
    }
}

struct Place<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    database: &'a str,
}

pub(super) fn run(arguments: &Arguments, format: Format) -> Outcome {
    let config = arguments.settings.load()?.config;
    let forms = arguments.format.map_or_else(|| Form::ALL.to_vec(), |form| vec![form]);
    let mut rows = Vec::new();
    for (listener, settings) in [("rw", &config.listen.rw), ("ro", &config.listen.ro)] {
        let Some((host, port)) = reach(settings, arguments.host.as_deref()) else { continue };
        let place = Place { host: &host, port, user: &arguments.account, database: &arguments.database };
        rows.extend(forms.iter().map(|form| (listener, form.name(), form.write(&place))));
    }
    if rows.is_empty() {
        return Err(Failure::usage(
            "no listener has a TCP address; applications connect through the Unix socket",
        ));
    }
    print(&config, &rows, format)?;
    Ok(Exit::Ok)
}

fn print(config: &Config, rows: &[(&str, &str, String)], format: Format) -> Result<(), Failure> {
    let value: Vec<_> = rows
        .iter()
        .map(|(listener, form, dsn)| json!({ "listener": listener, "format": form, "dsn": dsn }))
        .collect();
    let value = json!({ "cluster": config.cluster, "dsns": value });
    format.print(&value, || {
        // One line can be pasted as it is.
        if let [(_, _, dsn)] = rows {
            return dsn.clone();
        }
        let mut table = Table::new(&["LISTENER", "FORMAT", "DSN"]);
        for (listener, form, dsn) in rows {
            table.row(vec![(*listener).to_owned(), (*form).to_owned(), dsn.clone()]);
        }
        table.render()
    })
}

/// Host and port for applications; a listener on every address is reached by this machine's name.
fn reach(listener: &Listener, host: Option<&str>) -> Option<(String, u16)> {
    let address = HostPort::parse(&listener.address)?;
    let any = matches!(address.host.as_str(), "" | "0.0.0.0" | "::");
    let own = if any { machine_name() } else { address.host };
    Some((host.map_or(own, str::to_owned), address.port))
}

fn machine_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let check = |form: Form, host: &str, expected: &str| {
            let place = Place { host, port: 3306, user: "app", database: "shop" };
            assert_eq!(form.write(&place), expected);
        };
        check(Form::Url, "proxy", "mysql://app:PASSWORD@proxy:3306/shop");
        check(Form::Url, "::1", "mysql://app:PASSWORD@[::1]:3306/shop");
        check(Form::Jdbc, "proxy", "jdbc:mysql://proxy:3306/shop?user=app&password=PASSWORD");
        check(Form::Go, "proxy", "app:PASSWORD@tcp(proxy:3306)/shop");
        check(Form::Sqlalchemy, "proxy", "mysql+pymysql://app:PASSWORD@proxy:3306/shop");
        check(Form::Pdo, "::1", "mysql:host=::1;port=3306;dbname=shop");
        check(Form::Dotnet, "proxy", "Server=proxy;Port=3306;Database=shop;Uid=app;Pwd=PASSWORD");
    }
}
