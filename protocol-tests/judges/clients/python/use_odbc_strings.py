"""Connection strings of ODBC that pgiam generates, used by pyodbc with psqlODBC.

JUDGE_STRINGS names a file with one line per case: name, role, database and string, with tabs between.
Prints "ok NAME" or what is wrong, one line per case.
"""

import os

import pyodbc

for line in open(os.environ["JUDGE_STRINGS"], encoding="utf-8"):
    name, role, database, string = line.rstrip("\n").split("\t")
    try:
        with pyodbc.connect(string) as connection:
            found = tuple(connection.execute("select current_user, current_database()").fetchone())
    except pyodbc.Error as error:
        found = error
    print(f"ok {name}" if found == (role, database) else f"FAIL {name}: {found}: {string}")
