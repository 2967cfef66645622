//! Every account of the primary is mirrored, chosen as the server chooses it, and known at once when it is new.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use pointsman::cluster::{self, ServiceAccount};
use pointsman::net::ClientAddress;
use pointsman::users::reader::Reader;
use pointsman::users::{Account, Users};
use pointsman_config::{Config, Secret, Server};
use pointsman_integration_tests::sandbox::{Options, SERVICE, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::sync::watch;

/// Within this time everything that is waited for has happened.
const LIMIT: Duration = Duration::from_secs(10);
/// Who asks waits for one reading of the accounts, and not for the next one that is due.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// Much longer than reading the accounts takes.
const AT_ONCE: Duration = Duration::from_secs(1);

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let sandbox = Options { flavour, replicas: 0, ..Options::default() };
        let stage = suite.stage(Plan { sandbox, configuration: String::new() });
        suite.test(&stage, "the account is the one that the server chooses", chosen_as_the_server_does);
        suite.test(&stage, "changes are known at once", changes_are_known);
        suite.test(&stage, "who is stopped by read_only is known", stopped_by_read_only);
        suite.test(&stage, "a service account without rights is told what it lacks", rights_are_missing);
    }
    suite.run()
}

/// The accounts of a sandbox, as a proxy sees them.
struct Mirror {
    users: Arc<Users>,
    _handle: cluster::Handle,
}

impl Mirror {
    fn start(sandbox: &Sandbox, service: (&str, &str)) -> Self {
        let primary = sandbox.primary();
        let server =
            Server { name: primary.name().to_owned(), address: primary.address(), ..Server::default() };
        let config = Config {
            servers: vec![server],
            user: service.0.to_owned(),
            password: Secret::new(service.1),
            ..Config::default()
        };
        let (sender, topology) = watch::channel(Arc::default());
        let account = Arc::new(ServiceAccount::new(&config));
        let handle = cluster::start(&config, &account, sender, Instant::now(), None);
        let users = Users::new(&config);
        // Nothing is read by chance during a test.
        let period = Duration::from_secs(3600);
        let reader = Reader { users: users.clone(), account, topology, period };
        tokio::spawn(reader.run());
        Self { users, _handle: handle }
    }

    async fn ready(sandbox: &Sandbox) -> Self {
        let mirror = Self::start(sandbox, SERVICE);
        assert!(tokio::time::timeout(LIMIT, mirror.users.ready()).await.is_ok(), "accounts were not read");
        mirror
    }

    fn find(&self, user: &str) -> Option<Arc<Account>> {
        self.users.find(user.as_bytes(), &here())
    }
}

/// Where this test's own connections come from.
fn here() -> ClientAddress {
    ClientAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 40_000)))
}

async fn chosen_as_the_server_does(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let server = sandbox.primary();
    let hosts = [
        "%",
        "127.%",
        "127.0.0.%",
        "12%.1",
        "127.0.0.1",
        "128.%",
        "localhost",
        "127.0.0.0/255.255.255.0",
        "10.%",
        "127.0.%",
        "_27.0.0.1",
    ];
    // Of each number of the patterns a user, so that every one of them is the best of some.
    for from in 0..hosts.len() {
        for host in &hosts[from..] {
            let user = format!("CREATE USER u{from}@'{host}' IDENTIFIED BY 'pw'");
            server.run(&[user.as_str()]).await?;
        }
    }
    let mirror = Mirror::ready(&sandbox).await;
    let mut users: Vec<String> = (0..hosts.len()).map(|from| format!("u{from}")).collect();
    check_choice(&sandbox, &mirror, &users).await?;
    // An anonymous account takes those over whose own host is less specific; not the service account, please.
    let (service, password) = SERVICE;
    let own = format!("CREATE USER {service}@'127.0.0.1' IDENTIFIED BY '{password}'");
    let rights = format!("GRANT ALL ON *.* TO {service}@'127.0.0.1'");
    server.run(&[own.as_str(), rights.as_str()]).await?;
    server.run(&["CREATE USER ''@'127.0.0.%' IDENTIFIED BY 'pw'"]).await?;
    assert!(mirror.users.refresh_for(&here()).await);
    users.push("nobody".to_owned());
    check_choice(&sandbox, &mirror, &users).await?;
    let own = format!("DROP USER {service}@'127.0.0.1'");
    server.run(&["DROP USER ''@'127.0.0.%'", own.as_str()]).await?;
    Ok(())
}

async fn check_choice(sandbox: &Sandbox, mirror: &Mirror, users: &[String]) -> Outcome {
    for user in users {
        let chosen = match sandbox.primary().connect_as((user, "pw"), "").await {
            Ok(mut conn) => conn.query_first::<String, _>("SELECT CURRENT_USER()").await?,
            Err(_) => None,
        };
        let found = mirror.find(user).map(|account| format!("{}@{}", account.user, account.host));
        assert_eq!(found, chosen, "for {user}");
    }
    Ok(())
}

