"""Judges what the authority issued, with libraries that know nothing of it.

judge.py DIR TRUST_DOMAIN AUDIENCE BUNDLE_URL: DIR has svid.pem, key.pem, bundle.pem, token.jwt; the
bundle is fetched from the URL, whose server must prove itself with bundle.pem. Says in JSON what was
read; the first refusal ends it with a traceback.
"""

import base64
import json
import pathlib
import ssl
import sys
import urllib.request

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from spiffe.bundle.x509_bundle.x509_bundle import X509Bundle
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.svid.jwt_svid import JwtSvid
from spiffe.svid.x509_svid import X509Svid

directory, trust_domain, audience, bundle_url = sys.argv[1:]
directory = pathlib.Path(directory)
trust_domain = TrustDomain(trust_domain)
DER = serialization.Encoding.DER


def read(name):
    return (directory / name).read_bytes()


def refused(judgement):
    """Whether a judgement that must not pass does not."""
    try:
        judgement()
    except Exception as error:
        return type(error).__name__
    return None


def fetch(url):
    """The bundle document, from a server that proves itself by its host name, strictly (RFC 5280)."""
    context = ssl.create_default_context(cafile=str(directory / "bundle.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=30) as answer:
        return answer.headers["content-type"], answer.read()


def judge_x509(roots):
    """py-spiffe's reading of the SVID; pyca/cryptography's verification of its chain."""
    svid = X509Svid.parse(read("svid.pem"), read("key.pem"))
    chain = svid.cert_chain
    raw = X509Svid.parse_raw(
        b"".join(certificate.public_bytes(DER) for certificate in chain),
        svid.private_key.private_bytes(
            DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    assert raw.spiffe_id == svid.spiffe_id
    assert svid.private_key.public_key() == svid.leaf.public_key()
    store = verification.Store(list(roots))
    client = verification.PolicyBuilder().store(store).build_client_verifier()
    verified = client.verify(svid.leaf, chain[1:])
    return {
        "x509_id": str(svid.spiffe_id),
        "verified_names": [name.value for name in verified.subjects],
        "chain_length": len(verified.chain),
        "without_intermediate": refused(lambda: client.verify(svid.leaf, [])),
    }


def judge_bundle(content_type, document, roots):
    """The bundle document, entry by entry."""
    keys = document["keys"]
    in_document = {
        x509.load_der_x509_certificate(base64.b64decode(key["x5c"][0]))
        for key in keys
        if key["use"] == "x509-svid"
    }
    assert in_document == roots, "the document's roots are not those of bundle.pem"
    return {
        "content_type": content_type,
        "uses": sorted({key["use"] for key in keys}),
        "x509_entries": [
            {"certificates": len(key["x5c"]), "kid": key.get("kid")}
            for key in keys
            if key["use"] == "x509-svid"
        ],
        "jwt_entries": sum(key["use"] == "jwt-svid" for key in keys),
        "sequence": document["spiffe_sequence"],
        "refresh_hint": document["spiffe_refresh_hint"],
    }


def judge_jwt(document):
    """py-spiffe's and PyJWT's verification of the token."""
    token = read("token.jwt").decode()
    jwt_keys = [key for key in document["keys"] if key["use"] == "jwt-svid"]
    bundle = JwtBundle.parse(trust_domain, json.dumps({"keys": jwt_keys}).encode())
    svid = JwtSvid.parse_and_validate(token, bundle, {audience})

    # PyJWT takes the document as it is: entries without a `kid` are no business of a token's.
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(document)[header["kid"]]
    options = {"require": ["sub", "aud", "exp", "iat"]}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=audience, options=options)
    head, payload, signature = token.split(".")
    forged = ".".join([head, payload, ("B" if signature[0] != "B" else "C") + signature[1:]])
    return {
        "jwt_id": str(svid.spiffe_id),
        "jwt_audience": sorted(svid.audience),
        "jwt_header": header,
        "claims": claims,
        "other_audience": refused(lambda: JwtSvid.parse_and_validate(token, bundle, {"another"})),
        "forged": refused(
            lambda: jwt.decode(forged, key, algorithms=["ES256"], audience=audience)
        ),
    }


roots = X509Bundle.parse(trust_domain, read("bundle.pem")).x509_authorities
content_type, body = fetch(bundle_url)
document = json.loads(body)
print(
    json.dumps(
        judge_x509(roots) | judge_bundle(content_type, document, roots) | judge_jwt(document)
    )
)
