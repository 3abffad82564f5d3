"""asyncpg: a driver of its own, binary, and everything prepared."""

import asyncio
import datetime
import decimal
import io
import ssl
import uuid

import asyncpg

from judge import *


async def main():
    con = await asyncpg.connect()

    async def login():
        row = await con.fetchrow("select current_user, current_database(), 6 * 7")
        same(tuple(row), (ROLE, DATABASE, 42))
        same(con._transport.get_extra_info("ssl_object") is not None, TLS, "TLS")

    async def parameters():
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
        row = await con.fetchrow(
            "select $1::int, $2::int8, $3::numeric, $4::float8, $5::bool, $6::text, $7::text, "
            "$8::date, $9::timestamptz, $10::uuid, $11::int[], $12::bytea",
            *values,
        )
        same(tuple(row), values)
        same(await con.fetchval("select $1::jsonb ->> 'ü'", '{"ü": "ja"}'), "ja")
        row = await con.fetchrow("select md5($1::text), $1::text", BIG)
        same(tuple(row), (BIG_MD5, BIG))

    async def prepared():
        statement = await con.prepare("select $1::int * $1::int")
        same(sum([await statement.fetchval(i) for i in range(1, 11)]), 385)
        known = "select count(*) from pg_prepared_statements where name = $1"
        same(await con.fetchval(known, statement.get_name()), 1, "statements at the server")

    async def batch():
        await con.execute("create temp table b (i int primary key)")
        await con.executemany("insert into b values ($1)", [(i,) for i in range(1000)])
        asked = await con.fetchmany("select $1::int + 1", [(i,) for i in range(200)])
        same([row[0] for row in asked], list(range(1, 201)))
        same(tuple(await con.fetchrow("select count(*), sum(i) from b")), (1000, 499500))

    async def many():
        async with asyncpg.create_pool(min_size=1, max_size=8) as pool:
            asked = (pool.fetchval("select $1::int * $1::int", i) for i in range(1, 41))
            same(sum(await asyncio.gather(*asked)), 22140)
        return "a pool of 8"

    async def copy():
        await con.execute("create temp table c (id int, t text)")
        await con.copy_to_table("c", source=io.BytesIO(COPY_LINES))
        same(await con.fetchval(COPY_CHECK.format("c")), COPY_MD5, "the table")
        out = io.BytesIO()
        await con.copy_from_query("select * from c order by id", output=out)
        same(hashlib.md5(out.getvalue()).hexdigest(), COPY_MD5)
        await con.execute("truncate c")
        rows = ((i, f"row {i} äöü") for i in range(1, COPY_ROWS + 1))
        await con.copy_records_to_table("c", records=rows)
        same(await con.fetchval(COPY_CHECK.format("c")), COPY_MD5, "the table filled in binary")
        return "text and binary"

    async def cursor():
        async with con.transaction():
            total = 0
            async for row in con.cursor("select generate_series(1, 1000)", prefetch=100):
                total += row[0]
            same(total, 500500)

    async def listen():
        heard = asyncio.get_running_loop().create_future()
        ears = await asyncpg.connect()
        await ears.add_listener("news", lambda *notice: heard.set_result(notice[1:]))
        await con.execute("select pg_notify('news', 'Grüße')")
        same(await asyncio.wait_for(heard, PATIENCE), (con.get_server_pid(), "news", "Grüße"))
        await ears.close()

    async def large_object():
        oid = await con.fetchval("select lo_from_bytea(0, $1)", OBJECT)
        same(await con.fetchval("select lo_get($1)", oid), OBJECT, "the object")
        same(await con.fetchval("select lo_unlink($1)", oid), 1)
        return "by SQL, the driver has none"

    async def cancel():
        pid = con.get_server_pid()
        sleeper = asyncio.create_task(con.execute(SLEEP))
        other = await asyncpg.connect()
        await wait_until_async(lambda: other.fetchval(asleep(pid)))
        sleeper.cancel()
        try:
            await asyncio.wait_for(sleeper, PATIENCE)
            raise AssertionError("it slept through")
        except asyncio.CancelledError:
            pass
        same(await con.fetchval("select pg_backend_pid()"), pid, "the process")
        same(await other.fetchval(asleep(pid)), False, "asleep")
        # The same by a deadline of the driver's.
        try:
            await con.execute(SLEEP, timeout=0.5)
            raise AssertionError("it slept through")
        except asyncio.TimeoutError:
            pass
        same(await con.fetchval("select pg_backend_pid()"), pid, "the process")
        await other.close()
        return "by cancelling the task, and by timeout"

    async def error():
        await con.execute("create temp table e (i int primary key)")
        states = []
        work = con.transaction()
        await work.start()
        for sql in ["insert into e values (1)", "select 1 / 0", "select 1"]:
            try:
                await con.execute(sql)
            except asyncpg.PostgresError as failure:
                states.append(failure.sqlstate)
        same(states, ["22012", "25P02"], "the SQLSTATEs")
        await work.rollback()
        async with con.transaction():
            await con.execute("insert into e values (1)")
            try:
                async with con.transaction():
                    await con.execute("insert into e values (1)")
            except asyncpg.UniqueViolationError as failure:
                same(failure.constraint_name, "e_pkey")
            await con.execute("insert into e values (2)")
        same(tuple(await con.fetchrow("select count(*), sum(i) from e")), (2, 3))

    async def direct():
        if not TLS:
            raise Skip("needs TLS")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # asyncpg names no protocol by itself, and the server insists on one.
        context.set_alpn_protocols(["postgresql"])
        other = await asyncpg.connect(ssl=context, direct_tls=True)
        same(await other.fetchval("select current_user"), ROLE)
        await other.close()

    await run_async(
        ("login", login),
        ("parameters", parameters),
        ("prepared", prepared),
        ("batch", batch),
        ("many", many),
        ("copy", copy),
        ("server-side cursor", cursor),
        ("listen", listen),
        ("large object", large_object),
        ("cancel", cancel),
        ("error", error),
        ("direct TLS", direct),
    )
    await con.close()


asyncio.run(main())
