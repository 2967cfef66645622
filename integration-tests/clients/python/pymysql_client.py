import ssl

import pymysql
import pymysql.constants.CLIENT as CLIENT
from pymysql.cursors import SSCursor

import promises
from promises import Skip


class PyMySQL(promises.Driver):
    distribution = "PyMySQL"
    Error = pymysql.MySQLError

    def connect(self, autocommit=True, password=promises.PASSWORD, schema=promises.SCHEMA, compress=False, **options):
        if compress:
            raise Skip("the driver has no compression")
        context = None
        if promises.TLS:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return pymysql.connect(
            host=promises.HOST, port=promises.PORT, user=promises.USER, password=password, database=schema,
            charset="utf8mb4", autocommit=autocommit, ssl=context, ssl_disabled=not promises.TLS,
            client_flag=CLIENT.MULTI_STATEMENTS, max_allowed_packet=64 << 20, **options)

    def cipher(self, connection):
        return connection._sock.cipher()

    def thread_id(self, connection):
        return connection.thread_id()

    def error_code(self, error):
        return error.args[0]

    def sqlstate(self, error):
        return None

    def warning_count(self, connection, cursor):
        return cursor.warning_count

    def select_schema(self, connection, schema):
        connection.select_db(schema)

    def ping(self, connection):
        connection.ping(reconnect=False)

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


promises.main(PyMySQL())
