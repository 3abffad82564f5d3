"""psycopg 3, used with asyncio."""

import asyncio

import psycopg

from judge import *


async def main():
    con = await psycopg.AsyncConnection.connect("")

    async def one(sql, args=None, **more):
        return await (await con.execute(sql, args, **more)).fetchone()

    async def login():
        same(await one("select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
        same(con.pgconn.ssl_in_use, TLS, "TLS")
        await con.commit()

    async def parameters():
        values = (-42, 0.1, True, TEXT, None, BYTES)
        same(await one("select %s, %s, %s, %s, %s::text, %s", values), values)
        same(await one("select md5(%s), %s", (BIG, BIG)), (BIG_MD5, BIG))
        await con.commit()

    async def prepared():
        total = 0
        for i in range(1, 11):
            total += (await one("select %s::int * %s::int", (i, i), prepare=True))[0]
        same(total, 385)
        await con.commit()

    async def pipeline():
        async with con.pipeline():
            asked = [await con.execute("select %s::int + 1", (i,)) for i in range(200)]
            same([(await cur.fetchone())[0] for cur in asked], list(range(1, 201)))
        await con.commit()

    async def many():
        # Connections at once, as a web server has them.
        async def square(i):
            async with await psycopg.AsyncConnection.connect("") as other:
                return (await (await other.execute("select %s * %s", (i, i))).fetchone())[0]

        same(sum(await asyncio.gather(*(square(i) for i in range(1, 11)))), 385)
        return "10 connections at once"

    async def copy():
        async with con.cursor() as cur:
            await cur.execute("create temp table c (id int, t text)")
            async with cur.copy("copy c from stdin") as into:
                await into.write(COPY_LINES)
            same((await one(COPY_CHECK.format("c")))[0], COPY_MD5, "the table")
            md5 = hashlib.md5()
            async with cur.copy("copy (select * from c order by id) to stdout") as out:
                async for part in out:
                    md5.update(part)
            same(md5.hexdigest(), COPY_MD5)
        await con.commit()

    async def listen():
        async with await psycopg.AsyncConnection.connect("", autocommit=True) as ears:
            await ears.execute("listen news")
            await con.execute("select pg_notify('news', 'Grüße')")
            await con.commit()
            heard = [n.payload async for n in ears.notifies(timeout=PATIENCE, stop_after=1)]
            same(heard, ["Grüße"])

    async def cancel_by(way):
        pid = con.info.backend_pid
        sleeper = asyncio.create_task(one(SLEEP))
        async with await psycopg.AsyncConnection.connect("", autocommit=True) as other:

            async def sleeps():
                return (await (await other.execute(asleep(pid))).fetchone())[0]

            await wait_until_async(sleeps)
        await way(sleeper)
        same((await one("select pg_backend_pid()"))[0], pid, "the process")
        await con.commit()

    async def cancel():
        async def by_request(sleeper):
            await con.cancel_safe(timeout=PATIENCE)
            try:
                await asyncio.wait_for(sleeper, PATIENCE)
                raise AssertionError("it slept through")
            except psycopg.Error as failure:
                same(failure.sqlstate, CANCELLED)
            await con.rollback()

        async def by_task(sleeper):
            sleeper.cancel()
            try:
                await asyncio.wait_for(sleeper, PATIENCE)
                raise AssertionError("it slept through")
            except asyncio.CancelledError:
                pass
            await con.rollback()

        await cancel_by(by_request)
        await cancel_by(by_task)
        return "by request, and by cancelling the task"

    async def error():
        states = []
        for sql in ["select 1 / 0", "select 1"]:
            try:
                await con.execute(sql)
            except psycopg.Error as failure:
                states.append(failure.sqlstate)
        same(states, ["22012", "25P02"], "the SQLSTATEs")
        await con.rollback()
        same(await one("select 1"), (1,))
        await con.commit()

    await run_async(
        ("login", login),
        ("parameters", parameters),
        ("prepared", prepared),
        ("pipeline", pipeline),
        ("many", many),
        ("copy", copy),
        ("listen", listen),
        ("cancel", cancel),
        ("error", error),
    )
    await con.close()


asyncio.run(main())
