"""SQLAlchemy over PyMySQL: its pool with pre-ping, its ORM, its dialect's questions at the first connection."""
import os
import ssl
import sys

import sqlalchemy
from sqlalchemy import BigInteger, LargeBinary, String, create_engine, func, insert, select, text
from sqlalchemy.dialects.mysql import BIGINT
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

from promises import (BYTES, HOST, HUNDRED_THOUSAND, LARGE, PASSWORD, PORT, SCHEMA, TLS, UNICODE, USER, expect)


class Base(DeclarativeBase):
    pass


class Journey(Base):
    __tablename__ = "journeys"
    id: Mapped[int] = mapped_column(BIGINT(unsigned=True), primary_key=True)
    name: Mapped[str] = mapped_column(String(100, collation="utf8mb4_bin"), unique=True)
    amount: Mapped[int | None] = mapped_column(BigInteger)
    payload: Mapped[bytes | None] = mapped_column(LargeBinary((1 << 32) - 1))


def url(password=PASSWORD, schema=SCHEMA):
    return sqlalchemy.URL.create("mysql+pymysql", USER, password, HOST, PORT, schema, {"charset": "utf8mb4"})


def connect_args():
    if not TLS:
        return {"ssl_disabled": True}
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def engine(**options):
    return create_engine(options.pop("url", url()), connect_args=connect_args(), pool_pre_ping=True, poolclass=QueuePool,
                         pool_size=3, **options)


ENGINE = engine()


def fails(code, action, shape=DBAPIError):
    try:
        action()
    except shape as error:
        expect(error.orig.args[0], code)
        return
    raise AssertionError(f"expected error {code}, got none")


def run(sql, **args):
    with ENGINE.begin() as connection:
        result = connection.execute(text(sql), args)
        return [tuple(row) for row in result] if result.returns_rows else result.rowcount


def connect():
    expect(run("SELECT 1 + 1"), [(2,)])
    Base.metadata.create_all(ENGINE)
    expect(sqlalchemy.inspect(ENGINE).get_table_names(), ["journeys"])
    expect({column["name"] for column in sqlalchemy.inspect(ENGINE).get_columns("journeys")}, {"id", "name", "amount", "payload"})


def wrong_password():
    fails(1045, lambda: engine(url=url(password="wrong")).connect())


def unknown_schema():
    fails(1049, lambda: engine(url=url(schema=SCHEMA + "_missing")).connect())


def values_text():
    sql = "SELECT NULL, -9223372036854775808, 18446744073709551615, x'%s', ''" % BYTES.hex()
    expect(run(sql), [(None, -(1 << 63), (1 << 64) - 1, BYTES, "")])


def unicode():
    with Session(ENGINE) as session:
        session.add(Journey(name=UNICODE, payload=BYTES))
        session.commit()
        journey = session.scalars(select(Journey).where(Journey.name == UNICODE)).one()
        expect((journey.name, journey.payload), (UNICODE, BYTES))


def last_insert_id():
    with Session(ENGINE) as session:
        journeys = [Journey(name=f"id-{n}") for n in range(5)]
        session.add_all(journeys)
        session.commit()
        for n, journey in enumerate(journeys):
            expect(session.get(Journey, journey.id).name, f"id-{n}")


def affected_rows():
    expect(run("INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)"), 3)
    expect(run("UPDATE journeys SET amount = 5 WHERE name LIKE 'rows-%' AND amount = 1"), 2)
    expect(run("DELETE FROM journeys WHERE name LIKE 'rows-%'"), 3)


def read_your_writes():
    for n in range(50):
        with Session(ENGINE) as session:
            session.add(Journey(name=f"ryw-{n}", amount=n))
            session.commit()
            session.expire_all()
            expect(session.scalars(select(Journey.amount).where(Journey.name == f"ryw-{n}")).all(), [n])


def commit():
    with ENGINE.connect() as connection:
        connection.execute(insert(Journey).values(name="commit-1"))
        expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'commit-1'"), [(0,)])
        connection.commit()
    expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'commit-1'"), [(1,)])


