"""The promises that every Python driver keeps, through the DB-API. A driver is a small class, see pymysql_client.py."""
import hashlib
import importlib.metadata
import os
import sys
import threading
import time

HOST = os.environ["CLIENT_HOST"]
PORT = int(os.environ["CLIENT_PORT"])
USER = os.environ["CLIENT_USER"]
PASSWORD = os.environ["CLIENT_PASSWORD"]
SCHEMA = os.environ["CLIENT_SCHEMA"]
TLS = os.environ["CLIENT_TLS"] == "on"
MYSQL = os.environ["CLIENT_FLAVOUR"] == "mysql"
INFILE = os.environ["CLIENT_INFILE"]

BYTES = bytes(range(256))
UNICODE = "Weiche 鉄道 🚂 ünï"
LARGE = 17 << 20
DIGITS = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5" \
         " UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
HUNDRED_THOUSAND = "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM " + ", ".join(
    f"{DIGITS} {alias}" for alias in "abcde")


class Skip(Exception):
    """The driver has no such feature."""


def expect(actual, expected):
    if actual != expected:
        raise AssertionError(f"expected {short(expected)}, got {short(actual)}")


def short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."


def text(value):
    return value.decode() if isinstance(value, (bytes, bytearray)) else value


class Promises:
    """One method for each promise; `driver` supplies what the DB-API leaves open."""

    def __init__(self, driver):
        self.driver = driver
        self.connection = None

    def run(self):
        print(f"# {self.driver.distribution} {self.driver.version}", flush=True)
        self.prepare_schema()
        for name in [name for name in dir(type(self)) if name.startswith("promise_")]:
            self.one(name.removeprefix("promise_").replace("_", "-"), getattr(self, name))
        print("done", flush=True)

    def one(self, name, promise):
        try:
            if self.connection is None:
                self.connection = self.driver.connect(autocommit=True)
            promise()
            print(f"ok {name}", flush=True)
        except Skip as skip:
            print(f"skip {name}: {skip}", flush=True)
        except Exception as error:  # whatever it is, it is this promise's failure
            print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
            self.connection = None

    def prepare_schema(self):
        connection = self.driver.connect(autocommit=True)
        for sql in (
            "CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
            " name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB",
            "CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END",
        ):
            self.execute(sql, connection=connection)
        connection.close()

    # What the promises are made of.

    def execute(self, sql, args=None, connection=None):
        cursor = (connection or self.connection).cursor()
        cursor.execute(sql, args) if args is not None else cursor.execute(sql)
        return cursor

    def rows(self, sql, args=None, connection=None):
        cursor = self.execute(sql, args, connection)
        rows = [tuple(row) for row in cursor.fetchall()]
        cursor.close()
        return rows

    def value(self, sql, args=None, connection=None):
        return self.rows(sql, args, connection)[0][0]

    def count(self, name, connection=None):
        return self.value("SELECT COUNT(*) FROM journeys WHERE name LIKE %s", (name,), connection)

    def other_count(self, name):
        other = self.driver.connect(autocommit=True)
        try:
            return self.count(name, other)
        finally:
            other.close()

    def fails(self, code, sqlstate, action):
        try:
            action()
        except self.driver.Error as error:
            expect(self.driver.error_code(error), code)
            if self.driver.sqlstate(error) is not None:
                expect(self.driver.sqlstate(error), sqlstate)
            return
        raise AssertionError(f"expected error {code}, got none")

    # Connections.

    def promise_connect(self):
        expect(self.value("SELECT 1 + 1"), 2)
        if TLS:
            cipher = self.driver.cipher(self.connection)
            if cipher is not None and not cipher:
                raise AssertionError("the connection has no TLS")

    def promise_wrong_password(self):
        self.fails(*self.driver.denied, lambda: self.driver.connect(password="wrong"))

    def promise_unknown_schema(self):
        self.fails(1049, "42000", lambda: self.driver.connect(schema=SCHEMA + "_missing"))

    def promise_ping(self):
        self.driver.ping(self.connection)

    def promise_kill(self):
        victim = self.driver.connect(autocommit=True)
        identity = self.value("SELECT CONNECTION_ID()", connection=victim)
        greeted = self.driver.thread_id(victim)
        if greeted is not None:
            expect(identity, greeted)
        failure = []

        def sleep():
            try:
                # MariaDB and MySQL answer a killed SLEEP() with 1 or with an error; a killed join is always an error.
                failure.append(self.value(f"SELECT COUNT(*) FROM ({HUNDRED_THOUSAND}) x JOIN ({HUNDRED_THOUSAND}) y ON x.n > y.n + SLEEP(0)", connection=victim))
            except self.driver.Error as error:
                failure.append(self.driver.error_code(error))

        thread = threading.Thread(target=sleep)
        thread.start()
        time.sleep(0.3)
        self.execute(f"KILL QUERY {identity}")
        thread.join(30)
        expect(failure, [1317])
        expect(self.value("SELECT 5", connection=victim), 5)
        victim.close()

    # Values.

    VALUES_SQL = ("SELECT CAST(%s AS SIGNED), CAST(%s AS SIGNED), 18446744073709551615, CAST(%s AS DECIMAL(20,10)),"
                  " CAST(%s AS BINARY), %s, CAST(%s AS CHAR)")
    VALUES = (None, -(1 << 63), "-1234567890.0123456789", BYTES, "", "plain")

    def check_values(self, row, unsigned=(1 << 64) - 1):
        expect(row[0], None)
        expect(row[1], -(1 << 63))
        expect(row[2], unsigned)
        expect(str(row[3]), "-1234567890.0123456789")
        expect(bytes(row[4]), BYTES)
        expect(text(row[5]), "")
        expect(text(row[6]), "plain")

    def promise_values_text(self):
        self.check_values(self.rows("SELECT NULL, -9223372036854775808, 18446744073709551615,"
                                    " CAST('-1234567890.0123456789' AS DECIMAL(20,10)), x'%s', '', 'plain'" % BYTES.hex())[0])

    def promise_values_prepared(self):
        row = self.driver.prepared_rows(self.connection, self.VALUES_SQL, [self.VALUES])[0][0]
        self.check_values(row, self.driver.prepared_unsigned)

    def promise_unicode(self):
        self.execute("INSERT INTO journeys (name) VALUES (%s)", (UNICODE,))
        expect(self.value("SELECT name FROM journeys WHERE name = %s", (UNICODE,)), UNICODE)
        expect(self.value(f"SELECT '{UNICODE}'"), UNICODE)
        expect(self.value(f"SELECT CHAR_LENGTH('{UNICODE}')"), len(UNICODE))

    def promise_prepared_reuse(self):
        answers = self.driver.prepared_rows(self.connection, "SELECT CAST(%s AS SIGNED) * 2", [(n,) for n in range(20)])
        expect([rows[0][0] for rows in answers], [2 * n for n in range(20)])

    def promise_many_rows(self):
        rows = self.rows(HUNDRED_THOUSAND)
        expect(len(rows), 100_000)
        expect(sum(row[0] for row in rows), 4_999_950_000)

    def promise_large_row(self):
        payload = os.urandom(1 << 20) * (LARGE >> 20)
        self.execute("INSERT INTO journeys (name, payload) VALUES (%s, %s)", ("large", payload))
        digest = hashlib.sha256(payload).hexdigest()
        expect(self.value("SELECT SHA2(payload, 256) FROM journeys WHERE name = 'large'"), digest)
        if self.driver.reads_large_rows:
            expect(hashlib.sha256(self.value("SELECT payload FROM journeys WHERE name = 'large'")).hexdigest(), digest)
        if self.driver.prepares and self.driver.reads_large_rows:
            rows = self.driver.prepared_rows(self.connection, "SELECT payload FROM journeys WHERE name = %s", [("large",)])[0]
            expect(hashlib.sha256(rows[0][0]).hexdigest(), digest)
        self.execute("DELETE FROM journeys WHERE name = 'large'")

    # Writes.

    def promise_last_insert_id(self):
        first = self.execute("INSERT INTO journeys (name) VALUES ('id-1')").lastrowid
        second = self.execute("INSERT INTO journeys (name) VALUES ('id-2')").lastrowid
        if not first or second <= first:
            raise AssertionError(f"expected rising ids, got {first} and {second}")
        expect(self.value("SELECT LAST_INSERT_ID()"), second)
        expect(self.value("SELECT name FROM journeys WHERE id = %s", (second,)), "id-2")

    def promise_affected_rows(self):
        expect(self.execute("INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)").rowcount, 3)
        expect(self.execute("UPDATE journeys SET amount = 5 WHERE name LIKE 'rows-%' AND amount = 1").rowcount, 2)
        expect(self.execute("DELETE FROM journeys WHERE name LIKE 'rows-%'").rowcount, 3)

    def promise_read_your_writes(self):
        for n in range(50):
            self.execute("INSERT INTO journeys (name, amount) VALUES (%s, %s)", (f"ryw-{n}", n))
            expect(self.rows("SELECT amount FROM journeys WHERE name = %s", (f"ryw-{n}",)), [(n,)])

    def promise_commit(self):
        self.execute("START TRANSACTION")
        self.execute("INSERT INTO journeys (name) VALUES ('commit-1')")
        expect(self.other_count("commit-1"), 0)
        self.connection.commit()
        expect(self.other_count("commit-1"), 1)

    def promise_rollback(self):
        self.execute("START TRANSACTION")
        self.execute("INSERT INTO journeys (name) VALUES ('rollback-1')")
        expect(self.count("rollback-1"), 1)
        self.connection.rollback()
        expect(self.count("rollback-1"), 0)

    def promise_autocommit_off(self):
        connection = self.driver.connect(autocommit=False)
        self.execute("INSERT INTO journeys (name) VALUES ('off-1')", connection=connection)
        expect(self.other_count("off-1"), 0)
        connection.rollback()
        expect(self.count("off-1", connection), 0)
        self.execute("INSERT INTO journeys (name) VALUES ('off-2')", connection=connection)
        connection.commit()
        expect(self.other_count("off-2"), 1)
        connection.close()

    def promise_savepoint(self):
        self.execute("START TRANSACTION")
        self.execute("INSERT INTO journeys (name) VALUES ('save-1')")
        self.execute("SAVEPOINT a")
        self.execute("INSERT INTO journeys (name) VALUES ('save-2')")
        self.execute("ROLLBACK TO SAVEPOINT a")
        self.connection.commit()
        expect(self.rows("SELECT name FROM journeys WHERE name LIKE 'save-%'"), [("save-1",)])

    def promise_local_infile(self):
        self.execute("CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)")
        connection = self.driver.connect(autocommit=True, local_infile=True)
        cursor = self.execute(f"LOAD DATA LOCAL INFILE '{INFILE}' INTO TABLE platforms CHARACTER SET utf8mb4"
                              " FIELDS TERMINATED BY ',' (n, t)", connection=connection)
        expect(cursor.rowcount, 1000)
        expect(self.rows("SELECT COUNT(*), SUM(n) FROM platforms", connection=connection), [(1000, 500_500)])
        connection.close()

    # Errors.

    def promise_error_syntax(self):
        self.fails(1064, "42000", lambda: self.execute("SELEC 1"))
        expect(self.value("SELECT 1"), 1)

    def promise_error_duplicate(self):
        self.execute("INSERT INTO journeys (name) VALUES ('twice')")
        self.fails(1062, "23000", lambda: self.execute("INSERT INTO journeys (name) VALUES ('twice')"))
        expect(self.count("twice"), 1)

    def promise_error_prepared(self):
        self.fails(1146, "42S02", lambda: self.driver.prepared_rows(
            self.connection, "SELECT * FROM missing WHERE id = %s", [(1,)]))
        expect(self.value("SELECT 1"), 1)

    # Results and session state.

    def promise_call(self):
        results = self.driver.call(self.connection, "two_results", (7,))
        expect(results, [[(7,)], [(8, "x")]])
        expect(self.value("SELECT 1"), 1)

    def promise_multi_statements(self):
        results = self.driver.multi(self.connection, "SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2, 'b'")
        expect([rows for rows in results if rows], [[(1,)], [(2, "b")]])
        expect(self.count("multi"), 1)

    def promise_warnings(self):
        cursor = self.execute("SELECT CAST('1x' AS SIGNED)")
        cursor.fetchall()
        count = self.driver.warning_count(self.connection, cursor)
        if count is not None:
            expect(count, 1)
        cursor.close()
        expect([row[1] for row in self.rows("SHOW WARNINGS")], [1292])

    def promise_session_state(self):
        self.execute("SET @stay = 'put'")
        self.execute("SET SESSION sql_mode = 'ANSI_QUOTES'")
        self.execute("CREATE TEMPORARY TABLE passengers (n INT)")
        self.execute("INSERT INTO passengers VALUES (1), (2)")
        for _ in range(5):
            expect(text(self.value("SELECT @stay")), "put")
            expect(self.value("SELECT @@session.sql_mode"), "ANSI_QUOTES")
            expect(self.value('SELECT COUNT("n") FROM passengers'), 2)
        self.execute("DROP TEMPORARY TABLE passengers")
        self.execute("SET SESSION sql_mode = DEFAULT")

    def promise_schema_switch(self):
        other = SCHEMA + "_other"
        self.execute(f"CREATE DATABASE {other}")
        self.driver.select_schema(self.connection, other)
        self.execute("CREATE TABLE here (n INT)")
        expect(self.value("SELECT DATABASE()"), other)
        expect(self.rows("SELECT * FROM here"), [])
        self.driver.select_schema(self.connection, SCHEMA)
        expect(self.count("nothing"), 0)
        self.execute(f"DROP DATABASE {other}")

    def promise_cursor(self):
        rows = self.driver.streamed(self.connection, HUNDRED_THOUSAND)
        expect(sum(row[0] for row in rows), 4_999_950_000)

    def promise_compression(self):
        connection = self.driver.connect(autocommit=True, compress=True)
        expect(self.value("SELECT REPEAT('a', 1000000)", connection=connection), "a" * 1_000_000)
        expect(len(self.rows(HUNDRED_THOUSAND, connection=connection)), 100_000)
        connection.close()

    def promise_change_user(self):
        connection = self.driver.connect(autocommit=True)
        self.execute("SET @stay = 'put'", connection=connection)
        self.driver.change_user(connection)
        expect(self.value("SELECT @stay", connection=connection), None)
        expect(self.value("SELECT DATABASE()", connection=connection), SCHEMA)
        connection.close()

    def promise_reset(self):
        connection = self.driver.connect(autocommit=True)
        self.execute("SET @stay = 'put'", connection=connection)
        self.driver.reset(connection)
        expect(self.value("SELECT @stay", connection=connection), None)
        expect(self.value("SELECT DATABASE()", connection=connection), SCHEMA)
        connection.close()

    def promise_pool(self):
        self.driver.pool(self)


