import MySQLdb
import MySQLdb.constants.CLIENT as CLIENT
from MySQLdb.cursors import SSCursor

import promises


class MySQLClient(promises.Driver):
    distribution = "mysqlclient"
    Error = MySQLdb.MySQLError

    def connect(self, autocommit=True, password=promises.PASSWORD, schema=promises.SCHEMA, compress=False, **options):
        return MySQLdb.connect(
            host=promises.HOST, port=promises.PORT, user=promises.USER, password=password, database=schema,
            charset="utf8mb4", autocommit=autocommit, compress=compress,
            ssl_mode="REQUIRED" if promises.TLS else "DISABLED", client_flag=CLIENT.MULTI_STATEMENTS, **options)

    def cipher(self, connection):
        return connection.get_ssl_cipher() if hasattr(connection, "get_ssl_cipher") else None

    def thread_id(self, connection):
        return connection.thread_id()

    def error_code(self, error):
        return error.args[0]

    def sqlstate(self, error):
        return None

    def warning_count(self, connection, cursor):
        return connection.warning_count()

    def select_schema(self, connection, schema):
        connection.select_db(schema)

    def ping(self, connection):
        connection.ping()

    def multi(self, connection, sql):
        cursor = connection.cursor()
        cursor.execute(sql)
        results = [list(cursor.fetchall())]
        while cursor.nextset():
            results.append(list(cursor.fetchall()))
        return results

    def streamed(self, connection, sql):
        cursor = connection.cursor(SSCursor)
        cursor.execute(sql)
        yield from cursor
        cursor.close()

    def change_user(self, connection):
        connection.change_user(promises.USER, promises.PASSWORD, promises.SCHEMA)


promises.main(MySQLClient())
