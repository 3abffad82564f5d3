"""pgcli, as a script calls it."""

import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from judge import *

PGCLI = Path(sys.executable).with_name("pgcli")
home = tempfile.TemporaryDirectory()
ENV = {**os.environ, "HOME": home.name, "XDG_CONFIG_HOME": home.name, "PAGER": "cat"}


def start(*args):
    return subprocess.Popen(
        [PGCLI, "--no-password", "--less-chatty", "--yes", *args],
        env=ENV,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pgcli(*args):
    program = start(*args)
    said, _ = program.communicate(timeout=PATIENCE)
    return program.returncode, said


def rows(*sql):
    args = [word for text in sql for word in ("-c", text)]
    code, said = pgcli("--tuples-only", *args)
    same(code, 0, f"the exit code ({said})")
    return said.split()


def login():
    code, said = pgcli("--ping")
    same(code, 0, f"the exit code of --ping ({said})")
    same(rows("select current_user || '/' || current_database() || '/' || 6 * 7"),
         [f"{ROLE}/{DATABASE}/42"])


def values():
    same(rows("select 'Grüße-世界-🐘'", "select md5(repeat('ä', 100000))"),
         ["Grüße-世界-🐘", hashlib.md5("ä".encode() * 100_000).hexdigest()])


def commands():
    code, said = pgcli("--list")
    same((code, DATABASE in said), (0, True), f"--list ({said})")
    code, said = pgcli("-c", r"\dn")
    same((code, "public" in said), (0, True), rf"\dn ({said})")


def cancel():
    program = start("--application-name", "sleeping-pgcli", "-c", SLEEP)
    with psycopg.connect("", autocommit=True) as other:
        pid = "select pid from pg_stat_activity where application_name = 'sleeping-pgcli' " \
              "and state = 'active' and wait_event = 'PgSleep'"
        wait_until(lambda: other.execute(pid).fetchone())
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=PATIENCE)
        wait_until(lambda: not other.execute(pid).fetchone())
    return said.strip().splitlines()[-1] if said.strip() else "without a word"


def error():
    code, said = pgcli("-c", "select 1 / 0")
    same("division by zero" in said, True, f"the message ({said})")
    same(rows("begin", "create table pgcli_e (i int)", "rollback",
              "select to_regclass('pgcli_e') is null")[-1].lower(), "true")
    return f"exit code {code}"


run(
    ("login", login),
    ("values", values),
    ("commands", commands),
    ("cancel", cancel),
    ("error", error),
)