class Driver:
    """What a driver that lacks a feature answers."""

    prepares = False
    reads_large_rows = True
    prepared_unsigned = (1 << 64) - 1
    denied = (1045, "28000")

    def __init__(self):
        self.version = importlib.metadata.version(self.distribution)

    def cipher(self, connection):
        return None

    def thread_id(self, connection):
        return None

    def warning_count(self, connection, cursor):
        return None

    def select_schema(self, connection, schema):
        cursor = connection.cursor()
        cursor.execute(f"USE {schema}")
        cursor.close()

    def prepared_rows(self, connection, sql, executions):
        raise Skip("the driver has no prepared statements")

    def call(self, connection, name, args):
        cursor = connection.cursor()
        cursor.callproc(name, args)
        results = [[tuple(row) for row in cursor.fetchall()]]
        while cursor.nextset():
            rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
            if rows:
                results.append(rows)
        cursor.close()
        return results

    def multi(self, connection, sql):
        raise Skip("the driver has no multi-statements")

    def streamed(self, connection, sql):
        raise Skip("the driver has no server-side cursor")

    def change_user(self, connection):
        raise Skip("the driver has no COM_CHANGE_USER")

    def reset(self, connection):
        raise Skip("the driver has no COM_RESET_CONNECTION")

    def pool(self, promises):
        raise Skip("the driver has no pool")


def main(driver):
    sys.stdout.reconfigure(line_buffering=True)
    Promises(driver).run()
