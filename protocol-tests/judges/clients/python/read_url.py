"""What readers of connection strings make of one: `read_url.py READER STRING` prints it as JSON."""

import json
import sys
from urllib.parse import parse_qs, unquote, urlsplit

reader, written = sys.argv[1:]
if reader == "libpq":
    from psycopg.conninfo import conninfo_to_dict

    read = conninfo_to_dict(written)
    read["database"] = read.pop("dbname")
elif reader == "sqlalchemy":
    from sqlalchemy.engine import make_url

    url = make_url(written)
    read = {"host": url.host, "port": str(url.port), "user": url.username, "database": url.database, **url.query}
elif reader == "urllib":
    url = urlsplit(written)
    read = {
        "host": url.hostname,
        "port": str(url.port),
        "user": unquote(url.username),
        "database": unquote(url.path[1:]),
        **{name: value for name, [value] in parse_qs(url.query).items()},
    }
else:
    sys.exit(f"no reader {reader}")
print(json.dumps(read))
