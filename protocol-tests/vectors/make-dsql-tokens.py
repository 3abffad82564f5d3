#!/usr/bin/env python3
"""Write dsql-tokens.json: Aurora DSQL login tokens as botocore makes them, with the clock stopped.

    pip install botocore==1.43.11
    python3 protocol-tests/vectors/make-dsql-tokens.py

The keys are the examples of AWS's own documentation; they open nothing.
"""

import datetime
import json
import pathlib
from unittest import mock

import botocore
import botocore.auth
import botocore.session

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
# Every character of base64, the padding included, and the length of a role's token.
SESSION = "IQoJb3JpZ2luX2VjE+/" + "abcXYZ019+/" * 30 + "A=="
HOST = "abcdefghijklmnopqrst123456.dsql.us-east-1.on.aws"
PRIVATE = "abcdefghijklmnopqrst123456.dsql-fnh4.eu-west-1.on.aws"
TIME = "2026-11-23T17:05:09"

# name, host, role, region, session token, time (UTC)
CASES = [
    ("a role", HOST, "app", "us-east-1", None, TIME),
    ("the admin role", HOST, "admin", "us-east-1", None, TIME),
    ("a role, session token with + / =", HOST, "app", "us-east-1", SESSION, TIME),
    ("the admin role, session token", HOST, "admin", "us-east-1", SESSION, TIME),
    ("a role that only resembles admin", HOST, "Admin", "us-east-1", None, TIME),
    ("a role that would need escaping", HOST, "a b&c=d/\u00fc", "us-east-1", None, TIME),
    ("PrivateLink", PRIVATE, "app", "eu-west-1", None, TIME),
    ("PrivateLink, the admin role", PRIVATE, "admin", "eu-west-1", SESSION, TIME),
    ("upper-case host", HOST.upper(), "app", "us-east-1", None, TIME),
    ("region of the request, not of the host", HOST, "app", "ap-northeast-1", None, TIME),
    ("midnight of the new year", HOST, "app", "us-east-1", None, "2027-01-01T00:00:00"),
    ("last second of a leap day", HOST, "admin", "us-east-1", SESSION, "2028-02-29T23:59:59"),
]


def token(host, role, region, session_token, time):
    session = botocore.session.Session()
    client = session.create_client(
        "dsql",
        region_name=region,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=session_token,
    )
    # A token is for an action, and the role decides which one is needed.
    if role == "admin":
        generate = client.generate_db_connect_admin_auth_token
    else:
        generate = client.generate_db_connect_auth_token
    stopped = datetime.datetime.fromisoformat(time)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=stopped):
        return generate(host, region)


def main():
    tokens = []
    for name, host, role, region, session_token, time in CASES:
        tokens.append(
            {
                "name": name,
                "host": host,
                "user": role,
                "region": region,
                "session_token": session_token,
                "time": time + "Z",
                "unix_time": int(
                    datetime.datetime.fromisoformat(time + "+00:00").timestamp()
                ),
                "token": token(host, role, region, session_token, time),
            }
        )
    vectors = {
        "made_with": f"botocore {botocore.__version__}",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "tokens": tokens,
    }
    path = pathlib.Path(__file__).resolve().parent / "dsql-tokens.json"
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n", encoding="ascii")
    print(f"{len(tokens)} tokens written to {path.name}")


if __name__ == "__main__":
    main()
