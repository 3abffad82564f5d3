"""psycopg_pool: connections of psycopg 3 that outlive the code that borrows them."""

import asyncio
import threading

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from judge import *

# Everything else comes from the environment, and the pool's settings are its defaults.
pool = ConnectionPool("", min_size=2, max_size=4, open=False)


def one(con, sql, args=None, **more):
    return con.execute(sql, args, **more).fetchone()


def login():
    pool.open(wait=True)
    with pool.connection() as con:
        same(one(con, "select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
        same(con.pgconn.ssl_in_use, TLS, "TLS")


def parameters():
    with pool.connection() as con:
        row = one(con, "select %s::text, %s::bytea, md5(%s), %s", (TEXT, BYTES, BIG, BIG))
        same(row, (TEXT, BYTES, BIG_MD5, BIG))


def many():
    """More borrowers than connections."""
    seen, failures = [], []

    def borrow(i):
        try:
            with pool.connection() as con:
                seen.append((one(con, "select %s::int * %s::int", (i, i))[0], con.info.backend_pid))
        except Exception as error:
            failures.append(error)

    borrowers = [threading.Thread(target=borrow, args=(i,)) for i in range(1, 41)]
    for borrower in borrowers:
        borrower.start()
    for borrower in borrowers:
        borrower.join(PATIENCE)
    same(failures, [])
    same(sum(square for square, _ in seen), 22140)
    if len({pid for _, pid in seen}) > 4:
        raise AssertionError("there were more sessions than the pool may have")


def prepared():
    """A statement that stays prepared while its connection is in the pool."""
    name = "select count(*) from pg_prepared_statements where not from_sql and statement like '%* $2::int + 1'"
    with ConnectionPool("", min_size=1, max_size=1, open=True) as single:
        for i in range(1, 11):
            with single.connection() as con:
                same(one(con, "select %s::int * %s::int + 1", (i, i), prepare=True)[0], i * i + 1)
        with single.connection() as con:
            same(one(con, name)[0], 1, "statements at the server")


def copy():
    with pool.connection() as con, con.cursor() as cur:
        cur.execute("create temp table c (id int, t text) on commit drop")
        with cur.copy("copy c from stdin") as into:
            for at in range(0, len(COPY_LINES), 100_000):
                into.write(COPY_LINES[at : at + 100_000])
        same(cur.execute(COPY_CHECK.format("c")).fetchone()[0], COPY_MD5, "the table")
        with cur.copy("copy (select * from c order by id) to stdout") as out:
            same(hashlib.md5(b"".join(bytes(part) for part in out)).hexdigest(), COPY_MD5)


def error():
    """The pool rolls back, and the same connection serves on."""
    with ConnectionPool("", min_size=1, max_size=1, open=True) as single:
        with single.connection() as con:
            pid = con.info.backend_pid
            con.execute("create temp table e (i int primary key)")
        try:
            with single.connection() as con:
                con.execute("insert into e values (1)")
                con.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero as failure:
            same(failure.sqlstate, "22012")
        else:
            raise AssertionError("it went well")
        with single.connection() as con:
            same(one(con, "select count(*) from e")[0], 0)
            same(con.info.backend_pid, pid, "the process")


def cancel():
    borrowed, seen = [], []

    def sleep():
        with pool.connection() as con:
            borrowed.append(con)
            try:
                con.execute(SLEEP)
                seen.append("it slept through")
            except psycopg.Error as failure:
                seen.append(failure.sqlstate)

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    wait_until(lambda: borrowed)
    pid = borrowed[0].info.backend_pid
    with psycopg.connect("", autocommit=True) as other:
        wait_until(lambda: one(other, asleep(pid))[0])
    borrowed[0].cancel_safe(timeout=PATIENCE)
    sleeper.join(PATIENCE)
    same(seen, [CANCELLED], "the outcome")


def lost():
    """A connection that the server ends is replaced, without an error for the next borrower."""
    check = ConnectionPool.check_connection
    with ConnectionPool("", min_size=1, max_size=1, check=check, open=True) as single:
        with single.connection() as con:
            pid = con.info.backend_pid
        with psycopg.connect("", autocommit=True) as other:
            same(one(other, "select pg_terminate_backend(%s)", (pid,)), (True,))
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            wait_until(lambda: one(other, gone, (pid,))[0])
        with single.connection() as con:
            same(con.info.backend_pid == pid, False, "the process being the same")
            same(one(con, "select current_user")[0], ROLE)


def full():
    with ConnectionPool("", min_size=1, max_size=1, open=True) as single:
        with single.connection():
            try:
                with single.connection(timeout=0.2):
                    raise AssertionError("there was a second connection")
            except PoolTimeout:
                pass


def in_asyncio():
    async def use():
        async with AsyncConnectionPool("", min_size=1, max_size=4, open=False) as several:
            await several.wait(PATIENCE)

            async def square(i):
                async with several.connection() as con:
                    answer = await con.execute("select %s::int * %s::int", (i, i))
                    return (await answer.fetchone())[0]

            return sum(await asyncio.gather(*(square(i) for i in range(1, 41))))

    same(asyncio.run(use()), 22140)


def close():
    pool.close()


run(
    ("login", login),
    ("parameters", parameters),
    ("more borrowers than connections", many),
    ("prepared", prepared),
    ("copy", copy),
    ("error", error),
    ("cancel", cancel),
    ("lost connection", lost),
    ("full pool", full),
    ("asyncio", in_asyncio),
    ("close", close),
)
