//! sqlx.

use std::pin::Pin;

use pointsman_integration_tests::{Failure, Outcome};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPoolOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::report::{HUNDRED_THOUSAND, LARGE, PAYLOAD_BYTE, Report, TABLES, UNICODE, expect};
use super::{Contract, HOST, PASSWORD, USER};

type Kept<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
type Promise = (&'static str, for<'a> fn(&'a Contract) -> Kept<'a>);

/// Keeps every promise on a connection of its own.
pub(crate) async fn run(contract: &Contract) -> Report {
    let mut report = Report::new("sqlx 0.8".to_owned());
    report.add("connect", connect(contract).await);
    for (name, promise) in PROMISES {
        report.add(name, promise(contract).await);
    }
    report.end();
    report
}

const PROMISES: [Promise; 13] = [
    ("wrong-password", |c| Box::pin(wrong_password(c))),
    ("unknown-schema", |c| Box::pin(unknown_schema(c))),
    ("ping", |c| Box::pin(ping(c))),
    ("values", |c| Box::pin(values(c))),
    ("unicode", |c| Box::pin(unicode(c))),
    ("counts", |c| Box::pin(counts(c))),
    ("read-your-writes", |c| Box::pin(read_your_writes(c))),
    ("transactions", |c| Box::pin(transactions(c))),
    ("errors", |c| Box::pin(errors(c))),
    ("many-rows", |c| Box::pin(many_rows(c))),
    ("large-row", |c| Box::pin(large_row(c))),
    ("session-state", |c| Box::pin(session_state(c))),
    ("pool", |c| Box::pin(pool(c))),
];

fn options(contract: &Contract) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host(HOST)
        .port(contract.port)
        .username(USER)
        .password(PASSWORD)
        .database(&contract.schema)
        .ssl_mode(if contract.tls { MySqlSslMode::Required } else { MySqlSslMode::Disabled })
}

async fn open(contract: &Contract) -> Result<MySqlConnection, Failure> {
    Ok(options(contract).connect().await?)
}

fn fails<T>(code: u16, sqlstate: &str, outcome: Result<T, sqlx::Error>) -> Outcome {
    let error = match outcome {
        Err(sqlx::Error::Database(error)) => error,
        Err(other) => return Err(format!("expected error {code}, got {other}").into()),
        Ok(_) => return Err(format!("expected error {code}, got none").into()),
    };
    expect(error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number), Some(code))?;
    expect(error.code().as_deref(), Some(sqlstate))
}

async fn count(contract: &Contract, name: &str) -> Result<i64, Failure> {
    let mut conn = open(contract).await?;
    let sql = "SELECT COUNT(*) FROM journeys WHERE name = ?";
    let count = sqlx::query_scalar(sql).bind(name).fetch_one(&mut conn).await?;
    conn.close().await?;
    Ok(count)
}

async fn connect(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    for table in TABLES {
        conn.execute(table).await?;
    }
    expect(sqlx::query_scalar::<_, i64>("SELECT 1 + 1").fetch_one(&mut conn).await?, 2)?;
    Ok(conn.close().await?)
}

async fn wrong_password(contract: &Contract) -> Outcome {
    fails(1045, "28000", options(contract).password("wrong").connect().await)
}

async fn unknown_schema(contract: &Contract) -> Outcome {
    let missing = format!("{}_missing", contract.schema);
    fails(1049, "42000", options(contract).database(&missing).connect().await)
}

async fn ping(contract: &Contract) -> Outcome {
    Ok(open(contract).await?.ping().await?)
}

async fn values(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let sql = "SELECT ?, -9223372036854775808, 18446744073709551615, CAST(? AS BINARY)";
    let row = sqlx::query(sql).bind(None::<String>).bind(&bytes).fetch_one(&mut conn).await?;
    expect(row.try_get::<Option<String>, _>(0)?, None)?;
    expect((row.try_get::<i64, _>(1)?, row.try_get::<u64, _>(2)?), (i64::MIN, u64::MAX))?;
    expect(row.try_get::<Vec<u8>, _>(3)?, bytes)
}

async fn unicode(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    sqlx::query("INSERT INTO journeys (name) VALUES (?)").bind(UNICODE).execute(&mut conn).await?;
    let sql = "SELECT name FROM journeys WHERE name = ?";
    let found: String = sqlx::query_scalar(sql).bind(UNICODE).fetch_one(&mut conn).await?;
    expect(found.as_str(), UNICODE)
}

