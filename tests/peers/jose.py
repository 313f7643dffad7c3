"""Signs and verifies JWTs with PyJWT and with joserfc, which know nothing of us.

jose.py DIR: DIR/ours.json has {"issuer", "audience", "now", "algorithms", "jwks", "tokens"}, a token for each of our
keys. Says in JSON, for each library, which of those it verified ("verified": algorithms), which changed ones it
took ("deceived"), and what it made itself ("jwks", "tokens": one for each algorithm).
"""

import json
import pathlib
import sys
import warnings

import joserfc.jwk
import joserfc.jwt
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

# That EdDSA has another name, too, since RFC 9864.
warnings.simplefilter("ignore")

ours = json.loads((pathlib.Path(sys.argv[1]) / "ours.json").read_text())
ISSUER, AUDIENCE, NOW = ours["issuer"], ours["audience"], ours["now"]
ALGORITHMS = ours["algorithms"]
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def claims(alg):
    return {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": f"signed with {alg}",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 600,
        "jti": alg,
    }


def changed(token):
    """The same token with another subject."""
    header, payload, signature = token.split(".")
    other = {**json.loads(jwt.utils.base64url_decode(payload)), "sub": "somebody else"}
    payload = jwt.utils.base64url_encode(json.dumps(other).encode()).decode()
    return f"{header}.{payload}.{signature}"


def judged(verify):
    """Whom `verify` believes, of those who signed and of those who changed what was signed."""
    said = {"verified": [], "deceived": []}
    for token in ours["tokens"]:
        alg = jwt.get_unverified_header(token)["alg"]
        for text, list_ in ((token, "verified"), (changed(token), "deceived")):
            try:
                verify(text, alg)
                said[list_].append(alg)
            except Exception:
                pass
    return said


def with_pyjwt():
    keys = jwt.PyJWKSet.from_dict(ours["jwks"])

    def verify(token, alg):
        key = keys[jwt.get_unverified_header(token)["kid"]]
        required = ["iss", "aud", "exp", "sub"]
        jwt.decode(
            token, key, algorithms=[alg], audience=AUDIENCE, issuer=ISSUER, options={"require": required}
        )

    made = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
    }
    jwks, tokens = [], []
    for alg in ALGORITHMS:
        key = made.get(alg) or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        jwk = jwt.get_algorithm_by_name(alg).to_jwk(key.public_key(), as_dict=True)
        jwks.append({**jwk, "kid": f"pyjwt-{alg}", "alg": alg, "use": "sig"})
        tokens.append(jwt.encode(claims(alg), key, algorithm=alg, headers={"kid": f"pyjwt-{alg}"}))
    return {**judged(verify), "jwks": {"keys": jwks}, "tokens": tokens}


def with_joserfc():
    keys = joserfc.jwk.KeySet.import_key_set(ours["jwks"])
    registry = joserfc.jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
        sub={"essential": True},
    )

    def verify(token, alg):
        registry.validate(joserfc.jwt.decode(token, keys, algorithms=[alg]).claims)

    jwks, tokens = [], []
    for alg in ALGORITHMS:
        more = {"kid": f"joserfc-{alg}", "alg": alg, "use": "sig"}
        if alg in CURVES:
            key = joserfc.jwk.ECKey.generate_key(CURVES[alg], more)
        elif alg == "EdDSA":
            key = joserfc.jwk.OKPKey.generate_key("Ed25519", more)
        else:
            key = joserfc.jwk.RSAKey.generate_key(2048, more)
        jwks.append(key.as_dict(private=False))
        header = {"alg": alg, "kid": f"joserfc-{alg}", "typ": "JWT"}
        tokens.append(joserfc.jwt.encode(header, claims(alg), key, algorithms=[alg]))
    return {**judged(verify), "jwks": {"keys": jwks}, "tokens": tokens}


print(json.dumps({"pyjwt": with_pyjwt(), "joserfc": with_joserfc()}))
