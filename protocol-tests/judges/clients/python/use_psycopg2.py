"""psycopg2, on the libpq that its wheel brings."""

import datetime
import decimal
import io
import threading
import uuid

import psycopg2
import psycopg2.extras

from judge import *

psycopg2.extras.register_uuid()


def connect():
    return psycopg2.connect("")


con = connect()


def one(sql, args=None):
    with con.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchone()


def login():
    same(one("select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
    same(con.info.ssl_in_use, TLS, "TLS")
    con.commit()
    return f"libpq {psycopg2.extensions.libpq_version()}"


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
    )
    row = one(
        "select %s, %s, %s, %s::float8, %s, %s, %s, %s, %s, %s, %s", values
    )
    same(row, values)
    same(one("select %s::bytea", (BYTES,))[0].tobytes(), BYTES)
    same(one("select %s::jsonb", (psycopg2.extras.Json({"ü": [1, None]}),))[0], {"ü": [1, None]})
    same(one("select md5(%s), %s", (BIG, BIG)), (BIG_MD5, BIG))
    con.commit()


def prepared():
    with con.cursor() as cur:
        cur.execute("prepare square (int) as select $1 * $1")
        total = 0
        for i in range(1, 11):
            cur.execute("execute square (%s)", (i,))
            total += cur.fetchone()[0]
    same(total, 385)
    con.commit()
    return "by SQL, the driver has none"


def batch():
    with con.cursor() as cur:
        cur.execute("create temp table b (i int primary key)")
        psycopg2.extras.execute_batch(
            cur, "insert into b values (%s)", [(i,) for i in range(1000)], page_size=100
        )
        psycopg2.extras.execute_values(
            cur, "insert into b values %s", [(i,) for i in range(1000, 2000)]
        )
    same(one("select count(*), sum(i) from b"), (2000, 1999000))
    con.commit()


def copy():
    with con.cursor() as cur:
        cur.execute("create temp table c (id int, t text)")
        cur.copy_expert("copy c from stdin", io.BytesIO(COPY_LINES))
        same(one(COPY_CHECK.format("c"))[0], COPY_MD5, "the table")
        out = io.BytesIO()
        cur.copy_expert("copy (select * from c order by id) to stdout", out)
        same(hashlib.md5(out.getvalue()).hexdigest(), COPY_MD5, "what came back")
    con.commit()


def listen():
    other = connect()
    con.autocommit = other.autocommit = True
    con.cursor().execute("listen news")
    other.cursor().execute("select pg_notify('news', %s)", ("Grüße",))

    def heard():
        con.poll()
        return con.notifies

    wait_until(heard)
    notice = con.notifies.pop()
    same((notice.channel, notice.payload), ("news", "Grüße"))
    same(notice.pid, other.info.backend_pid, "the sender")
    con.cursor().execute("unlisten news")
    con.autocommit = False
    other.close()


def large_object():
    lob = con.lobject(0, "wb")
    for at in range(0, len(OBJECT), 50_000):
        lob.write(OBJECT[at : at + 50_000])
    lob.close()
    lob = con.lobject(lob.oid, "rb")
    same(lob.read(), OBJECT, "the object")
    lob.seek(1000)
    same(lob.read(10), OBJECT[1000:1010], "a part of it")
    lob.unlink()
    con.commit()


def cancel():
    seen = []

    def sleep():
        try:
            one(SLEEP)
            seen.append("it slept through")
        except psycopg2.Error as error:
            seen.append(error.pgcode)

    pid = con.info.backend_pid
    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    other = connect()
    other.autocommit = True
    cur = other.cursor()

    def sleeps():
        cur.execute(asleep(pid))
        return cur.fetchone()[0]

    wait_until(sleeps)
    con.cancel()
    sleeper.join(PATIENCE)
    same(seen, [CANCELLED], "the outcome")
    con.rollback()
    same(one("select pg_backend_pid()")[0], pid, "the process")
    con.commit()
    other.close()


def error():
    with con.cursor() as cur:
        cur.execute("create temp table e (i int primary key)")
    con.commit()
    states = []
    with con.cursor() as cur:
        for sql in ["insert into e values (1)", "select 1 / 0", "select 1"]:
            try:
                cur.execute(sql)
            except psycopg2.Error as failure:
                states.append(failure.pgcode)
        same(states, ["22012", "25P02"], "the SQLSTATEs")
        con.rollback()
        cur.execute("insert into e values (1); savepoint s")
        try:
            cur.execute("insert into e values (1)")
        except psycopg2.errors.UniqueViolation as failure:
            same(failure.diag.constraint_name, "e_pkey")
        cur.execute("rollback to s; insert into e values (2)")
    con.commit()
    same(one("select count(*), sum(i) from e"), (2, 3))
    con.commit()


run(
    ("login", login),
    ("parameters", parameters),
    ("prepared", prepared),
    ("batch", batch),
    ("copy", copy),
    ("listen", listen),
    ("large object", large_object),
    ("cancel", cancel),
    ("error", error),
)
con.close()
