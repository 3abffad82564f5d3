"""PgBouncer between psycopg 3 and pgiam, with sessions and with transactions that share a connection.

PGBOUNCER names the program. PGSSLMODE is for its connections to pgiam; clients reach it by its Unix
socket.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading

import psycopg

from judge import *

PROGRAM = os.environ["PGBOUNCER"]
POOL = 4
CONFIG = """\
[databases]
app = host={host} port={port} dbname={database} user=db_user
wrong = host={host} port={port} dbname={database} user=postgres

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {dir}
auth_type = any
pool_mode = {mode}
default_pool_size = {pool}
server_tls_sslmode = {sslmode}
admin_users = {admin}
"""


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@contextlib.contextmanager
def bouncer(mode):
    """Runs one, and yields how to connect to it."""
    work = tempfile.mkdtemp()
    config = os.path.join(work, "pgbouncer.ini")
    with open(config, "w") as file:
        file.write(CONFIG.format(host=HOST, port=PORT, database=DATABASE, dir=work, mode=mode,
                                 pool=POOL, sslmode=os.environ["PGSSLMODE"], admin="judge"))
    command = [PROGRAM, config]
    if os.getuid() == 0:
        # It refuses to run as root.
        os.chmod(work, 0o755)
        shutil.chown(work, "postgres")
        command[1:1] = ["-u", "postgres"]
    # It ends when this program does, however that ends.
    guard = '"$@" & read -r _; kill $!; wait $!'
    process = subprocess.Popen(["sh", "-c", guard, "guard", *command], stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(os.path.join(work, ".s.PGSQL.6432")))
        yield lambda database="app", **more: psycopg.connect(
            f"host={work} port=6432 user=judge dbname={database} sslmode=disable", **more)
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        shutil.rmtree(work)


def one(con, sql, args=None, **more):
    return con.execute(sql, args, **more).fetchone()


def server_pid(con):
    """The process at the server: a pooler gives its clients numbers of its own."""
    return one(con, "select pg_backend_pid()")[0]


def login(connect):
    with connect() as con:
        same(one(con, "select current_user, current_database(), 6 * 7"), (ROLE, DATABASE, 42))
    with connect("pgbouncer", autocommit=True) as console:
        cur = console.execute("show servers")
        names = [column.name for column in cur.description]
        tls = [bool(row[names.index("tls")]) for row in cur.fetchall()]
    same(tls, [TLS], "TLS to pgiam")
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout
    return version.splitlines()[0]


def parameters(connect):
    with connect() as con:
        row = one(con, "select %s::text, %s::bytea, md5(%s), %s", (TEXT, BYTES, BIG, BIG))
        same(row, (TEXT, BYTES, BIG_MD5, BIG))


def prepared(connect):
    with connect() as con:
        for i in range(1, 11):
            same(one(con, "select %s::int * %s::int + 1", (i, i), prepare=True)[0], i * i + 1)
        name = "select count(*) from pg_prepared_statements where statement like '%* $2::int + 1'"
        same(one(con, name)[0], 1, "statements at the server")
    # DISCARD ALL, which it sends before the next client gets the connection.
    with connect() as con:
        same(one(con, "select count(*) from pg_prepared_statements")[0], 0, "statements left")


def unnamed(connect):
    with connect() as con:
        for i in range(1, 11):
            same(one(con, "select %s::int * %s::int + 1", (i, i), prepare=False)[0], i * i + 1)
            con.commit()


def copy(connect):
    with connect() as con, con.cursor() as cur:
        cur.execute("create temp table c (id int, t text) on commit drop")
        with cur.copy("copy c from stdin") as into:
            for at in range(0, len(COPY_LINES), 100_000):
                into.write(COPY_LINES[at : at + 100_000])
        same(cur.execute(COPY_CHECK.format("c")).fetchone()[0], COPY_MD5, "the table")
        with cur.copy("copy (select * from c order by id) to stdout") as out:
            same(hashlib.md5(b"".join(bytes(part) for part in out)).hexdigest(), COPY_MD5)


def listen(connect):
    with connect(autocommit=True) as ears, connect(autocommit=True) as other:
        ears.execute("listen news")
        other.execute("select pg_notify('news', 'Grüße')")
        heard = list(ears.notifies(timeout=PATIENCE, stop_after=1))
        same([(n.channel, n.payload) for n in heard], [("news", "Grüße")])


def many(connect):
    """Clients one after the other and at once, on the connections of the pool."""
    seen, failures = set(), []

    def client(i):
        try:
            with connect() as con:
                con.prepare_threshold = None
                for _ in range(3):
                    seen.add(server_pid(con))
                    con.commit()
        except Exception as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(i,)) for i in range(20)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(PATIENCE)
    same(failures, [])
    if not 1 <= len(seen) <= POOL:
        raise AssertionError(f"{len(seen)} sessions at the server for 20 clients")
    return f"20 clients, {len(seen)} sessions"


def shared(connect):
    """More clients that stay connected than connections to the server."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(autocommit=True)) for _ in range(POOL * 3)]
        pids = {server_pid(con) for con in clients}
    if len(pids) > POOL:
        raise AssertionError(f"{len(pids)} sessions at the server")


