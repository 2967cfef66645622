//! What a server answers to one step, in a form that can be compared.

use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Column, Conn, Error, Params, QueryResult, Row, Value};
use pointsman_integration_tests::Failure;

use crate::script::Step;

/// All results of one statement, then its error.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    sets: Vec<Set>,
    error: Option<(u16, String, String)>,
}

#[derive(Debug, Default, PartialEq)]
struct Set {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    affected_rows: u64,
    last_insert_id: Option<u64>,
    warnings: u16,
    info: String,
}

impl Answer {
    /// # Errors
    ///
    /// When the connection breaks, which is not an answer.
    pub(crate) async fn of(conn: &mut Conn, step: &Step) -> Result<Self, Failure> {
        let mut answer = Self { sets: Vec::new(), error: None };
        let outcome = match step {
            Step::Text(sql) => match conn.query_iter(sql.as_str()).await {
                Ok(result) => answer.take(result).await,
                Err(error) => Err(error),
            },
            Step::Binary(sql, values) => match conn.exec_iter(sql.as_str(), positional(values)).await {
                Ok(result) => answer.take(result).await,
                Err(error) => Err(error),
            },
            Step::Reset => conn.reset().await.map(drop),
            Step::Reconnect => Ok(()),
        };
        match outcome {
            Ok(()) => Ok(answer),
            Err(Error::Server(error)) => {
                answer.error = Some((error.code, error.state, error.message));
                // The driver reports an error behind a first result once more at the next use of the connection.
                if !answer.sets.is_empty() || step.to_string().contains("; ") {
                    drop(conn.ping().await);
                }
                Ok(answer)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn take<P: Protocol>(&mut self, mut result: QueryResult<'_, '_, P>) -> Result<(), Error> {
        loop {
            let mut columns: Vec<String> = result.columns_ref().iter().map(describe).collect();
            let mut set = Set::end_of(&result);
            // Also takes what has no rows, and goes on to the next result.
            let rows: Vec<Row> = result.collect().await?;
            if !columns.is_empty() {
                set = Set::end_of(&result);
            }
            let rows: Vec<Vec<Value>> = rows.into_iter().map(Row::unwrap).collect();
            for (at, column) in columns.iter_mut().enumerate() {
                // The type of a user variable that is NULL is that of its last value, which MySQL keeps on the connection.
                let is_null = rows.iter().all(|row| row.get(at) == Some(&Value::NULL));
                if is_null && column.starts_with('@') && !column.starts_with("@@") {
                    "a user variable".clone_into(column);
                }
            }
            let shown = |row: &Vec<Value>| row.iter().map(|value| value.as_sql(true)).collect();
            self.sets.push(Set { columns, rows: rows.iter().map(shown).collect(), ..set });
            if result.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Set {
    /// What the packet that ended the latest result said.
    fn end_of<P: Protocol>(result: &QueryResult<'_, '_, P>) -> Self {
        Self {
            affected_rows: result.affected_rows(),
            last_insert_id: result.last_insert_id(),
            warnings: result.warnings(),
            info: result.info().into_owned(),
            ..Self::default()
        }
    }
}

fn describe(column: &Column) -> String {
    format!(
        "{} {:?} {:?} {}",
        column.name_str(),
        column.column_type(),
        column.flags(),
        column.character_set()
    )
}

fn positional(values: &[Value]) -> Params {
    if values.is_empty() { Params::Empty } else { Params::Positional(values.to_vec()) }
}
