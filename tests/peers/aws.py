"""botocore, driven by one JSON object a line: {"do": ..., ...} in, {"ok": ...} or {"error": {...}} out.

call: an API call with botocore's own client.
sign: what botocore's SigV4 signer makes of a request, the headers given and no others.
"""

import base64
import datetime
import json
import sys
from unittest import mock

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
    answer = getattr(client, request["operation"])(**request["parameters"])
    answer.pop("ResponseMetadata", None)
    return answer


def sign(request):
    credentials = Credentials(
        request["access_key_id"], request["secret_access_key"], request.get("session_token")
    )
    signer = botocore.auth.S3SigV4Auth if request["service"] == "s3" else botocore.auth.SigV4Auth
    aws_request = AWSRequest(
        method=request["method"],
        url=request["url"],
        data=base64.b64decode(request["body"]),
    )
    for name, value in request["headers"]:
        aws_request.headers[name] = value
    now = datetime.datetime.strptime(request["date"], "%Y%m%dT%H%M%SZ")
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: now):
        signer(credentials, request["service"], request["region"]).add_auth(aws_request)
    return {"authorization": aws_request.headers["Authorization"]}


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if hasattr(value, "read"):
        return value.read().decode("utf-8", "replace")
    raise TypeError(f"cannot be said in JSON: {type(value)}")


HANDLERS = {"call": call, "sign": sign}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": HANDLERS[request["do"]](request)}
    except ClientError as error:
        answer = {"error": {"code": error.response["Error"].get("Code", ""), "message": str(error)}}
    except (BotoCoreError, KeyError, TypeError, ValueError, AttributeError) as error:
        answer = {"error": {"code": type(error).__name__, "message": str(error)}}
    print(json.dumps(answer, default=plain), flush=True)