def rollback():
    with ENGINE.connect() as connection:
        connection.execute(insert(Journey).values(name="rollback-1"))
        connection.rollback()
    expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'rollback-1'"), [(0,)])


def savepoint():
    with Session(ENGINE) as session:
        session.add(Journey(name="save-1"))
        session.flush()
        nested = session.begin_nested()
        session.add(Journey(name="save-2"))
        session.flush()
        nested.rollback()
        session.commit()
        expect(session.scalars(select(Journey.name).where(Journey.name.like("save-%"))).all(), ["save-1"])


def autocommit_off():
    # Its own autocommit is an isolation level; the default, autocommit off, is what every other promise runs with.
    automatic = ENGINE.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as connection:
        connection.execute(insert(Journey).values(name="auto-1"))
        expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'auto-1'"), [(1,)])
    serial = ENGINE.execution_options(isolation_level="SERIALIZABLE")
    with serial.connect() as connection:
        expect(connection.scalar(select(func.count()).select_from(Journey).where(Journey.name == "auto-1")), 1)


def error_syntax():
    fails(1064, lambda: run("SELEC 1"))
    expect(run("SELECT 1"), [(1,)])


def error_duplicate():
    run("INSERT INTO journeys (name) VALUES ('twice')")
    fails(1062, lambda: run("INSERT INTO journeys (name) VALUES ('twice')"))
    expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'twice'"), [(1,)])


def many_rows():
    expect(sum(n for (n,) in run(HUNDRED_THOUSAND)), 4_999_950_000)


def cursor():
    with ENGINE.connect() as connection:
        rows = connection.execution_options(stream_results=True, yield_per=1000).execute(text(HUNDRED_THOUSAND))
        expect(sum(n for (n,) in rows), 4_999_950_000)


def large_row():
    payload = os.urandom(1 << 20) * (LARGE >> 20)
    with Session(ENGINE) as session:
        session.add(Journey(name="large", payload=payload))
        session.commit()
        expect(session.scalars(select(Journey.payload).where(Journey.name == "large")).one() == payload, True)


def warnings():
    with ENGINE.connect() as connection:
        connection.execute(text("SELECT CAST('1x' AS SIGNED)")).all()
        expect([row[1] for row in connection.execute(text("SHOW WARNINGS"))], [1292])


def session_state():
    with ENGINE.connect() as connection:
        connection.execute(text("SET @stay = 'put'"))
        connection.execute(text("CREATE TEMPORARY TABLE passengers (n INT)"))
        connection.execute(text("INSERT INTO passengers VALUES (1), (2)"))
        connection.commit()
        for _ in range(5):
            expect(connection.scalar(text("SELECT @stay")), "put")
            expect(connection.scalar(text("SELECT COUNT(*) FROM passengers")), 2)
        connection.execute(text("DROP TEMPORARY TABLE passengers"))
        connection.commit()


def pool():
    """The pool pings at each checkout and rolls back at each return."""
    pooled = engine(max_overflow=0)
    for _ in range(20):
        with pooled.connect() as connection:
            connection.execute(insert(Journey).values(name="pool"))
    expect(run("SELECT COUNT(*) FROM journeys WHERE name = 'pool'"), [(0,)])
    expect(pooled.pool.checkedin(), 1)


def main():
    sys.stdout.reconfigure(line_buffering=True)
    print(f"# SQLAlchemy {sqlalchemy.__version__}")
    for promise in (connect, wrong_password, unknown_schema, values_text, unicode, last_insert_id, affected_rows, read_your_writes,
                    commit, rollback, savepoint, autocommit_off, error_syntax, error_duplicate, many_rows, cursor, large_row,
                    warnings, session_state, pool):
        name = promise.__name__.replace("_", "-")
        try:
            promise()
            print(f"ok {name}")
        except Exception as error:  # whatever it is, it is this promise's failure
            print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " "))
    print("done")


main()
