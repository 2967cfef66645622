//! The names and passwords that open the servers open the proxy, and what closes the servers closes it, in the same
//! words.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, OptsBuilder, SslOpts};
use pointsman_integration_tests::sandbox::{APP, DBA};
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, Outcome, Plan, Proxy, Stage, Suite};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan::new(flavour));
        // First of all: how often an address may have the accounts read again is limited.
        suite.test(&stage, "an account made a moment ago is let in", new_account);
        suite.test(&stage, "a password changed a moment ago counts, the old one does not", new_password);
        suite.test(&stage, "the answer to a login is the server's", same_words);
        suite.test(&stage, "passwords cross with TLS and without", with_and_without_tls);
        suite.test(&stage, "a hundred logins at once", many_logins);
        suite.test(&stage, "the user of a connection changes", change_of_user);
        suite.test(&stage, "an expired password can be changed and nothing else", expired_password);
        suite.test(&stage, "without a primary a replica's word is enough", no_primary);
        let mut plan = Plan::new(flavour);
        plan.sandbox.replicas = 1;
        plan.sandbox.options.push("--character-set-server=latin1".to_owned());
        let stage = suite.stage(plan);
        suite.test(
            &stage,
            "a reset leads to the character set that the server gives",
            character_set_of_reset,
        );
    }
    suite.run()
}

/// What came of a login, as a client can tell: nothing, or the error's code and text.
type Told = Option<(u16, String)>;

