"""Asks an STS for credentials in every way, and prints the form of each answer.

usage: shapes.py ROLE_ARN, with an endpoint and the keys of a user in the environment
"""

import json
import sys

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config


def shape(value):
    """Names and types of an answer, without its texts and numbers."""
    if isinstance(value, dict):
        return {
            name: shape(inner)
            for name, inner in sorted(value.items())
            if name != "ResponseMetadata"
        }
    return type(value).__name__


def main(role):
    session = botocore.session.Session()
    signed = session.create_client("sts")
    unsigned = session.create_client("sts", config=Config(signature_version=UNSIGNED))
    named = {"RoleArn": role, "RoleSessionName": "judge"}
    answers = {
        "GetCallerIdentity": signed.get_caller_identity(),
        "AssumeRole": signed.assume_role(**named, DurationSeconds=900),
        "GetSessionToken": signed.get_session_token(DurationSeconds=900),
        "AssumeRoleWithWebIdentity": unsigned.assume_role_with_web_identity(
            **named, WebIdentityToken="a.b.c"
        ),
    }
    for name, answer in answers.items():
        print(name, json.dumps(shape(answer)))


main(sys.argv[1])