async fn counts(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let insert = "INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)";
    let inserted = sqlx::query(insert).execute(&mut conn).await?;
    expect(inserted.rows_affected(), 3)?;
    let id: u64 = sqlx::query_scalar("SELECT LAST_INSERT_ID()").fetch_one(&mut conn).await?;
    expect(inserted.last_insert_id(), id)?;
    let update = "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1";
    expect(sqlx::query(update).bind(5).execute(&mut conn).await?.rows_affected(), 2)
}

async fn read_your_writes(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    for number in 0..50_i64 {
        let name = format!("ryw-{number}");
        let insert = "INSERT INTO journeys (name, amount) VALUES (?, ?)";
        sqlx::query(insert).bind(&name).bind(number).execute(&mut conn).await?;
        let sql = "SELECT amount FROM journeys WHERE name = ?";
        let found: Vec<i64> = sqlx::query_scalar(sql).bind(&name).fetch_all(&mut conn).await?;
        expect(found, vec![number])?;
    }
    Ok(())
}

async fn transactions(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let mut transaction = conn.begin().await?;
    transaction.execute("INSERT INTO journeys (name) VALUES ('commit-1')").await?;
    expect(count(contract, "commit-1").await?, 0)?;
    transaction.commit().await?;
    expect(count(contract, "commit-1").await?, 1)?;
    let mut transaction = conn.begin().await?;
    transaction.execute("INSERT INTO journeys (name) VALUES ('rollback-1')").await?;
    let mut savepoint = transaction.begin().await?;
    savepoint.execute("INSERT INTO journeys (name) VALUES ('rollback-2')").await?;
    savepoint.rollback().await?;
    let inside: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM journeys WHERE name LIKE 'rollback-%'")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    expect((inside, count(contract, "rollback-1").await?), (1, 0))
}

async fn errors(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    fails(1064, "42000", conn.execute("SELEC 1").await)?;
    conn.execute("INSERT INTO journeys (name) VALUES ('twice')").await?;
    fails(1062, "23000", conn.execute("INSERT INTO journeys (name) VALUES ('twice')").await)?;
    fails(1146, "42S02", sqlx::query("SELECT * FROM missing WHERE id = ?").bind(1).execute(&mut conn).await)?;
    expect(sqlx::query_scalar::<_, i64>("SELECT 1").fetch_one(&mut conn).await?, 1)
}

async fn many_rows(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let rows: Vec<u64> = sqlx::query_scalar(HUNDRED_THOUSAND).fetch_all(&mut conn).await?;
    expect((rows.len(), rows.iter().sum()), (100_000, 4_999_950_000_u64))
}

async fn large_row(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let payload = vec![PAYLOAD_BYTE; LARGE];
    let insert = "INSERT INTO journeys (name, payload) VALUES ('large', ?)";
    sqlx::query(insert).bind(&payload).execute(&mut conn).await?;
    let sql = "SELECT payload FROM journeys WHERE name = 'large'";
    let back: Vec<u8> = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
    conn.execute("DELETE FROM journeys WHERE name = 'large'").await?;
    expect(back == payload, true)
}

async fn session_state(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.execute("SET @stay = 'put'").await?;
    conn.execute("CREATE TEMPORARY TABLE passengers (n INT)").await?;
    conn.execute("INSERT INTO passengers VALUES (1), (2)").await?;
    for _ in 0..5 {
        expect(
            sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM passengers").fetch_one(&mut conn).await?,
            2,
        )?;
        expect(sqlx::query_scalar::<_, i64>("SELECT @stay = 'put'").fetch_one(&mut conn).await?, 1)?;
    }
    Ok(())
}

async fn pool(contract: &Contract) -> Outcome {
    // It pings a connection before it hands it out, and rolls back what was left open.
    let pool = MySqlPoolOptions::new()
        .max_connections(2)
        .test_before_acquire(true)
        .connect_with(options(contract))
        .await?;
    for _ in 0..10 {
        let mut transaction = pool.begin().await?;
        transaction.execute("INSERT INTO journeys (name) VALUES ('pool')").await?;
    }
    let left: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM journeys WHERE name = 'pool'").fetch_one(&pool).await?;
    pool.close().await;
    expect(left, 0)
}
