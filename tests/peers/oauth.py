"""Asks a token endpoint for tokens with requests-oauthlib, which knows OAuth 2.0 and nothing of agents.

oauth.py FILE: a JSON list of requests, each {url, client_id, client_secret, how, audience, scope};
`how` is basic or post, and what is null is left out. Says a list of {token} or {error, description, status},
as the library understood it, or {unreachable}. One that is {jwks_url, issuer, audience} has PyJWT verify the last
token, or its own `token`.
oauth.py -: the same, a request a line and an answer a line, for as long as there are lines.
"""

import json
import os
import pathlib
import sys

# The endpoint is on this machine: http, on loopback.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt
import oauthlib.oauth2
import requests.auth
import requests_oauthlib

TIMEOUT = 30


def ask(request):
    status = []

    def note(answer):
        status.append((answer.status_code, dict(answer.headers)))
        return answer

    client = oauthlib.oauth2.BackendApplicationClient(client_id=request["client_id"], scope=request["scope"])
    session = requests_oauthlib.OAuth2Session(client=client)
    session.trust_env = False
    session.register_compliance_hook("access_token_response", note)
    more = {name: request[name] for name in ("audience", "resource") if request.get(name)}
    if request["how"] == "basic":
        more["auth"] = requests.auth.HTTPBasicAuth(request["client_id"], request["client_secret"])
    else:
        more["include_client_id"] = True
        more["client_secret"] = request["client_secret"]
    try:
        token = session.fetch_token(request["url"], timeout=TIMEOUT, **more)
    except oauthlib.oauth2.OAuth2Error as error:
        return {
            "error": error.error,
            "description": error.description,
            "status": status[-1][0],
            "www_authenticate": status[-1][1].get("www-authenticate"),
            "retry_after": status[-1][1].get("retry-after"),
        }
    except requests.exceptions.ConnectionError as error:
        return {"unreachable": str(error)}
    return {"token": token, "cache_control": status[-1][1].get("cache-control"), "pragma": status[-1][1].get("pragma")}


def verify(request, token):
    answer = requests.get(request["jwks_url"], timeout=TIMEOUT, proxies={"http": None, "https": None})
    document = answer.json()
    keys = jwt.PyJWKSet.from_dict(document)
    said = {"header": jwt.get_unverified_header(token)}
    try:
        said["claims"] = jwt.decode(
            token,
            keys[said["header"]["kid"]],
            algorithms=["ES256", "RS256"],
            audience=request["audience"],
            issuer=request["issuer"],
            options={"require": ["exp", "iat", "sub", "jti", "client_id"]},
        )
    except (KeyError, jwt.InvalidTokenError) as error:
        said["refused"] = type(error).__name__
    return said


said = []


def answer(request):
    if "jwks_url" in request:
        had = (it["token"]["access_token"] for it in reversed(said) if "token" in it)
        said.append(verify(request, request.get("token") or next(had)))
    else:
        said.append(ask(request))
    return said[-1]


if sys.argv[1] == "-":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
else:
    print(json.dumps([answer(request) for request in json.loads(pathlib.Path(sys.argv[1]).read_text())]))