async fn changes_are_known(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let server = sandbox.primary();
    let mirror = Mirror::ready(&sandbox).await;
    let app = mirror.find("app").expect("the application's account");
    assert!(mirror.find("fresh").is_none());
    server.run(&["CREATE USER fresh@'%' IDENTIFIED BY 'one'"]).await?;
    let asked = Instant::now();
    assert!(mirror.users.refresh_for(&here()).await);
    assert!(asked.elapsed() < ASKED_WITHIN, "read after {:?}", asked.elapsed());
    let first = mirror.find("fresh").expect("the new account");

    server.run(&["ALTER USER fresh@'%' IDENTIFIED BY 'two'"]).await?;
    mirror.users.notice();
    let newer = |known: &Arc<Account>| known.id == first.id && known.version > first.version;
    eventually("the new password", LIMIT, async || mirror.find("fresh").as_ref().is_some_and(newer)).await;
    server.run(&["ALTER USER fresh@'%' ACCOUNT LOCK"]).await?;
    mirror.users.notice();
    eventually("the lock", LIMIT, async || mirror.find("fresh").is_some_and(|known| known.locked)).await;
    server.run(&["DROP USER fresh@'%'"]).await?;
    mirror.users.notice();
    eventually("the end", LIMIT, async || mirror.find("fresh").is_none()).await;
    let same = mirror.find("app").expect("the application's account");
    assert_eq!((same.id, same.version), (app.id, app.version));
    Ok(())
}

async fn stopped_by_read_only(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let server = sandbox.primary();
    let admin = match stage.flavour() {
        Flavour::Mariadb => "READ ONLY ADMIN",
        Flavour::Mysql => "CONNECTION_ADMIN",
    };
    let mut setup =
        vec!["CREATE TABLE app.written (id INT)".to_owned(), "CREATE ROLE passing, outer_role".to_owned()];
    setup.extend([format!("GRANT {admin} ON *.* TO passing"), "GRANT passing TO outer_role".to_owned()]);
    let users = ["plain", "admin", "super", "by_role", "by_outer"];
    for user in users {
        setup.push(format!("CREATE USER w_{user}@'%' IDENTIFIED BY 'pw'"));
        setup.push(format!("GRANT ALL ON app.* TO w_{user}@'%'"));
    }
    setup.push(format!("GRANT {admin} ON *.* TO w_admin@'%'"));
    setup.push("GRANT SUPER ON *.* TO w_super@'%'".to_owned());
    for (user, role) in [("by_role", "passing"), ("by_outer", "outer_role")] {
        setup.push(format!("GRANT {role} TO w_{user}@'%'"));
        setup.push(match stage.flavour() {
            Flavour::Mariadb => format!("SET DEFAULT ROLE {role} FOR w_{user}@'%'"),
            Flavour::Mysql => format!("SET DEFAULT ROLE {role} TO w_{user}@'%'"),
        });
    }
    let setup: Vec<&str> = setup.iter().map(String::as_str).collect();
    server.run(&setup).await?;
    let mirror = Mirror::ready(&sandbox).await;
    server.run(&["SET GLOBAL read_only = 1"]).await?;
    for user in users {
        let name = format!("w_{user}");
        let mut conn = server.connect_as((&name, "pw"), "app").await?;
        let refused = conn.query_drop("INSERT INTO written VALUES (1)").await.is_err();
        let known = mirror.find(&name).expect("the account").stopped_by_read_only;
        assert_eq!(known, refused, "{name}");
    }
    server.run(&["SET GLOBAL read_only = 0"]).await?;
    // The sandbox's own account with all rights, and the one that has none.
    assert!(!mirror.find("dba").expect("the account").stopped_by_read_only);
    assert!(mirror.find("dba").expect("the account").privileged);
    assert!(!mirror.find("app").expect("the account").privileged);
    Ok(())
}

async fn rights_are_missing(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let server = sandbox.primary();
    let table = match stage.flavour() {
        Flavour::Mariadb => "global_priv",
        Flavour::Mysql => "user",
    };
    server.run(&["CREATE USER poor@'%' IDENTIFIED BY 'poor'"]).await?;
    let replication = match stage.flavour() {
        Flavour::Mariadb => "GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO poor@'%'",
        Flavour::Mysql => "GRANT REPLICATION CLIENT ON *.* TO poor@'%'",
    };
    server.run(&[replication]).await?;
    let mirror = Mirror::start(&sandbox, ("poor", "poor"));
    assert!(tokio::time::timeout(AT_ONCE, mirror.users.ready()).await.is_err());
    assert!(!mirror.users.refresh_for(&here()).await);
    let grant = format!("GRANT SELECT ON mysql.{table} TO poor@'%'");
    server.run(&[grant.as_str()]).await?;
    eventually("the accounts are read", LIMIT, async || mirror.find("app").is_some()).await;
    // Who passes read_only by a role or a dynamic privilege stands in tables that may still not be read.
    assert!(!mirror.find("w_by_role").expect("the account").stopped_by_read_only);
    Ok(())
}
