"""What the Python programs of the matrix share: the steps, the values, and how a step is reported.

Where to connect comes from PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE; JUDGE_ROLE is the
role that the server must have logged in, whatever PGUSER says. There is no password anywhere.
"""

import asyncio
import hashlib
import os
import sys
import time
import traceback

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
DATABASE = os.environ["PGDATABASE"]
TLS = os.environ["PGSSLMODE"] != "disable"
ROLE = os.environ["JUDGE_ROLE"]
# The newest protocol that the server speaks.
PROTOCOL = os.environ.get("JUDGE_PROTOCOL", "3.0")

# How long anything may take to happen that another connection has to see.
PATIENCE = 30.0
# What sleeps this long and ends early was cancelled.
SLEEP = "select pg_sleep(60)"
CANCELLED = "57014"

TEXT = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline"
BIG = "äbcdefg🐘" * 125_000
BIG_MD5 = hashlib.md5(BIG.encode()).hexdigest()
BYTES = bytes(range(256))

COPY_ROWS = 100_000
COPY_LINES = "".join(f"{i}\trow {i} äöü\n" for i in range(1, COPY_ROWS + 1)).encode()
COPY_MD5 = hashlib.md5(COPY_LINES).hexdigest()
# The same sum over the table, at the server.
COPY_CHECK = "select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) from {}"

OBJECT = bytes(i * i % 251 for i in range(300_000))
OBJECT_MD5 = hashlib.md5(OBJECT).hexdigest()


class Skip(Exception):
    """The client has no such thing."""


def same(found, expected, what="the answer"):
    if found != expected:
        raise AssertionError(f"{what} is {brief(found)}, not {brief(expected)}")


def brief(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}… ({len(text)} characters)"


def asleep(pid):
    """SQL that is true when this server process sleeps."""
    return (
        "select exists (select from pg_stat_activity "
        f"where pid = {int(pid)} and state = 'active' and wait_event = 'PgSleep')"
    )


def wait_until(look):
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {PATIENCE} s")
        time.sleep(0.01)


async def wait_until_async(look):
    deadline = time.monotonic() + PATIENCE
    while not await look():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {PATIENCE} s")
        await asyncio.sleep(0.01)


def report(name, outcome):
    print(f"ok {name}" if outcome is None else f"ok {name} ({outcome})", flush=True)


def fail(name):
    traceback.print_exc()
    print(f"FAIL {name}: {sys.exc_info()[1]!r}", flush=True)
    # Not by an exception: threads that wait for a server must not hold the end up.
    os._exit(1)


def run(*steps):
    """Runs named functions in order; what one returns is remarked upon."""
    for name, step in steps:
        try:
            report(name, step())
        except Skip as why:
            print(f"skip {name} ({why})", flush=True)
        except BaseException:
            fail(name)


async def run_async(*steps):
    for name, step in steps:
        try:
            report(name, await step())
        except Skip as why:
            print(f"skip {name} ({why})", flush=True)
        except BaseException:
            fail(name)


def no(why="has no such thing"):
    """A step that is always skipped."""

    def step():
        raise Skip(why)

    return step
