"""Every string that pgiam generates, read and used by the parsers and drivers of Python.

JUDGE_STRINGS is a file with one case a line, its fields separated by tabs: name, role, database,
URL, JDBC URL, DSN. The server must see that role in that database. Without the file, DATABASE_URL
is the only case, with JUDGE_ROLE and JUDGE_DATABASE, and the other variables stay as they are.
"""

import asyncio
import os
import sys
from urllib.parse import unquote, urlsplit

import asyncpg
import dj_database_url
import psycopg
import psycopg2
import sqlalchemy
import tortoise
from django.conf import settings
from django.db.utils import ConnectionHandler
from sqlalchemy.ext.asyncio import create_async_engine

WHO = "select current_user::text as u, current_database()::text as d"


def by_libpq(connect):
    def go(text):
        con = connect(text)
        try:
            cur = con.cursor()
            cur.execute(WHO)
            return tuple(cur.fetchone())
        finally:
            con.close()

    return go


def by_urllib(text):
    """As programs do that take a URL apart by themselves."""
    url = urlsplit(text)
    where = {"host": url.hostname, "port": url.port, "user": unquote(url.username), "dbname": unquote(url.path[1:])}
    return by_libpq(lambda _: psycopg.connect(**{name: value for name, value in where.items() if value}))(text)


def by_asyncpg(text):
    async def go():
        con = await asyncpg.connect(text)
        try:
            return tuple(await con.fetchrow(WHO))
        finally:
            await con.close()

    return asyncio.run(go())


def by_sqlalchemy(dialect):
    def go(text):
        url = text.replace("postgresql:", f"postgresql+{dialect}:", 1)
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as con:
                return tuple(con.execute(sqlalchemy.text(WHO)).one())
        finally:
            engine.dispose()

    return go


def by_sqlalchemy_asyncpg(text):
    async def go():
        engine = create_async_engine(text.replace("postgresql:", "postgresql+asyncpg:", 1))
        try:
            async with engine.connect() as con:
                return tuple((await con.execute(sqlalchemy.text(WHO))).one())
        finally:
            await engine.dispose()

    return asyncio.run(go())


def by_django(text):
    if not settings.configured:
        settings.configure()
    con = ConnectionHandler({"default": dj_database_url.parse(text)})["default"]
    try:
        with con.cursor() as cur:
            cur.execute(WHO)
            return tuple(cur.fetchone())
    finally:
        con.close()


def by_tortoise(text):
    async def go():
        # It asks for a module with models; this one has none.
        url = text.replace("postgresql:", "asyncpg:", 1)
        await tortoise.Tortoise.init(db_url=url, modules={"models": ["tortoise.contrib.postgres.indexes"]})
        try:
            con = tortoise.connections.get("default")
            [row] = await con.execute_query_dict(WHO)
            return row["u"], row["d"]
        finally:
            await tortoise.Tortoise.close_connections()

    return asyncio.run(go())


def tortoise_cannot(url, database):
    return "%" in url and "it decodes nothing"


def django_cannot(url, database):
    return url.endswith("/") and "it insists on a database"


# Reader, how it connects, and why it cannot read some URLs, which it must then refuse.
READERS = [
    ("psycopg 3", by_libpq(psycopg.connect), None),
    ("psycopg2", by_libpq(psycopg2.connect), None),
    ("urllib", by_urllib, None),
    ("asyncpg", by_asyncpg, None),
    ("SQLAlchemy with psycopg 3", by_sqlalchemy("psycopg"), None),
    ("SQLAlchemy with psycopg2", by_sqlalchemy("psycopg2"), None),
    ("SQLAlchemy with pg8000", by_sqlalchemy("pg8000"), None),
    ("SQLAlchemy with asyncpg", by_sqlalchemy_asyncpg, None),
    ("Django with dj-database-url", by_django, django_cannot),
    ("Tortoise", by_tortoise, tortoise_cannot),
]

if "JUDGE_STRINGS" in os.environ:
    with open(os.environ["JUDGE_STRINGS"], encoding="utf-8") as file:
        cases = [line.rstrip("\n").split("\t") for line in file]
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
else:
    cases = [["DATABASE_URL", os.environ["JUDGE_ROLE"], os.environ["JUDGE_DATABASE"], os.environ["DATABASE_URL"], "", ""]]
os.environ["PGPASSFILE"] = "/nonexistent"

failed = False


def judge(step, use, text, expected, why_not):
    global failed
    try:
        found = use(text)
    except Exception as error:
        outcome = "ok" if why_not else "FAIL"
        print(f"{outcome} {step} ({why_not})" if why_not else f"FAIL {step}: {text}: {error!r}")
        failed |= not why_not
        return
    right = tuple(found) == expected and not why_not
    print(f"ok {step}" if right else f"FAIL {step}: {text} is {found}, not {why_not or expected}")
    failed |= not right


for name, role, database, url, _, dsn in cases:
    for reader, use, cannot in READERS:
        why_not = cannot and cannot(url, database)
        judge(f"{reader}, {name}", use, url, (role, database), why_not)
    if dsn:
        for reader, connect in [("psycopg 3", psycopg.connect), ("psycopg2", psycopg2.connect)]:
            judge(f"{reader}, {name}, DSN", by_libpq(connect), dsn, (role, database), None)
sys.exit(failed)
