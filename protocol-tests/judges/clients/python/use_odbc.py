"""ODBC: psqlodbc of the system, used by pyodbc, which brings a driver manager."""

import datetime
import decimal
import os
import tempfile
import threading

import pyodbc

from judge import *

DRIVER = "PostgreSQL Unicode"
# It reads no PG* variables but by libpq, and the driver insists on a server and a database.
STRING = f"Driver={{{DRIVER}}};Server={HOST};Port={PORT};Database={DATABASE};"
# libpq looks for what the driver does not pass; disable is the driver's default.
MODE = f"SSLmode={'require' if TLS else 'disable'};"


def connect(more="", **options):
    return pyodbc.connect(STRING + MODE + more, **options)


con = connect()


def one(sql, *args):
    return tuple(con.execute(sql, *args).fetchone())


def login():
    same(one("select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
    tls = one("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    con.commit()
    same(tls, ("1",), "TLS to the database")
    return f"psqlodbc {con.getinfo(pyodbc.SQL_DRIVER_VER)}"


def defaults():
    """Neither user nor SSLmode, as a new data source has it."""
    with pyodbc.connect(STRING) as other:
        same(other.execute("select current_user").fetchval(), ROLE)
    other.close()


def data_source():
    """Named in odbc.ini, with what such a file usually has."""
    lines = ["[pgiam]", f"Driver = {DRIVER}", f"Servername = {HOST}", f"Port = {PORT}",
             f"Database = {DATABASE}", "Username = db_user", "Password =", "SSLmode = prefer"]
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.environ["ODBCINI"] = file.name
        with pyodbc.connect("DSN=pgiam") as other:
            same(tuple(other.execute("select current_user, current_database()").fetchone()),
                 (ROLE, DATABASE))
        other.close()


def parameters():
    values = (
        -42,
        9007199254740993,
        decimal.Decimal("12345678901234567890.123456789"),
        0.1,
        TEXT,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, 1, 5),
        BYTES,
    )
    sql = ("select ?::int, ?::int8, ?::numeric(30, 9), ?::float8, ?::text, ?::date, ?::timestamp,"
           " ?::bytea")
    same(one(sql, values), values)
    same(one("select ?::text", None), (None,))
    same(one("select md5(?)", BIG), (BIG_MD5,))
    con.commit()


def large_value():
    with connect("MaxLongVarcharSize=2000000;") as other:
        same(other.execute("select ?::text", BIG).fetchval(), BIG)
    other.close()


def prepared():
    with connect() as other:
        cur = other.cursor()
        squares = (cur.execute("select ?::int * ?::int", i, i).fetchval() for i in range(1, 11))
        same(sum(squares), 385)
        known = "select count(*) from pg_prepared_statements where not from_sql"
        if other.execute(known).fetchval() < 1:
            raise AssertionError("nothing is prepared at the server")
    other.close()


def batch():
    cur = con.cursor()
    cur.execute("create temp table b (i int, t text)")
    cur.fast_executemany = True
    cur.executemany("insert into b values (?, ?)", [(i, f"row {i} äöü") for i in range(1000)])
    same(one("select count(*), sum(i) from b where t like '%äöü'"), (1000, 499500))
    con.commit()


def cursor():
    with connect("UseDeclareFetch=1;Fetch=100;") as other:
        rows = other.execute("select generate_series(1, 1000)")
        same(sum(row[0] for row in rows), 500500)
    other.close()


def catalog():
    con.execute("create table odbc_item (id int primary key, name text)")
    con.commit()
    tables = [row.table_name for row in con.cursor().tables(table="odbc_item")]
    same(tables, ["odbc_item"])
    columns = [row.column_name for row in con.cursor().columns(table="odbc_item")]
    same(columns, ["id", "name"])
    con.execute("drop table odbc_item")
    con.commit()


def cancel():
    seen = []
    cur = con.cursor()
    pid = one("select pg_backend_pid()")[0]

    def sleep():
        try:
            cur.execute(SLEEP)
            seen.append("it slept through")
        except pyodbc.Error as error:
            seen.append(error.args[0])

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    with connect(autocommit=True) as other:
        wait_until(lambda: other.execute(asleep(pid)).fetchval() == "1")
    other.close()
    cur.cancel()
    sleeper.join(PATIENCE)
    same(seen, [CANCELLED], "the outcome")
    con.rollback()
    same(one("select pg_backend_pid()"), (pid,), "the process")
    con.commit()


def error():
    con.execute("create temp table e (i int primary key)")
    con.commit()
    states = []
    for sql in ["insert into e values (1)", "select 1 / 0"]:
        try:
            con.execute(sql).fetchall() if sql.startswith("select") else con.execute(sql)
        except pyodbc.Error as failure:
            states.append(failure.args[0])
    same(states, ["22012"], "the SQLSTATEs")
    con.rollback()
    con.execute("insert into e values (1)")
    try:
        con.execute("insert into e values (1)")
    except pyodbc.IntegrityError as failure:
        same(failure.args[0], "23505")
    con.rollback()
    same(one("select count(*) from e"), (0,))
    con.commit()


run(
    ("login", login),
    ("defaults", defaults),
    ("data source", data_source),
    ("parameters", parameters),
    ("large value", large_value),
    ("prepared", prepared),
    ("batch", batch),
    ("cursor", cursor),
    ("catalog", catalog),
    ("copy", no("the driver has no COPY")),
    ("cancel", cancel),
    ("error", error),
)
con.close()