def transactions(connect):
    with connect(autocommit=True) as con, connect(autocommit=True) as other:
        con.execute("drop table if exists bounced")
        con.execute("create table bounced (i int primary key)")
        with con.transaction():
            con.execute("insert into bounced values (1)")
            same(one(other, "select count(*) from bounced")[0], 0)
        same(one(other, "select count(*) from bounced")[0], 1)
        con.execute("drop table bounced")


def cancel(connect):
    seen = []
    with connect(autocommit=True) as con, connect(autocommit=True) as other:
        con.execute("set application_name = 'bounced sleeper'")

        def sleep():
            try:
                con.execute(SLEEP)
                seen.append("it slept through")
            except psycopg.Error as error:
                seen.append(error.sqlstate)

        sleeper = threading.Thread(target=sleep, daemon=True)
        sleeper.start()
        sleeping = ("select exists (select from pg_stat_activity where wait_event = 'PgSleep'"
                    " and application_name = 'bounced sleeper')")
        wait_until(lambda: one(other, sleeping)[0])
        con.cancel()
        sleeper.join(PATIENCE)
        same(seen, [CANCELLED], "the outcome")
        same(one(con, "select current_user")[0], ROLE)


def error(connect):
    with connect() as con:
        con.execute("create temp table e (i int primary key) on commit drop")
        states = []
        for sql in ["insert into e values (1)", "select 1 / 0", "select 1"]:
            try:
                con.execute(sql)
            except psycopg.Error as failure:
                states.append(failure.sqlstate)
        same(states, ["22012", "25P02"], "the SQLSTATEs")
        con.rollback()
        same(one(con, "select current_user")[0], ROLE)


def refused(connect):
    """What pgiam says reaches the clients of the pooler."""
    try:
        connect("wrong").close()
    except psycopg.OperationalError as failure:
        text = str(failure)
    else:
        raise AssertionError("the role postgres could log in")
    if 'role "postgres" is not set up for IAM login' not in text:
        raise AssertionError(f"the reason is missing in {text}")


COMMON = [("parameters", parameters), ("copy", copy), ("many clients", many), ("cancel", cancel),
          ("error", error), ("refused", refused)]
MODES = {
    "session": [("login", login), ("prepared", prepared), ("listen", listen), *COMMON],
    "transaction": [("login", login), ("unnamed statements", unnamed), ("shared connections", shared),
                    ("transactions", transactions), *COMMON],
}

for mode, steps in MODES.items():
    name = "start"
    try:
        with bouncer(mode) as connect:
            for name, step in steps:
                report(f"{name}, {mode} mode", step(connect))
    except BaseException:
        # Only now, when PgBouncer has ended.
        fail(f"{name}, {mode} mode")
