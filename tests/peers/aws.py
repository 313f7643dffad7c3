"""botocore, driven by one JSON object a line: {"do": ..., ...} in, {"ok": ...} or {"error": {...}} out.

call: an API call with botocore's own client.
sign: what botocore's SigV4 signer makes of each of some requests, the headers given and no others.
transfer: boto3's own up- and download of so many bytes to S3, in parts where it thinks so; whether they came back.
"""

import base64
import datetime
import io
import json
import sys
import zipfile
from unittest import mock

import boto3
import botocore.auth
import botocore.session
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

SESSION = botocore.session.Session()
# One attempt, and a bound on it: a peer that doesn't answer is a failure to show, not to wait for.
CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)


def call(request):
    client = SESSION.create_client(
        request["service"],
        region_name=request["region"],
        endpoint_url=request["endpoint"],
        aws_access_key_id=request["access_key_id"],
        aws_secret_access_key=request["secret_access_key"],
        aws_session_token=request.get("session_token"),
        config=CONFIG,
    )
    answer = getattr(client, request["operation"])(**unpacked(request["parameters"]))
    answer.pop("ResponseMetadata", None)
    return answer


def unpacked(value):
    """JSON has no bytes: {"$zip": {NAME: TEXT}} stands for an archive."""
    if isinstance(value, dict) and "$zip" in value:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            for name, text in value["$zip"].items():
                files.writestr(name, text)
        return archive.getvalue()
    if isinstance(value, dict):
        return {name: unpacked(member) for name, member in value.items()}
    return value


def transfer(request):
    client = boto3.session.Session(botocore_session=SESSION).client(
        "s3",
        region_name=request["region"],
        endpoint_url=request["endpoint"],
        aws_access_key_id=request["access_key_id"],
        aws_secret_access_key=request["secret_access_key"],
    )
    # No two parts alike.
    sent = b"".join(n.to_bytes(8, "big") for n in range(request["size"] // 8))
    there = {"Bucket": request["bucket"], "Key": request["key"]}
    client.upload_fileobj(io.BytesIO(sent), **there)
    received = io.BytesIO()
    client.download_fileobj(Fileobj=received, **there)
    return {"same": received.getvalue() == sent}


def sign(request):
    return [signed(one) for one in request["requests"]]


UNSIGNED = Config(s3={"payload_signing_enabled": False})


def signed(request):
    credentials = Credentials(
        request["access_key_id"], request["secret_access_key"], request.get("session_token")
    )
    auth, s3 = botocore.auth, request["service"] == "s3"
    scope = (credentials, request["service"], request["region"])
    expires = request.get("expires")
    if expires is not None:
        signer = (auth.S3SigV4QueryAuth if s3 else auth.SigV4QueryAuth)(*scope, expires)
    else:
        signer = (auth.S3SigV4Auth if s3 else auth.SigV4Auth)(*scope)
    aws_request = AWSRequest(
        method=request["method"],
        url=request["url"],
        data=base64.b64decode(request["body"]),
    )
    for name, value in request["headers"]:
        aws_request.headers[name] = value
    # As botocore itself has its signer leave out a body.
    match request["payload"]:
        case "unsigned" if s3:
            aws_request.context["client_config"] = UNSIGNED
        case "unsigned":
            aws_request.context["payload_signing_enabled"] = False
        case "trailer":
            aws_request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    now = datetime.datetime.strptime(request["date"], "%Y%m%dT%H%M%SZ")
    with mock.patch.object(auth, "get_current_datetime", lambda: now):
        signer.add_auth(aws_request)
    if expires is not None:
        return aws_request.url.rpartition("&X-Amz-Signature=")[2]
    return aws_request.headers["Authorization"]


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if hasattr(value, "read"):
        return value.read().decode("utf-8", "replace")
    raise TypeError(f"cannot be said in JSON: {type(value)}")


HANDLERS = {"call": call, "sign": sign, "transfer": transfer}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": HANDLERS[request["do"]](request)}
    except ClientError as error:
        answer = {"error": {"code": error.response["Error"].get("Code", ""), "message": str(error)}}
    except (BotoCoreError, KeyError, TypeError, ValueError, AttributeError) as error:
        answer = {"error": {"code": type(error).__name__, "message": str(error)}}
    print(json.dumps(answer, default=plain), flush=True)
