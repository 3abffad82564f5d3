"""psycopg 3, used with blocking calls, on the libpq that its wheel brings."""

import datetime
import decimal
import threading
import uuid

import psycopg
from psycopg.types.json import Jsonb

from judge import *


def connect(**more):
    return psycopg.connect("", **more)


con = connect()


def one(sql, args=None, **more):
    return con.execute(sql, args, **more).fetchone()


def login():
    same(one("select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
    same(con.pgconn.ssl_in_use, TLS, "TLS")
    con.commit()
    return f"libpq {psycopg.pq.version()}"


def parameters():
    values = (
        -42,
        9007199254740993,
        decimal.Decimal("12345678901234567890.123456789"),
        0.1,
        True,
        TEXT,
        None,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.timezone.utc),
        uuid.UUID(int=7),
        [1, None, 3],
        BYTES,
    )
    sql = "select %s, %s, %s, %s, %s, %s, %s::text, %s, %s, %s, %s, %s"
    for binary in (False, True):
        if binary:
            sql = sql.replace("%s", "%b")
        row = con.cursor(binary=binary).execute(sql, values).fetchone()
        same(row, values, "the binary row" if binary else "the row")
    same(one("select %s", (Jsonb({"ü": [1, None]}),))[0], {"ü": [1, None]})
    same(one("select md5(%s), %s", (BIG, BIG)), (BIG_MD5, BIG))
    con.commit()


def prepared():
    squares = (one("select %s::int * %s::int", (i, i), prepare=True)[0] for i in range(1, 11))
    same(sum(squares), 385)
    known = "select count(*) from pg_prepared_statements where not from_sql and statement like '%* $2%'"
    same(one(known)[0], 1, "statements at the server")
    con.commit()


def pipeline():
    with con.pipeline():
        cur = con.cursor()
        cur.execute("create temp table p (i int primary key)")
        cur.executemany("insert into p values (%s)", [(i,) for i in range(1000)])
        asked = [con.execute("select %s::int + 1", (i,)) for i in range(200)]
        same([cur.fetchone()[0] for cur in asked], list(range(1, 201)))
    same(one("select count(*), sum(i) from p"), (1000, 499500))
    con.commit()
    try:
        with con.pipeline():
            con.execute("select 1 / 0")
            con.execute("insert into p values (1000)")
    except psycopg.errors.DivisionByZero:
        con.rollback()
    same(one("select count(*) from p")[0], 1000)
    con.commit()


def copy():
    with con.cursor() as cur:
        cur.execute("create temp table c (id int, t text)")
        with cur.copy("copy c from stdin") as into:
            for at in range(0, len(COPY_LINES), 100_000):
                into.write(COPY_LINES[at : at + 100_000])
        same(one(COPY_CHECK.format("c"))[0], COPY_MD5, "the table")
        with cur.copy("copy (select * from c order by id) to stdout") as out:
            same(hashlib.md5(b"".join(bytes(part) for part in out)).hexdigest(), COPY_MD5)
        cur.execute("truncate c")
        with cur.copy("copy c from stdin (format binary)") as into:
            into.set_types(["int4", "text"])
            for i in range(1, COPY_ROWS + 1):
                into.write_row((i, f"row {i} äöü"))
        same(one(COPY_CHECK.format("c"))[0], COPY_MD5, "the table filled in binary")
    con.commit()
    return "text and binary"


def cursor():
    with con.cursor("named") as cur:
        cur.itersize = 100
        cur.execute("select generate_series(1, 1000)")
        same(sum(row[0] for row in cur), 500500)
    con.commit()


def listen():
    with connect(autocommit=True) as ears, connect(autocommit=True) as other:
        ears.execute("listen news")
        other.execute("select pg_notify('news', 'Grüße')")
        heard = list(ears.notifies(timeout=PATIENCE, stop_after=1))
        same([(n.channel, n.payload, n.pid) for n in heard],
             [("news", "Grüße", other.info.backend_pid)])


def large_object():
    oid = one("select lo_from_bytea(0, %s)", (OBJECT,))[0]
    same(one("select lo_get(%s)", (oid,))[0], OBJECT, "the object")
    same(one("select lo_unlink(%s)", (oid,))[0], 1)
    con.commit()
    return "by SQL, the driver has none"


def cancel_by(way):
    seen = []

    def sleep():
        try:
            one(SLEEP)
            seen.append("it slept through")
        except psycopg.Error as error:
            seen.append(error.sqlstate)

    pid = con.info.backend_pid
    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    with connect(autocommit=True) as other:
        wait_until(lambda: other.execute(asleep(pid)).fetchone()[0])
    way()
    sleeper.join(PATIENCE)
    same(seen, [CANCELLED], "the outcome")
    con.rollback()
    same(one("select pg_backend_pid()")[0], pid, "the process")
    con.commit()


def cancel():
    cancel_by(con.cancel)
    # As libpq does it since 17: with TLS when the connection has it.
    cancel_by(con.cancel_safe)


def error():
    con.execute("create temp table e (i int primary key)")
    con.commit()
    states = []
    for sql in ["insert into e values (1)", "select 1 / 0", "select 1"]:
        try:
            con.execute(sql)
        except psycopg.Error as failure:
            states.append(failure.sqlstate)
    same(states, ["22012", "25P02"], "the SQLSTATEs")
    con.rollback()
    with con.transaction():
        con.execute("insert into e values (1)")
        try:
            with con.transaction():
                con.execute("insert into e values (1)")
        except psycopg.errors.UniqueViolation as failure:
            same(failure.diag.constraint_name, "e_pkey")
        con.execute("insert into e values (2)")
    same(one("select count(*), sum(i) from e"), (2, 3))
    con.commit()


def direct():
    if not TLS:
        raise Skip("needs TLS")
    with psycopg.connect("sslnegotiation=direct") as other:
        same(other.execute("select current_user").fetchone()[0], ROLE)
        other.cancel_safe(timeout=PATIENCE)


def newer_protocol():
    if PROTOCOL != "3.2":
        raise Skip("the server does not speak it")
    global con
    older = con
    with psycopg.connect("min_protocol_version=3.2") as con:
        same(one("select current_user")[0], ROLE)
        con.rollback()
        # With a key that is longer than four bytes.
        cancel_by(con.cancel_safe)
    con = older


run(
    ("login", login),
    ("parameters", parameters),
    ("prepared", prepared),
    ("pipeline", pipeline),
    ("copy", copy),
    ("server-side cursor", cursor),
    ("listen", listen),
    ("large object", large_object),
    ("cancel", cancel),
    ("error", error),
    ("direct TLS", direct),
    ("protocol 3.2", newer_protocol),
)
con.close()
