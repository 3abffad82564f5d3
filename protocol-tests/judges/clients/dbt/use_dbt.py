"""dbt with its adapter for PostgreSQL, which is psycopg2: seeds, models of three kinds, and tests."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from dbt.cli.main import dbtRunner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))
from judge import *

# It writes logs and compiled SQL into the project.
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
shutil.copytree(HERE / "project", work / "project")
os.environ.update(DBT_PROJECT_DIR=str(work / "project"), DBT_PROFILES_DIR=str(work / "project"),
                  DBT_LOG_LEVEL="none", DBT_LOG_LEVEL_FILE="debug", DBT_QUIET="1", DBT_NO_PRINT="1")
dbt = dbtRunner()


def invoke(*args):
    """Returns the status and the message of each node."""
    outcome = dbt.invoke(list(args))
    if outcome.exception:
        raise outcome.exception
    nodes = {r.node.name: (r.status.value, r.message) for r in getattr(outcome.result, "results", [])}
    return outcome.success, nodes


def show(query):
    """Asks the database through dbt."""
    outcome = dbt.invoke(["show", "--inline", query, "--limit", "-1"])
    if not outcome.success:
        raise AssertionError(f"{query}: {outcome.exception or outcome.result.results[0].message}")
    return [tuple(row.values()) for row in outcome.result.results[0].agate_table.rows]


def debug():
    same(invoke("debug")[0], True, "the connection test")


def login():
    rows = show("select current_user::text as u, current_database()::text as d, 6 * 7 as n")
    same(rows, [(ROLE, DATABASE, 42)])


def build():
    success, nodes = invoke("build")
    same({name: status for name, (status, _) in nodes.items() if status not in ("success", "pass")}, {})
    same(success, True)
    same(len(nodes), 7, "the number of nodes")


def text():
    rows = show("select name, who, hash = md5(name) as same from {{ ref('dbt_table') }} order by id")
    names = ["Grüße", "世界 🐘", "it's \"quoted\""]
    same(rows, [(name, ROLE, True) for name in names])


def incremental():
    same(invoke("run", "--select", "dbt_incremental")[0], True)
    same(show("select count(*) as n, bool_and(again) as again from {{ ref('dbt_incremental') }}"), [(3, True)])


def error():
    success, nodes = invoke("run", "--vars", "broken: true", "--select", "dbt_broken")
    status, message = nodes["dbt_broken"]
    same((success, status), (False, "error"))
    same("division by zero" in message, True, f"the reason being in {message!r}")


run(
    ("debug", debug),
    ("login", login),
    ("build", build),
    ("text", text),
    ("incremental", incremental),
    ("error", error),
)
