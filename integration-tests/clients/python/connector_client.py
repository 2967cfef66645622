"""mysql-connector-python; the argument `pure` chooses its implementation in Python, otherwise its C extension."""
# Its C extension brings an OpenSSL of its own, which loads only while Python's has not been loaded.
import _mysql_connector  # noqa: F401, isort: skip

import sys

import mysql.connector
import mysql.connector.pooling

import promises
from promises import Skip, expect

PURE = sys.argv[1:] == ["pure"]


class Connector(promises.Driver):
    distribution = "mysql-connector-python"
    prepares = True
    # Without TLS the C extension cannot ask a MySQL server for its key, and says so itself.
    denied = (1045, "28000") if PURE or promises.TLS or not promises.MYSQL else (2061, "HY000")
    # The C extension reads every BIGINT of a prepared statement as a signed one.
    prepared_unsigned = (1 << 64) - 1 if PURE else -1
    # The implementation in Python does not join the packets of a row over 16 MiB, and cannot read a compressed one.
    reads_large_rows = not PURE
    Error = mysql.connector.Error

    def options(self, **options):
        return dict(
            host=promises.HOST, port=promises.PORT, user=promises.USER, password=promises.PASSWORD,
            database=promises.SCHEMA, use_pure=PURE, ssl_disabled=not promises.TLS, ssl_verify_cert=False,
            charset="utf8mb4", collation="utf8mb4_general_ci", connection_timeout=20) | options

    def connect(self, autocommit=True, password=promises.PASSWORD, schema=promises.SCHEMA, compress=False, local_infile=False):
        if compress and PURE:
            raise Skip("the driver's own decompression fails")
        options = self.options(password=password, database=schema, autocommit=autocommit, compress=compress)
        if local_infile:
            options |= {"allow_local_infile": True}
        return mysql.connector.connect(**options)

    def cipher(self, connection):
        return promises.text(self.one_row(connection, "SHOW STATUS LIKE 'Ssl_cipher'")[1])

    def one_row(self, connection, sql):
        cursor = connection.cursor()
        cursor.execute(sql)
        row = cursor.fetchall()[0]
        cursor.close()
        return row

    def thread_id(self, connection):
        return connection.connection_id

    def error_code(self, error):
        return error.errno

    def sqlstate(self, error):
        return error.sqlstate

    def warning_count(self, connection, cursor):
        return cursor.warning_count if hasattr(cursor, "warning_count") else None

    def select_schema(self, connection, schema):
        connection.cmd_init_db(schema)

    def ping(self, connection):
        connection.ping(reconnect=False)

    def prepared_rows(self, connection, sql, executions):
        cursor = connection.cursor(prepared=True)
        answers = []
        for args in executions:
            cursor.execute(sql, args)
            answers.append([tuple(row) for row in cursor.fetchall()])
        cursor.close()
        return answers

    def call(self, connection, name, args):
        cursor = connection.cursor()
        cursor.callproc(name, args)
        results = [[tuple(row) for row in result.fetchall()] for result in cursor._stored_results]
        cursor.close()
        return results

    def multi(self, connection, sql):
        cursor = connection.cursor()
        cursor.execute(sql)
        results = [cursor.fetchall() if cursor.with_rows else []]
        while cursor.nextset():
            results.append(cursor.fetchall() if cursor.with_rows else [])
        cursor.close()
        return results

    def streamed(self, connection, sql):
        cursor = connection.cursor(buffered=False)
        cursor.execute(sql)
        yield from cursor
        cursor.close()

    def change_user(self, connection):
        connection.cmd_change_user(promises.USER, promises.PASSWORD, promises.SCHEMA)

    def reset(self, connection):
        connection.reset_session()

    def pool(self, kept):
        pool = mysql.connector.pooling.MySQLConnectionPool(pool_name="kept", pool_size=2, **self.options(autocommit=True))
        for _ in range(10):
            connection = pool.get_connection()
            expect(kept.value("SELECT @stay", connection=connection), None)
            kept.execute("SET @stay = 'put'", connection=connection)
            kept.execute("START TRANSACTION", connection=connection)
            kept.execute("INSERT INTO journeys (name) VALUES ('pool')", connection=connection)
            connection.close()
        expect(kept.count("pool"), 0)


promises.main(Connector())
