"""pg8000: the protocol in plain Python."""

import datetime
import decimal
import io
import ssl
import uuid

import pg8000.dbapi
import pg8000.native

from judge import *


def tls():
    if not TLS:
        # None would be: with TLS if the server has it.
        return False
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# It reads no PG* variables.
WHERE = dict(user=USER, host=HOST, port=PORT, database=DATABASE, ssl_context=tls())
con = pg8000.native.Connection(**WHERE)


def login():
    same(con.run("select current_user::text, current_database()::text, 6 * 7"),
         [[ROLE, DATABASE, 42]])
    same(isinstance(con._usock, ssl.SSLSocket), TLS, "TLS")


def parameters():
    values = [
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
    ]
    kinds = "int int8 numeric float8 bool text text date timestamptz uuid int[] bytea".split()
    names = [f"v{i}" for i in range(len(kinds))]
    sql = ", ".join(f"cast(:{name} as {kind})" for name, kind in zip(names, kinds))
    same(con.run(f"select {sql}", **dict(zip(names, values))), [values])
    same(con.run("select md5(cast(:big as text)), cast(:big as text)", big=BIG), [[BIG_MD5, BIG]])


def prepared():
    statement = con.prepare("select cast(:i as int) * cast(:i as int)")
    same(sum(statement.run(i=i)[0][0] for i in range(1, 11)), 385)
    known = "select count(*) from pg_prepared_statements where statement like '%as int) * cast%'"
    statement.close()
    same(con.run(known), [[0]], "statements left at the server")


def batch():
    db = pg8000.dbapi.connect(**WHERE)
    cur = db.cursor()
    cur.execute("create temp table b (i int primary key)")
    cur.executemany("insert into b values (%s)", [(i,) for i in range(300)])
    cur.execute("select count(*), sum(i) from b")
    same(tuple(cur.fetchone()), (300, 44850))
    db.commit()
    db.close()


def copy():
    con.run("create temp table c (id int, t text)")
    con.run("copy c from stdin", stream=io.BytesIO(COPY_LINES))
    same(con.run(COPY_CHECK.format("c")), [[COPY_MD5]], "the table")
    out = io.BytesIO()
    con.run("copy (select * from c order by id) to stdout", stream=out)
    same(hashlib.md5(out.getvalue()).hexdigest(), COPY_MD5)


def listen():
    other = pg8000.native.Connection(**WHERE)
    con.run("listen news")
    # It takes no payload but ASCII.
    pid = other.run("select pg_backend_pid(), pg_notify('news', 'Gruss')")[0][0]

    def heard():
        con.run("select 1")
        return con.notifications

    wait_until(heard)
    same(list(con.notifications), [(pid, "news", "Gruss")])
    con.run("unlisten news")
    other.close()


def large_object():
    oid = con.run("select lo_from_bytea(0, :data)", data=OBJECT)[0][0]
    same(con.run("select lo_get(cast(:oid as oid))", oid=oid), [[OBJECT]], "the object")
    same(con.run("select lo_unlink(cast(:oid as oid))", oid=oid), [[1]])
    return "by SQL, the driver has none"


def error():
    con.run("create temp table e (i int primary key)")
    con.run("start transaction")
    states = []
    for sql in ["insert into e values (1)", "select 1 / 0", "select 1"]:
        try:
            con.run(sql)
        except pg8000.native.DatabaseError as failure:
            states.append(failure.args[0]["C"])
    same(states, ["22012", "25P02"], "the SQLSTATEs")
    con.run("rollback")
    con.run("insert into e values (1)")
    try:
        con.run("insert into e values (1)")
    except pg8000.native.DatabaseError as failure:
        same((failure.args[0]["C"], failure.args[0]["n"]), ("23505", "e_pkey"))
    con.run("insert into e values (2)")
    same(con.run("select count(*), sum(i) from e"), [[2, 3]])


run(
    ("login", login),
    ("parameters", parameters),
    ("prepared", prepared),
    ("batch", batch),
    ("copy", copy),
    ("listen", listen),
    ("large object", large_object),
    ("cancel", no()),
    ("error", error),
)
con.close()
