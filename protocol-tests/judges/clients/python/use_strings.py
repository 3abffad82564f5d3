"""The ways to connect of docs/clients.md, written as connection strings and arguments.

JUDGE_HUB is the port of all targets, JUDGE_SOCKETS the directory of the Unix sockets.
"""

import os

# What is written has to do; the environment must not help.
HUB = os.environ["JUDGE_HUB"]
SOCKETS = os.environ["JUDGE_SOCKETS"]

from judge import *

for name in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[name]
os.environ["PGPASSFILE"] = "/nonexistent"

import asyncpg
import pg8000.dbapi
import psycopg
import psycopg2
import sqlalchemy

WHO = "select current_user::text, current_database()::text"
URLS = {
    "URL": f"postgresql://localhost:{PORT}/app",
    "URL of the hub": f"postgresql://localhost:{HUB}/orders/app",
    "URL of the hub, encoded": f"postgresql://localhost:{HUB}/orders%2Fapp",
    "URL of the hub, no database": f"postgresql://localhost:{HUB}/orders",
    "URL with a role": f"postgresql://db_user@127.0.0.1:{PORT}/app",
    "URL with a password that nobody asks for": f"postgresql://db_user:x@[::1]:{PORT}/app",
    "URL of the socket": f"postgresql:///app?host={SOCKETS}&port={PORT}",
}
WORDS = {
    "words": f"host=localhost port={PORT} dbname=app",
    "words of the hub": f"host=localhost port={HUB} dbname=orders/app",
    "words of the socket": f"host={SOCKETS} port={PORT}",
}


def by_libpq(connect):
    def go(text):
        con = connect(text)
        cur = con.cursor()
        cur.execute(WHO)
        same(tuple(cur.fetchone()), (ROLE, "app"))
        con.close()

    return go


def by_asyncpg(text):
    async def go():
        con = await asyncpg.connect(text)
        same(tuple(await con.fetchrow(WHO)), (ROLE, "app"))
        await con.close()

    asyncio.run(go())


def by_sqlalchemy(text):
    engine = sqlalchemy.create_engine(text.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as con:
        same(tuple(con.execute(sqlalchemy.text(WHO)).one()), (ROLE, "app"))
    engine.dispose()


def by_pg8000(**where):
    def go():
        con = pg8000.dbapi.connect(user=USER, **where)
        cur = con.cursor()
        cur.execute(WHO)
        same(tuple(cur.fetchone()), (ROLE, "app"))
        con.close()

    return go


steps = []
for name, way, texts in [
    ("psycopg 3", by_libpq(psycopg.connect), URLS | WORDS),
    ("psycopg2", by_libpq(psycopg2.connect), URLS | WORDS),
    ("asyncpg", by_asyncpg, URLS),
    # It takes what is behind the first slash as it is.
    ("SQLAlchemy", by_sqlalchemy, {k: v for k, v in URLS.items() if "encoded" not in k}),
]:
    for what, text in texts.items():
        steps.append((f"{name}, {what}", lambda way=way, text=text: way(text)))
steps += [
    ("pg8000, arguments", by_pg8000(host="localhost", port=PORT, database="app")),
    ("pg8000, the hub", by_pg8000(host="localhost", port=int(HUB), database="orders/app")),
    ("pg8000, the socket", by_pg8000(unix_sock=f"{SOCKETS}/.s.PGSQL.{PORT}", database="app")),
]
run(*steps)
