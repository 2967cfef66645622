//! Random statements of one session, in blocks that leave nothing behind which would keep a server connection.

use std::fmt;

use mysql_async::Value;
use pointsman_integration_tests::Flavour;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Text(String),
    Binary(String, Vec<Value>),
    Reset,
    Reconnect,
}

/// Steps that belong together.
#[derive(Debug)]
pub(crate) enum Block {
    /// Needs no server connection of its own.
    Free(Vec<Step>),
    /// Keeps a server connection until its end.
    Pinned(Vec<Step>),
}

/// What one session may do. Its tables are its own, so that its answers depend on nobody else.
#[derive(Debug)]
pub(crate) struct Script {
    session: u64,
    flavour: Flavour,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(sql) => f.write_str(sql),
            Self::Binary(sql, values) => write!(f, "{sql} -- {values:?}"),
            Self::Reset => f.write_str("-- reset"),
            Self::Reconnect => f.write_str("-- reconnect"),
        }
    }
}

impl Script {
    pub(crate) fn new(session: u64, flavour: Flavour) -> Self {
        Self { session, flavour }
    }

    /// Tables of the same name in two schemas, with different rows: a wrong schema shows.
    pub(crate) fn setup(&self) -> Vec<String> {
        let mut sql = Vec::new();
        for (schema, first) in [("app", 1), ("test", 1001)] {
            let table = format!("{schema}.d{}", self.session);
            sql.push(format!("DROP TABLE IF EXISTS {table}"));
            sql.push(format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL, s VARCHAR(20), UNIQUE (n)) \
                 AUTO_INCREMENT = {FIRST_MADE_ID}"
            ));
            sql.push(format!(
                "INSERT INTO {table} (id, n, s) VALUES ({first}, {first}, 'one'), ({}, {}, 'two')",
                first + 1,
                first + 1
            ));
        }
        sql.push(format!("DROP PROCEDURE IF EXISTS app.p{}", self.session));
        sql.push(format!(
            "CREATE PROCEDURE app.p{0}(IN x INT) BEGIN SELECT x + 1 AS y; SET @from_call = x; \
             INSERT INTO app.d{0} (n) VALUES (x); END",
            self.session
        ));
        sql
    }

    pub(crate) fn block(&self, random: &mut StdRng) -> Block {
        match random.random_range(0..100) {
            0..25 => Block::Free(self.reads(random)),
            25..40 => Block::Free(self.writes(random)),
            40..55 => self.settings(random),
            55..62 => Block::Free(self.binary(random)),
            62..68 => Block::Free(self.errors(random)),
            68..74 => Block::Free(self.diagnostics(random)),
            74..86 => Block::Pinned(self.transaction(random)),
            86..90 => Block::Pinned(freed(self.temporary(random))),
            90..93 => Block::Pinned(freed(self.locks(random))),
            93..96 => Block::Pinned(freed(self.text_prepare(random))),
            _ => Block::Pinned(self.oddities(random)),
        }
    }

    fn reads(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        some(
            random,
            3,
            &[
                format!("SELECT * FROM {d} ORDER BY id LIMIT 5"),
                format!("SELECT COUNT(*), SUM(n), MAX(s) FROM {d}"),
                format!("SELECT s FROM {d} WHERE n = {n}"),
                format!("SELECT id, n DIV 2 FROM {d} WHERE n > {n} ORDER BY n DESC LIMIT 3"),
                format!("SELECT a.id FROM {d} a JOIN {d} b ON a.n = b.n + 1 ORDER BY a.id LIMIT 4"),
                format!("WITH c AS (SELECT n FROM {d}) SELECT MIN(n), MAX(n) FROM c"),
                format!("SELECT CONCAT('a', {n}), {n} / 3, '{n}' + 1, NULL, CAST('2020-02-30' AS DATE)"),
                format!("SELECT GROUP_CONCAT(n ORDER BY n) FROM {d}"),
                format!("SELECT 'x' UNION SELECT s FROM {d} WHERE n < {n} ORDER BY 1 LIMIT 3"),
                "SELECT \"quoted\", 'a' || 'b', '\\x'".to_owned(),
                STATE.to_owned(),
                self.isolation().to_owned(),
                "SHOW VARIABLES LIKE 'sql_mode'".to_owned(),
                "SELECT 1; SELECT 'two', 3".to_owned(),
                "SELECT LAST_INSERT_ID()".to_owned(),
                match self.flavour {
                    Flavour::Mariadb => "VALUES (1, 2), (3, 4)".to_owned(),
                    Flavour::Mysql => format!("TABLE {d} ORDER BY id LIMIT 2"),
                },
            ],
        )
    }

    fn writes(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        let mut steps = some(
            random,
            3,
            &[
                format!("INSERT INTO {d} (n, s) VALUES ({n}, 'new')"),
                format!("INSERT IGNORE INTO {d} (n, s) VALUES ({n}, 'a string longer than its column')"),
                format!("INSERT INTO {d} (n) VALUES ({n}), ({}) ON DUPLICATE KEY UPDATE s = 'again'", n + 1),
                format!("UPDATE {d} SET s = LEFT(CONCAT(COALESCE(s, ''), 'u'), 20) WHERE n < {n}"),
                format!("DELETE FROM {d} WHERE n = {n}"),
                format!("REPLACE INTO {d} (n, s) VALUES ({n}, 'replaced')"),
                format!("DELETE FROM {d} WHERE n > 40 AND n < 1000 OR n > 1040"),
                format!("INSERT INTO {d} (n, s) SELECT n + 2000, s FROM {d} WHERE n = {n}"),
                format!("DELETE FROM {d} WHERE n >= 2000"),
                format!("INSERT INTO {d} (id, n) VALUES ({}, {n})", n + 500),
                format!("UPDATE {d} SET n = n WHERE n = {n}; SELECT ROW_COUNT()"),
            ],
        );
        steps.push(text(format!("SELECT id, n, s FROM {d} ORDER BY id")));
        steps
    }

    /// What a session may set and the proxy has to carry from one server connection to the next.
    fn settings(&self, random: &mut StdRng) -> Block {
        let n = number(random);
        let mut steps = some(
            random,
            2,
            &[
                format!("SET @a = {n}, @b = 'text {n}'"),
                "SET @a = NULL".to_owned(),
                "SET sql_mode = 'ANSI_QUOTES,STRICT_TRANS_TABLES'".to_owned(),
                "SET sql_mode = 'PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'".to_owned(),
                "SET SESSION sql_mode = ''".to_owned(),
                "SET sql_mode = DEFAULT".to_owned(),
                format!("SET time_zone = '+0{}:00'", n % 10),
                "SET NAMES utf8mb4".to_owned(),
                "SET NAMES latin1".to_owned(),
                "SET NAMES utf8mb4 COLLATE utf8mb4_bin".to_owned(),
                format!("SET SESSION group_concat_max_len = {}", 4 + n),
                format!("SET sql_select_limit = {}", 1 + n % 4),
                "SET sql_select_limit = DEFAULT".to_owned(),
                format!("SET div_precision_increment = {}", n % 8),
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
                "SET lc_time_names = 'de_DE'".to_owned(),
                "USE test".to_owned(),
                "USE app".to_owned(),
                "SET sql_safe_updates = 1, unique_checks = 0".to_owned(),
                "SET sql_safe_updates = 0, unique_checks = DEFAULT".to_owned(),
                "SET @@session.max_sort_length = 64".to_owned(),
                "SET no_such_variable = 1".to_owned(),
                "SET sql_mode = 'NO_SUCH_MODE'".to_owned(),
                "USE no_such_schema".to_owned(),
            ],
        );
        if random.random_ratio(1, 12) {
            steps.push(Step::Reset);
        }
        steps.push(text(STATE));
        steps.push(text(format!(
            "SELECT DATE_FORMAT('2020-03-01', '%M'), 1 / 7, n FROM d{} ORDER BY n LIMIT 6",
            self.session
        )));
        // A text in a user variable was read in one character set: another one keeps the session on its connection.
        if steps.iter().any(|step| step.to_string().contains("@b = ")) {
            Block::Pinned(freed(steps))
        } else {
            Block::Free(steps)
        }
    }

    fn binary(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        let all = [
            Step::Binary(format!("SELECT n, s FROM {d} WHERE n > ? ORDER BY n LIMIT 4"), vec![n.into()]),
            // Numbers: MySQL describes a text by the collation of its first execution on a connection. Signed, as
            // MySQL guesses it: for another type it reads the text again there (docs/limits.md).
            Step::Binary(
                "SELECT ? + 1, LENGTH(CONCAT(?, 'x')), ? IS NULL".to_owned(),
                vec![Value::Int(n.into()), "é".into(), Value::NULL],
            ),
            Step::Binary(format!("INSERT INTO {d} (n, s) VALUES (?, ?)"), vec![n.into(), "bound".into()]),
            Step::Binary(format!("UPDATE {d} SET s = ? WHERE n = ?"), vec![Value::NULL, n.into()]),
            Step::Binary(format!("DELETE FROM {d} WHERE n = ?"), vec![n.into()]),
            Step::Binary("SELECT DATABASE(), @@sql_mode".to_owned(), vec![]),
            Step::Binary("SELECT * FROM no_such_table WHERE id = ?".to_owned(), vec![n.into()]),
            Step::Binary(format!("SELECT * FROM d{} ORDER BY id", self.session), vec![]),
            Step::Binary("SET @a = ?".to_owned(), vec![n.into()]),
        ];
        let mut steps: Vec<Step> = all.choose_multiple(random, 4).cloned().collect();
        // What a bound SET leaves is not known from its text.
        if steps.iter().any(|step| matches!(step, Step::Binary(sql, _) if sql.starts_with("SET"))) {
            steps.push(Step::Reset);
        }
        steps
    }

    fn errors(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let mut steps = some(
            random,
            3,
            &[
                "SELEC 1".to_owned(),
                "SELECT * FROM no_such_table".to_owned(),
                format!("SELECT no_such_column FROM {d}"),
                format!("INSERT INTO {d} (id, n) SELECT id, n FROM (SELECT * FROM {d}) AS o LIMIT 1"),
                format!("INSERT INTO {d} (n) VALUES (NULL)"),
                format!("SELECT (SELECT n FROM {d}) + 1"),
                "SELECT no_such_function(1)".to_owned(),
                "FLUSH TABLES WITH READ LOCK".to_owned(),
                "CREATE USER nobody@localhost".to_owned(),
                "SET GLOBAL max_connections = 5".to_owned(),
                "SELECT 1; SELEC 2; SELECT 3".to_owned(),
                "SELECT * FROM mysql.user".to_owned(),
                "DROP TABLE app.no_such_table".to_owned(),
                "KILL 4294967295".to_owned(),
                String::new(),
            ],
        );
        // What ran before the part that nobody understood is not known, nor what an unknown function did.
        let unknown = |sql: String| sql.contains("; SELEC ") || sql.contains("no_such_function");
        if steps.iter().any(|step| unknown(step.to_string())) {
            steps.push(Step::Reset);
        }
        steps
    }

    /// Questions about the statement before.
    fn diagnostics(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        let first = some(
            random,
            1,
            &[
                format!("INSERT INTO {d} (n) VALUES ({})", n + 3000),
                format!("INSERT INTO {d} (id, n) VALUES ({}, {})", n + 700, n + 3000),
                format!("INSERT INTO {d} (n) VALUES ({n}) ON DUPLICATE KEY UPDATE s = 'again'"),
                format!("INSERT INTO {d} (n) VALUES ({0}), ({0})", n + 3000),
                format!("UPDATE {d} SET s = LAST_INSERT_ID(n) WHERE n = {n}"),
                format!("UPDATE {d} SET s = 'x' WHERE n = {n}"),
                "SELECT 1 / 0, CAST('abc' AS SIGNED)".to_owned(),
                "SELECT * FROM no_such_table".to_owned(),
                format!("SELECT SQL_CALC_FOUND_ROWS n FROM {d} ORDER BY n LIMIT 1"),
                format!("DELETE FROM {d} WHERE n > 3000"),
                format!("INSERT IGNORE INTO {d} (n, s) VALUES ({n}, 'a string longer than its column')"),
                "DROP TABLE IF EXISTS no_such_table".to_owned(),
                "SELECT LAST_INSERT_ID(77)".to_owned(),
            ],
        );
        let asked = some(
            random,
            2,
            &[
                "SHOW WARNINGS".to_owned(),
                "SHOW COUNT(*) WARNINGS".to_owned(),
                "SELECT ROW_COUNT()".to_owned(),
                "SELECT FOUND_ROWS()".to_owned(),
                "SELECT LAST_INSERT_ID()".to_owned(),
                "SELECT @@warning_count, @@error_count".to_owned(),
                "SHOW ERRORS".to_owned(),
            ],
        );
        // MariaDB keeps the warnings of the statement before that used a table.
        let mut steps = vec![text(format!("SELECT COUNT(*) FROM {d}"))];
        steps.extend(first);
        // What FOUND_ROWS() answers behind anything else differs between servers, and is not carried.
        let asks = "SELECT SQL_CALC_FOUND_ROWS";
        let selected = steps[1..].iter().any(|step| step.to_string().starts_with(asks));
        let carried =
            |at: usize, step: &Step| !step.to_string().contains("FOUND_ROWS()") || at == 0 && selected;
        steps.extend(
            asked.into_iter().enumerate().filter(|(at, step)| carried(*at, step)).map(|(_, step)| step),
        );
        steps.push(text(format!("DELETE FROM {d} WHERE n > 3000")));
        steps.push(text("DO 0"));
        steps
    }

    fn transaction(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        let begin = [
            "BEGIN",
            "START TRANSACTION",
            "START TRANSACTION READ ONLY",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; BEGIN",
            "SET TRANSACTION READ ONLY; BEGIN",
            "SET autocommit = 0",
        ];
        let first = *begin.choose(random).unwrap_or(&"BEGIN");
        let mut steps = vec![text(first)];
        let body = [
            format!("INSERT INTO {d} (n, s) VALUES ({n}, 'in transaction')"),
            format!("SELECT id, n, s FROM {d} ORDER BY id"),
            format!("UPDATE {d} SET s = 'changed' WHERE n <= {n}"),
            "SAVEPOINT one".to_owned(),
            "ROLLBACK TO SAVEPOINT one".to_owned(),
            "RELEASE SAVEPOINT one".to_owned(),
            format!("SELECT n FROM {d} WHERE n = {n} FOR UPDATE"),
            format!("DELETE FROM {d} WHERE n = {n}"),
            "SET TRANSACTION READ ONLY".to_owned(),
            "SELECT * FROM no_such_table".to_owned(),
            format!("SET @a = {n}"),
            "USE test".to_owned(),
            format!("SELECT COUNT(*) FROM d{}", self.session),
            "BEGIN".to_owned(),
            "COMMIT AND CHAIN".to_owned(),
        ];
        let length = random.random_range(1..7);
        let kept = |step: &Step| step.to_string() != "BEGIN" || self.begins_anew_within(first);
        steps.extend(some(random, length, &body).into_iter().filter(kept));
        steps.push(text(if random.random_bool(0.7) { "COMMIT" } else { "ROLLBACK" }));
        steps.push(text("SET autocommit = 1"));
        steps.push(text(format!("SELECT id, n, s FROM {d} ORDER BY id")));
        steps
    }

    /// MySQL's second BEGIN is READ ONLY too; Pointsman's may write, as MariaDB's may.
    fn begins_anew_within(&self, first: &str) -> bool {
        self.flavour == Flavour::Mariadb || !first.contains("READ ONLY")
    }

    fn temporary(&self, random: &mut StdRng) -> Vec<Step> {
        let d = format!("d{}", self.session);
        let n = number(random);
        // It hides the table of the same name.
        let mut steps = vec![text(format!("CREATE TEMPORARY TABLE {d} (n INT, s VARCHAR(10))"))];
        steps.extend(some(
            random,
            4,
            &[
                format!("INSERT INTO {d} VALUES ({n}, 'hidden'), ({n}, 'twice')"),
                format!("SELECT * FROM {d} ORDER BY n, s"),
                format!("SELECT n FROM app.{d} ORDER BY n"),
                format!("UPDATE {d} SET n = n + 1"),
                "SELECT @a, DATABASE()".to_owned(),
            ],
        ));
        steps.push(text(format!("DROP TEMPORARY TABLE {d}")));
        steps.push(text(format!("SELECT n FROM {d} ORDER BY n LIMIT 5")));
        steps
    }

    fn locks(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let lock = format!("lock{}", self.session);
        match random.random_range(0..3) {
            0 => texts(&[
                &format!("SELECT GET_LOCK('{lock}', 1), IS_FREE_LOCK('{lock}')"),
                &format!("SELECT n FROM {d} ORDER BY n LIMIT 2"),
                &format!("SELECT IS_FREE_LOCK('{lock}'), IS_USED_LOCK('{lock}') = CONNECTION_ID()"),
                &format!("SELECT RELEASE_LOCK('{lock}'), RELEASE_LOCK('{lock}')"),
            ]),
            1 => texts(&[
                &format!("LOCK TABLES {d} WRITE"),
                &format!("INSERT INTO {d} (s, n) VALUES ('locked', 5000)"),
                &format!("DELETE FROM {d} WHERE n = 5000"),
                "SELECT * FROM test.no_such_table",
                &format!("SELECT COUNT(*) FROM {d}"),
                "UNLOCK TABLES",
            ]),
            _ => texts(&[
                &format!("HANDLER {d} OPEN AS h"),
                "HANDLER h READ FIRST",
                "HANDLER h READ NEXT LIMIT 2",
                "HANDLER h CLOSE",
                "HANDLER h READ NEXT",
            ]),
        }
    }

    fn text_prepare(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        texts(&[
            &format!("PREPARE one FROM 'SELECT n, s FROM {d} WHERE n > ? ORDER BY n LIMIT 2'"),
            &format!("SET @p = {n}"),
            "EXECUTE one USING @p",
            "SELECT 1",
            "EXECUTE one USING @p",
            "EXECUTE one",
            "DEALLOCATE PREPARE one",
            "EXECUTE one USING @p",
        ])
    }

    /// What leaves a session in a state that no text tells; ended by a reset.
    fn oddities(&self, random: &mut StdRng) -> Vec<Step> {
        let d = self.table(random);
        let n = number(random);
        let me = self.session;
        let mut steps = match random.random_range(0..8) {
            0 => texts(&[
                &format!("CALL app.p{me}({})", n + 6000),
                "SELECT @from_call",
                &format!("DELETE FROM app.d{me} WHERE n >= 6000"),
            ]),
            1 => texts(&["SELECT @a := 5, @a := @a + 1", "SELECT @a", "SET @a = @a * 2", "SELECT @a"]),
            2 => {
                texts(&["SET timestamp = 1000000000", "SELECT NOW(), @@timestamp", "SET timestamp = DEFAULT"])
            }
            3 => texts(&[
                &format!("SET insert_id = {}", n + 100_000),
                &format!("INSERT INTO {d} (n, s) VALUES ({}, 'id')", n + 7000),
                "SELECT LAST_INSERT_ID()",
                &format!("DELETE FROM {d} WHERE n >= 7000"),
            ]),
            4 => texts(&[
                &format!("SELECT n INTO @n FROM {d} ORDER BY n LIMIT 1"),
                "SELECT @n",
                "SELECT COALESCE(@n, 0) + 1",
            ]),
            5 => texts(&[
                &format!("XA START 'x{me}'"),
                &format!("INSERT INTO {d} (n) VALUES ({})", n + 8000),
                "COMMIT",
                &format!("XA END 'x{me}'"),
                &format!("XA ROLLBACK 'x{me}'"),
                &format!("SELECT COUNT(*) FROM {d}"),
            ]),
            6 => texts(&[
                "SET @@sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')",
                "SELECT @@sql_mode",
                "SELECT \"a\"",
            ]),
            _ => texts(&[
                "CREATE TABLE IF NOT EXISTS made_now (id INT)",
                "DROP TABLE made_now",
                "SELECT LAST_INSERT_ID(12345)",
                "SELECT LAST_INSERT_ID()",
            ]),
        };
        // Two sessions must not make the same table.
        for step in &mut steps {
            if let Step::Text(sql) = step {
                *sql = sql.replace("made_now", &format!("made_by_{me}"));
            }
        }
        steps.push(if random.random_bool(0.7) { Step::Reset } else { Step::Reconnect });
        steps
    }

    /// The session's table, in the schema of the moment or in another one.
    fn table(&self, random: &mut StdRng) -> String {
        let schema = ["", "app.", "test."][random.random_range(0..3)];
        format!("{schema}d{}", self.session)
    }

    fn isolation(&self) -> &'static str {
        match self.flavour {
            Flavour::Mariadb => "SELECT @@tx_isolation",
            Flavour::Mysql => "SELECT @@transaction_isolation",
        }
    }
}

