"""Logs in with botocore, and tells which identity botocore finds.

device PROFILE, code PROFILE  log in, print the user code or the address to open, write the cache
token PROFILE                 print the access token of the cache, refreshed if botocore refreshes it
whoami PROFILE [MFA_CODE]     print the ARN behind a profile
detached COMMAND...           run a command that has no terminal, as a background job has none

The files and services are those of the environment. A refusal is printed as its exception's name.
"""

import base64
import hashlib
import http.server
import os
import secrets
import sys
import time
import urllib.parse
from datetime import datetime, timedelta, timezone

import botocore.exceptions
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import JSONFileCache
from botocore.tokens import SSOTokenProvider, _sso_json_dumps
from botocore.utils import SSOTokenLoader

CACHE = os.path.expanduser("~/.aws/sso/cache")
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class Login:
    """The session of a profile, and a client of the OIDC service."""

    def __init__(self, profile):
        self.session = botocore.session.Session(profile=profile)
        config = self.session.full_config
        self.name = config["profiles"][profile]["sso_session"]
        self.sso = config["sso_sessions"][self.name]
        self.scopes = [
            scope.strip()
            for scope in self.sso.get("sso_registration_scopes", "").split(",")
        ]
        self.oidc = self.session.create_client(
            "sso-oidc",
            region_name=self.sso["sso_region"],
            config=Config(signature_version=UNSIGNED),
        )

    def register(self, **more):
        client = self.oidc.register_client(
            clientName=f"judge-{self.name}",
            clientType="public",
            scopes=self.scopes,
            **more,
        )
        self.registration_ends = client["clientSecretExpiresAt"]
        self.client = {key: client[key] for key in ("clientId", "clientSecret")}

    def save(self, answer):
        now = datetime.now(timezone.utc)
        ends = datetime.fromtimestamp(self.registration_ends, timezone.utc)
        token = {
            "startUrl": self.sso["sso_start_url"],
            "region": self.sso["sso_region"],
            "accessToken": answer["accessToken"],
            "expiresAt": now + timedelta(seconds=answer["expiresIn"]),
            **self.client,
            "registrationExpiresAt": ends,
        }
        if "refreshToken" in answer:
            token["refreshToken"] = answer["refreshToken"]
        cache = JSONFileCache(CACHE, dumps_func=_sso_json_dumps)
        loader = SSOTokenLoader(cache=cache)
        loader.save_token(token["startUrl"], token, session_name=self.name)


def device(profile):
    login = Login(profile)
    login.register()
    started = login.oidc.start_device_authorization(
        **login.client, startUrl=login.sso["sso_start_url"]
    )
    print(started["userCode"], started["verificationUriComplete"], flush=True)
    while True:
        try:
            answer = login.oidc.create_token(
                **login.client, grantType=DEVICE, deviceCode=started["deviceCode"]
            )
        except login.oidc.exceptions.AuthorizationPendingException:
            time.sleep(0.05)
        else:
            return login.save(answer)


class Callback(http.server.BaseHTTPRequestHandler):
    """Takes one redirect."""

    def do_GET(self):
        query = urllib.parse.urlsplit(self.path).query
        self.server.answer = dict(urllib.parse.parse_qsl(query))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Done")

    def log_message(self, *_):
        pass


def code(profile):
    login = Login(profile)
    login.register(
        grantTypes=["authorization_code", "refresh_token"],
        redirectUris=["http://127.0.0.1/oauth/callback"],
        issuerUrl=login.sso["sso_start_url"],
    )
    server = http.server.HTTPServer(("127.0.0.1", 0), Callback)
    redirect = f"http://127.0.0.1:{server.server_port}/oauth/callback"
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    state = secrets.token_urlsafe(16)
    parameters = {
        "response_type": "code",
        "client_id": login.client["clientId"],
        "redirect_uri": redirect,
        "state": state,
        "code_challenge_method": "S256",
        "scopes": " ".join(login.scopes),
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
    }
    query = urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote)
    print(f"{login.oidc.meta.endpoint_url}/authorize?{query}", flush=True)
    server.handle_request()
    if server.answer.get("state") != state:
        sys.exit("wrong state")
    if "error" in server.answer:
        sys.exit(server.answer["error"])
    answer = login.oidc.create_token(
        **login.client,
        grantType="authorization_code",
        code=server.answer["code"],
        codeVerifier=verifier,
        redirectUri=redirect,
    )
    login.save(answer)


def token(profile):
    session = botocore.session.Session(profile=profile)
    provider = SSOTokenProvider(session, profile_name=profile)
    print(provider.load_token().get_frozen_token().token)


def whoami(profile, mfa_code=None):
    session = botocore.session.Session(profile=profile)
    chain = session.get_component("credential_provider")
    chain.get_provider("assume-role")._prompter = lambda _prompt: mfa_code
    print(session.create_client("sts").get_caller_identity()["Arn"])


def detached(*command):
    os.setsid()
    os.execvp(command[0], command)


def main(name, *arguments):
    commands = {
        "device": device,
        "code": code,
        "token": token,
        "whoami": whoami,
        "detached": detached,
    }
    try:
        commands[name](*arguments)
    except (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
    ) as error:
        sys.exit(f"{type(error).__name__}: {error}")


main(*sys.argv[1:])
