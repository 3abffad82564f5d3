#!/usr/bin/env python3
"""Write rds-tokens.json: RDS login tokens as botocore makes them, with the clock stopped.

    pip install botocore==1.43.11
    python3 protocol-tests/vectors/make-rds-tokens.py

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
HOST = "orders.cluster-abcdefghijkl.eu-central-1.rds.amazonaws.com"
TIME = "2026-11-23T17:05:09"

# name, host, port, user, region, session token, time (UTC)
CASES = [
    ("plain", HOST, 5432, "app", "eu-central-1", None, TIME),
    ("session token with + / =", HOST, 5432, "app", "eu-central-1", SESSION, TIME),
    ("user with +", HOST, 5432, "app+x", "eu-central-1", None, TIME),
    ("user with URL punctuation", HOST, 5432, "a@b/c?d=e&f", "eu-central-1", None, TIME),
    ("user with a space", HOST, 5432, "a b", "eu-central-1", None, TIME),
    ("user in UTF-8", HOST, 5432, "ünï", "eu-central-1", None, TIME),
    ("user outside the BMP", HOST, 5432, "db\U0001f418", "eu-central-1", None, TIME),
    ("user that looks encoded", HOST, 5432, "%41", "eu-central-1", None, TIME),
    ("user of unreserved marks", HOST, 5432, "A-Z_a.z~0", "eu-central-1", None, TIME),
    ("user of reserved marks", HOST, 5432, "!*'();:@&=+$,/?#[]\"<>\\^`{|}", "eu-central-1", SESSION, TIME),
    ("user with control characters", HOST, 5432, "a\tb\nc", "eu-central-1", None, TIME),
    ("user is one space", HOST, 5432, " ", "eu-central-1", None, TIME),
    ("user of 63 bytes", HOST, 5432, "u" * 63, "eu-central-1", None, TIME),
    ("empty user", HOST, 5432, "", "eu-central-1", None, TIME),
    ("port 443", HOST, 443, "app", "eu-central-1", SESSION, TIME),
    ("port 80", HOST, 80, "app", "eu-central-1", None, TIME),
    ("port 3306", HOST, 3306, "app", "eu-central-1", None, TIME),
    ("port 65535", HOST, 65535, "app", "eu-central-1", None, TIME),
    ("China", "orders.abcdefghijkl.rds.cn-north-1.amazonaws.com.cn", 5432, "app", "cn-north-1", SESSION, TIME),
    ("GovCloud", "orders.abcdefghijkl.us-gov-west-1.rds.amazonaws.com", 5432, "app", "us-gov-west-1", None, TIME),
    ("RDS Proxy", "pool.proxy-abcdefghijkl.us-east-1.rds.amazonaws.com", 5432, "app", "us-east-1", None, TIME),
    ("upper-case host", HOST.upper(), 5432, "app", "eu-central-1", None, TIME),
    ("upper-case host on 443", HOST.upper(), 443, "app", "eu-central-1", None, TIME),
    ("region of the request, not of the host", HOST, 5432, "app", "us-east-1", None, TIME),
    ("midnight of the new year", HOST, 5432, "app", "eu-central-1", None, "2027-01-01T00:00:00"),
    ("last second of a leap day", HOST, 5432, "app", "eu-central-1", SESSION, "2028-02-29T23:59:59"),
]


def token(host, port, user, region, session_token, time):
    session = botocore.session.Session()
    client = session.create_client(
        "rds",
        region_name=region,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=session_token,
    )
    stopped = datetime.datetime.fromisoformat(time)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=stopped):
        return client.generate_db_auth_token(host, port, user, region)


def main():
    tokens = []
    for name, host, port, user, region, session_token, time in CASES:
        tokens.append(
            {
                "name": name,
                "host": host,
                "port": port,
                "user": user,
                "region": region,
                "session_token": session_token,
                "time": time + "Z",
                "unix_time": int(
                    datetime.datetime.fromisoformat(time + "+00:00").timestamp()
                ),
                "token": token(host, port, user, region, session_token, time),
            }
        )
    vectors = {
        "made_with": f"botocore {botocore.__version__}",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "tokens": tokens,
    }
    path = pathlib.Path(__file__).resolve().parent / "rds-tokens.json"
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n", encoding="ascii")
    print(f"{len(tokens)} tokens written to {path.name}")


if __name__ == "__main__":
    main()