/// Names of locks, statements and temporary tables are not counted: a reset is what ends such a pin for sure.
fn freed(mut steps: Vec<Step>) -> Vec<Step> {
    steps.push(Step::Reset);
    steps
}

fn number(random: &mut StdRng) -> u32 {
    random.random_range(0..50)
}

fn text(sql: impl Into<String>) -> Step {
    Step::Text(sql.into())
}

fn texts(sql: &[&str]) -> Vec<Step> {
    sql.iter().map(|sql| text(*sql)).collect()
}

fn some(random: &mut StdRng, count: usize, of: &[String]) -> Vec<Step> {
    of.choose_multiple(random, count).map(|sql| text(sql.as_str())).collect()
}

/// Above all ids that statements name: a failed INSERT of a higher one moves the counter on disk but not in memory, and
/// from which of them a server goes on depends on when it last opened the table.
const FIRST_MADE_ID: u32 = 10_000;

/// Everything that the proxy carries.
const STATE: &str = "SELECT @@sql_mode, @@time_zone, @@character_set_client, @@character_set_results, \
    @@collation_connection, @@group_concat_max_len, @@sql_select_limit, @@div_precision_increment, @@autocommit, \
    @@lc_time_names, @@sql_safe_updates, @@unique_checks, @@max_sort_length, DATABASE(), @a, @b";
