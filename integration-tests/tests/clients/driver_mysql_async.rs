//! mysql_async.

use std::pin::Pin;

use mysql_async::prelude::Queryable;
use mysql_async::{
    ChangeUserOpts, Compression, Conn, Error, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, SslOpts,
    TxOpts, Value, WhiteListFsHandler,
};
use pointsman_integration_tests::{Failure, Outcome};

use super::report::{HUNDRED_THOUSAND, LARGE, PAYLOAD_BYTE, Report, TABLES, UNICODE, expect};
use super::{Contract, HOST, PASSWORD, USER};

type Kept<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
/// The columns of the promise about values.
type Values = (Option<u8>, i64, u64, Vec<u8>, String);
type Promise = (&'static str, for<'a> fn(&'a Contract) -> Kept<'a>);

/// Keeps every promise on a connection of its own.
pub(crate) async fn run(contract: &Contract) -> Report {
    let mut report = Report::new("mysql_async 0.37".to_owned());
    report.add("connect", connect(contract).await);
    for (name, promise) in PROMISES {
        report.add(name, promise(contract).await);
    }
    report.end();
    report
}

const PROMISES: [Promise; 19] = [
    ("wrong-password", |c| Box::pin(wrong_password(c))),
    ("unknown-schema", |c| Box::pin(unknown_schema(c))),
    ("ping", |c| Box::pin(ping(c))),
    ("values", |c| Box::pin(values(c))),
    ("unicode", |c| Box::pin(unicode(c))),
    ("prepared-reuse", |c| Box::pin(prepared_reuse(c))),
    ("counts", |c| Box::pin(counts(c))),
    ("read-your-writes", |c| Box::pin(read_your_writes(c))),
    ("transactions", |c| Box::pin(transactions(c))),
    ("errors", |c| Box::pin(errors(c))),
    ("many-rows", |c| Box::pin(many_rows(c))),
    ("large-row", |c| Box::pin(large_row(c))),
    ("local-infile", |c| Box::pin(local_infile(c))),
    ("call", |c| Box::pin(call(c))),
    ("multi-statements", |c| Box::pin(multi_statements(c))),
    ("session-state", |c| Box::pin(session_state(c))),
    ("compression", |c| Box::pin(compression(c))),
    ("change-user", |c| Box::pin(change_user(c))),
    ("pool", |c| Box::pin(pool(c))),
];

fn options(contract: &Contract) -> OptsBuilder {
    let tls =
        SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
    OptsBuilder::default()
        .ip_or_hostname(HOST)
        .tcp_port(contract.port)
        .user(Some(USER))
        .pass(Some(PASSWORD))
        .db_name(Some(&contract.schema))
        .prefer_socket(false)
        .ssl_opts(contract.tls.then_some(tls))
}

async fn open(contract: &Contract) -> Result<Conn, Failure> {
    Ok(Conn::new(options(contract)).await?)
}

/// The first value of the first row.
async fn value<T>(conn: &mut Conn, sql: &str) -> Result<T, Failure>
where
    T: mysql_async::prelude::FromValue + Send + 'static,
{
    conn.query_first(sql).await?.ok_or_else(|| format!("expected a row, got none: {sql}").into())
}

fn fails<T>(code: u16, sqlstate: &str, outcome: Result<T, Error>) -> Outcome {
    match outcome {
        Err(Error::Server(error)) => expect((error.code, error.state.as_str()), (code, sqlstate)),
        Err(other) => Err(format!("expected error {code}, got {other}").into()),
        Ok(_) => Err(format!("expected error {code}, got none").into()),
    }
}

async fn count(contract: &Contract, name: &str) -> Result<u64, Failure> {
    let mut conn = open(contract).await?;
    let count = value(&mut conn, &format!("SELECT COUNT(*) FROM journeys WHERE name = '{name}'")).await?;
    conn.disconnect().await?;
    Ok(count)
}

async fn connect(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    for table in TABLES {
        conn.query_drop(table).await?;
    }
    expect(value::<u8>(&mut conn, "SELECT 1 + 1").await?, 2)?;
    Ok(conn.disconnect().await?)
}

async fn wrong_password(contract: &Contract) -> Outcome {
    fails(1045, "28000", Conn::new(options(contract).pass(Some("wrong"))).await)
}

async fn unknown_schema(contract: &Contract) -> Outcome {
    let missing = format!("{}_missing", contract.schema);
    fails(1049, "42000", Conn::new(options(contract).db_name(Some(missing))).await)
}

async fn ping(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.ping().await?;
    conn.reset().await?;
    conn.ping().await?;
    Ok(())
}

async fn values(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let sql = "SELECT ?, -9223372036854775808, 18446744073709551615, CAST(? AS BINARY), ?";
    let row: Option<Values> = conn.exec_first(sql, (Value::NULL, &bytes, "")).await?;
    expect(row, Some((None, i64::MIN, u64::MAX, bytes.clone(), String::new())))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = format!("SELECT NULL, -9223372036854775808, 18446744073709551615, x'{hex}', ''");
    let row: Option<Values> = conn.query_first(sql).await?;
    expect(row, Some((None, i64::MIN, u64::MAX, bytes, String::new())))
}

async fn unicode(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.exec_drop("INSERT INTO journeys (name) VALUES (?)", (UNICODE,)).await?;
    let found: Option<String> =
        conn.exec_first("SELECT name FROM journeys WHERE name = ?", (UNICODE,)).await?;
    expect(found.as_deref(), Some(UNICODE))?;
    expect(value::<String>(&mut conn, &format!("SELECT '{UNICODE}'")).await?, UNICODE.to_owned())
}

async fn prepared_reuse(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let statement = conn.prep("SELECT CAST(? AS SIGNED) * 2").await?;
    for number in 0..20_i64 {
        expect(conn.exec_first(&statement, (number,)).await?, Some(2 * number))?;
    }
    Ok(conn.close(statement).await?)
}

async fn counts(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.query_drop("INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)")
        .await?;
    expect(conn.affected_rows(), 3)?;
    let id = conn.last_insert_id().ok_or("expected an insert id, got none")?;
    expect(value::<u64>(&mut conn, "SELECT LAST_INSERT_ID()").await?, id)?;
    conn.exec_drop("UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", (5,)).await?;
    expect(conn.affected_rows(), 2)?;
    conn.query_drop("SELECT CAST('1x' AS SIGNED)").await?;
    expect(conn.get_warnings(), 1)?;
    let warning: Option<(String, u16, String)> = conn.query_first("SHOW WARNINGS").await?;
    expect(warning.map(|(_, code, _)| code), Some(1292))
}

async fn read_your_writes(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    for number in 0..50_i64 {
        let name = format!("ryw-{number}");
        conn.exec_drop("INSERT INTO journeys (name, amount) VALUES (?, ?)", (&name, number)).await?;
        let found: Vec<i64> = if number % 2 == 0 {
            conn.exec("SELECT amount FROM journeys WHERE name = ?", (&name,)).await?
        } else {
            conn.query(format!("SELECT amount FROM journeys WHERE name = '{name}'")).await?
        };
        expect(found, vec![number])?;
    }
    Ok(())
}

async fn transactions(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    transaction.query_drop("INSERT INTO journeys (name) VALUES ('commit-1')").await?;
    expect(count(contract, "commit-1").await?, 0)?;
    transaction.commit().await?;
    expect(count(contract, "commit-1").await?, 1)?;
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    transaction.query_drop("INSERT INTO journeys (name) VALUES ('rollback-1')").await?;
    let inside: Option<u64> =
        transaction.query_first("SELECT COUNT(*) FROM journeys WHERE name = 'rollback-1'").await?;
    transaction.rollback().await?;
    expect((inside, count(contract, "rollback-1").await?), (Some(1), 0))?;
    let mut reading = conn.start_transaction(TxOpts::default().with_readonly(Some(true)).clone()).await?;
    let seen: Option<u64> =
        reading.query_first("SELECT COUNT(*) FROM journeys WHERE name = 'commit-1'").await?;
    reading.commit().await?;
    expect(seen, Some(1))
}

async fn errors(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    fails(1064, "42000", conn.query_drop("SELEC 1").await)?;
    conn.query_drop("INSERT INTO journeys (name) VALUES ('twice')").await?;
    fails(1062, "23000", conn.query_drop("INSERT INTO journeys (name) VALUES ('twice')").await)?;
    fails(1146, "42S02", conn.exec_drop("SELECT * FROM missing WHERE id = ?", (1,)).await)?;
    expect(value::<u8>(&mut conn, "SELECT 1").await?, 1)
}

async fn many_rows(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let text: Vec<u64> = conn.query(HUNDRED_THOUSAND).await?;
    expect((text.len(), text.iter().sum()), (100_000, 4_999_950_000_u64))?;
    let prepared: Vec<u64> = conn.exec(HUNDRED_THOUSAND, ()).await?;
    expect((prepared.len(), prepared.iter().sum()), (100_000, 4_999_950_000_u64))
}

async fn large_row(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let payload = vec![PAYLOAD_BYTE; LARGE];
    conn.exec_drop("INSERT INTO journeys (name, payload) VALUES ('large', ?)", (&payload,)).await?;
    let text: Vec<u8> = value(&mut conn, "SELECT payload FROM journeys WHERE name = 'large'").await?;
    let prepared: Option<Vec<u8>> =
        conn.exec_first("SELECT payload FROM journeys WHERE name = ?", ("large",)).await?;
    conn.query_drop("DELETE FROM journeys WHERE name = 'large'").await?;
    expect((text == payload, prepared == Some(payload)), (true, true))
}

async fn local_infile(contract: &Contract) -> Outcome {
    let handler = WhiteListFsHandler::new([contract.infile.clone()]);
    let mut conn = Conn::new(options(contract).local_infile_handler(Some(handler))).await?;
    conn.query_drop("CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)")
        .await?;
    let load = "INTO TABLE platforms CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' (n, t)";
    conn.query_drop(format!("LOAD DATA LOCAL INFILE '{}' {load}", contract.infile.display())).await?;
    expect(conn.affected_rows(), 1000)?;
    expect(value::<u64>(&mut conn, "SELECT SUM(n) FROM platforms").await?, 500_500)
}

async fn call(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let mut results = conn.query_iter("CALL two_results(7)").await?;
    let first: Vec<i64> = results.collect().await?;
    let second: Vec<(i64, String)> = results.collect().await?;
    results.drop_result().await?;
    expect((first, second), (vec![7], vec![(8, "x".to_owned())]))?;
    let mut results = conn.exec_iter("CALL two_results(?)", (7,)).await?;
    let first: Vec<i64> = results.collect().await?;
    results.drop_result().await?;
    expect(first, vec![7])
}

async fn multi_statements(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    let sql = "SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2";
    let mut results = conn.query_iter(sql).await?;
    let first: Vec<i64> = results.collect().await?;
    let _: Vec<i64> = results.collect().await?;
    let last: Vec<i64> = results.collect().await?;
    results.drop_result().await?;
    expect((first, last), (vec![1], vec![2]))?;
    expect(count(contract, "multi").await?, 1)
}

async fn session_state(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.query_drop("SET @stay = 'put'").await?;
    conn.query_drop("CREATE TEMPORARY TABLE passengers (n INT)").await?;
    conn.query_drop("INSERT INTO passengers VALUES (1), (2)").await?;
    for _ in 0..5 {
        expect(value::<String>(&mut conn, "SELECT @stay").await?, "put".to_owned())?;
        expect(value::<u8>(&mut conn, "SELECT COUNT(*) FROM passengers").await?, 2)?;
    }
    expect(value::<u32>(&mut conn, "SELECT CONNECTION_ID()").await?, conn.id())
}

async fn compression(contract: &Contract) -> Outcome {
    let mut conn = Conn::new(options(contract).compression(Compression::default())).await?;
    let rows: Vec<u64> = conn.query(HUNDRED_THOUSAND).await?;
    expect(rows.len(), 100_000)
}

async fn change_user(contract: &Contract) -> Outcome {
    let mut conn = open(contract).await?;
    conn.query_drop("SET @stay = 'put'").await?;
    conn.change_user(ChangeUserOpts::default()).await?;
    expect(value::<Option<String>>(&mut conn, "SELECT @stay").await?, None)?;
    expect(value::<String>(&mut conn, "SELECT DATABASE()").await?, contract.schema.clone())
}

async fn pool(contract: &Contract) -> Outcome {
    let constraints = PoolConstraints::new(1, 2).ok_or("expected limits of a pool")?;
    let options: Opts = options(contract).pool_opts(PoolOpts::default().with_constraints(constraints)).into();
    let pool = Pool::new(options);
    for _ in 0..20 {
        // Given back, a connection is reset before it is given out again.
        let mut conn = pool.get_conn().await?;
        expect(value::<Option<String>>(&mut conn, "SELECT @stay").await?, None)?;
        conn.query_drop("SET @stay = 'put'").await?;
    }
    Ok(pool.disconnect().await?)
}
