"""Verifies a token as an OIDC client does that knows its issuer and nothing else, with PyJWT.

oidc.py ISSUER AUDIENCE TOKEN_FILE OTHER_FILE: the keys are where the issuer's discovery document says. Of the
other token, which is of another issuer, says why it was refused.
"""

import json
import pathlib
import sys
import urllib.request

import jwt

issuer, audience, token_file, other_file = sys.argv[1:]
token = pathlib.Path(token_file).read_text()
other = pathlib.Path(other_file).read_text()


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return answer.headers, json.load(answer)


headers, discovery = fetch(issuer + "/.well-known/openid-configuration")
assert discovery["issuer"] == issuer, discovery
_, keys = fetch(discovery["jwks_uri"])
keys = jwt.PyJWKSet.from_dict(keys)


def verify(token):
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(
        token,
        key,
        algorithms=discovery["id_token_signing_alg_values_supported"],
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "iat", "sub", "jti"]},
    )


def refused(token):
    try:
        verify(token)
    except (KeyError, jwt.InvalidTokenError) as error:
        return type(error).__name__
    return None


print(
    json.dumps(
        {
            "header": jwt.get_unverified_header(token),
            "claims": verify(token),
            "other": refused(other),
            "algorithms": discovery["id_token_signing_alg_values_supported"],
            "cache_control": headers["cache-control"],
        }
    )
)