async fn told(options: OptsBuilder) -> Result<Told, Failure> {
    match tokio::time::timeout(LIMIT, Conn::new(options)).await? {
        Ok(mut client) => {
            client.query_drop("SELECT 1").await?;
            client.disconnect().await?;
            Ok(None)
        }
        Err(mysql_async::Error::Server(error)) => {
            // We do not ask for the name of an address; whether a server does is its own setting.
            Ok(Some((error.code, error.message.replace("@'localhost'", "@'127.0.0.1'"))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The proxy, started when the accounts that servers refuse were there already.
async fn proxy(stage: &Stage) -> Result<Arc<Proxy>, Failure> {
    let accounts = [
        "CREATE USER IF NOT EXISTS locked@'%' IDENTIFIED BY 'locked' ACCOUNT LOCK",
        "CREATE USER IF NOT EXISTS expired@'%' IDENTIFIED BY 'old' PASSWORD EXPIRE",
    ];
    stage.sandbox().await?.primary().run(&accounts).await?;
    stage.proxy().await
}

/// What a server says of a user whom it does not know, also where it asks with a plugin that the driver lacks.
fn unknown_user((user, password): (&str, &str)) -> Told {
    let given = if password.is_empty() { "NO" } else { "YES" };
    Some((1045, format!("Access denied for user '{user}'@'127.0.0.1' (using password: {given})")))
}

async fn same_words(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let sandbox = stage.sandbox().await?;
    let primary = sandbox.primary();
    let logins = [
        (APP, "app"),
        (APP, ""),
        ((APP.0, "wrong"), "app"),
        ((APP.0, ""), "app"),
        (("nobody", "any"), ""),
        (("nobody", ""), ""),
        (("nopassword", ""), "app"),
        (("nopassword", "any"), "app"),
        (APP, "nowhere"),
        (APP, "mysql"),
        (DBA, "mysql"),
        (("locked", "locked"), ""),
    ];
    for (account, schema) in logins {
        let direct = proxy.options(account, schema).tcp_port(primary.port());
        let expected = match told(direct).await {
            Err(_) if account.0 == "nobody" => unknown_user(account),
            told => told?,
        };
        let found = told(proxy.options(account, schema)).await?;
        assert_eq!(found, expected, "{account:?} in schema {schema:?}");
    }
    Ok(())
}

async fn new_account(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let sandbox = stage.sandbox().await?;
    sandbox.primary().run(&["CREATE USER fresh@'%' IDENTIFIED BY 'a'"]).await?;
    let mut client = proxy.connect(("fresh", "a"), "").await?;
    let account: Option<String> = client.query_first("SELECT CURRENT_USER()").await?;
    assert_eq!(account.as_deref(), Some("fresh@%"));
    client.disconnect().await?;
    sandbox.primary().run(&["DROP USER fresh@'%'"]).await?;
    Ok(())
}

async fn new_password(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let sandbox = stage.sandbox().await?;
    sandbox.primary().run(&["CREATE USER changing@'%' IDENTIFIED BY 'old'"]).await?;
    // A session that stays, and the connection that it leaves in the pool, must not let the old password in.
    let mut staying = proxy.connect(("changing", "old"), "").await?;
    staying.query_drop("SELECT 1").await?;
    sandbox.primary().run(&["ALTER USER changing@'%' IDENTIFIED BY 'new'"]).await?;
    proxy.connect(("changing", "new"), "").await?.disconnect().await?;
    assert_eq!(told(proxy.options(("changing", "old"), "")).await?.map(|(code, _)| code), Some(1045));
    proxy.connect(("changing", "new"), "").await?.disconnect().await?;
    staying.disconnect().await?;
    sandbox.primary().run(&["DROP USER changing@'%'"]).await?;
    Ok(())
}

async fn with_and_without_tls(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let tls = || SslOpts::default().with_danger_accept_invalid_certs(true);
    for account in [APP, DBA, ("nopassword", "")] {
        // Twice each way: the first login may be the one by which the proxy learns the password.
        for _ in 0..2 {
            assert_eq!(told(proxy.options(account, "")).await?, None, "{account:?} without TLS");
            assert_eq!(told(proxy.options(account, "").ssl_opts(tls())).await?, None, "{account:?} with TLS");
        }
    }
    let wrong = told(proxy.options((APP.0, "wrong"), "").ssl_opts(tls())).await?;
    assert_eq!(wrong.map(|(code, _)| code), Some(1045));
    // REQUIRE SSL.
    assert_eq!(told(proxy.options(("tls", "tls"), "")).await?.map(|(code, _)| code), Some(1045));
    Ok(())
}

async fn many_logins(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let clients: Vec<_> = (0..LOGINS)
        .map(|at| {
            let account = if at % 2 == 0 { APP } else { DBA };
            tokio::spawn(told(proxy.options(account, "app")))
        })
        .collect();
    for client in clients {
        assert_eq!(client.await??, None);
    }
    Ok(())
}

async fn change_of_user(stage: Arc<Stage>) -> Outcome {
    let mut client = stage.client().await?;
    client.query_drop("SET @mine = 1").await?;
    for (user, password) in [DBA, ("nopassword", ""), APP] {
        let wanted = ChangeUserOpts::new()
            .with_user(Some(user.to_owned()))
            .with_pass(Some(password.to_owned()))
            .with_db_name(Some("app".to_owned()));
        client.change_user(wanted).await?;
        let found: Option<(String, String, Option<u8>)> =
            client.query_first("SELECT CURRENT_USER(), DATABASE(), @mine").await?;
        assert_eq!(found, Some((format!("{user}@%"), "app".to_owned(), None)));
    }
    let wrong = ChangeUserOpts::new().with_user(Some(DBA.0.to_owned())).with_pass(Some("wrong".to_owned()));
    let Err(mysql_async::Error::Server(refused)) = client.change_user(wrong).await else {
        return Err("expected a refusal".into());
    };
    assert_eq!(refused.code, 1045);
    Ok(())
}

/// MariaDB goes back to the character set of the login, MySQL to its own.
async fn character_set_of_reset(stage: Arc<Stage>) -> Outcome {
    let proxy = stage.proxy().await?;
    let port = stage.sandbox().await?.primary().port();
    let mut seen = Vec::new();
    for options in [proxy.options(APP, "app").tcp_port(port), proxy.options(APP, "app")] {
        let mut client = Conn::new(options).await?;
        client.query_drop("SET NAMES cp1250").await?;
        assert!(client.reset().await?, "the driver has not reset the connection");
        // Of a server that answers a read, and of the primary.
        for sql in [
            "SELECT CHARSET('x'), COLLATION('x'), HEX('é')",
            "SELECT @@character_set_client, @@character_set_results, @@collation_connection",
        ] {
            seen.push(client.query_first::<(String, String, String), _>(sql).await?);
        }
        client.disconnect().await?;
    }
    assert!(seen[0].is_some());
    assert_eq!(seen[2..], seen[..2], "expected what one server says");
    Ok(())
}

async fn expired_password(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let sandbox = stage.sandbox().await?;
    // The driver does not say that it can handle expired passwords: what the server does then is its own setting.
    let direct = proxy.options(("expired", "old"), "").tcp_port(sandbox.primary().port());
    let expected = Conn::new(direct).await.err().map(|error| error.to_string());
    let found = Conn::new(proxy.options(("expired", "old"), "")).await.err().map(|error| error.to_string());
    assert_eq!(found, expected);
    Ok(())
}

async fn no_primary(stage: Arc<Stage>) -> Outcome {
    let proxy = proxy(&stage).await?;
    let sandbox = stage.sandbox().await?;
    sandbox.caught_up(LIMIT).await?;
    sandbox.primary().kill().await?;
    // An account that no session has used yet, so that nothing in a pool can prove it.
    let mut client = proxy.connect(("reader", "reader"), "app").await?;
    let answer: Option<u8> = client.query_first("SELECT 1").await?;
    assert_eq!(answer, Some(1));
    assert_eq!(told(proxy.options(("reader", "wrong"), "")).await?.map(|(code, _)| code), Some(1045));
    client.disconnect().await?;
    sandbox.primary().start().await?;
    proxy.ready(LIMIT).await?;
    if stage.flavour() == Flavour::Mysql {
        // A cold cache: the server asks for the password itself again.
        proxy.connect(APP, "app").await?.disconnect().await?;
    }
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(20);
const LOGINS: usize = 100;
