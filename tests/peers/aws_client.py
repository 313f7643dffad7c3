"""boto3 as an app uses it, its default credential chain untouched: one question a line, as JSON, one answer a line.

{"env": {...}, "kept": null | NAME}

Calls sts:GetCallerIdentity and says the ARN. kept: with the client of this name, which is made once and lives on; else
with one of its own.
"""

import json
import os
import sys

import boto3

CLIENTS = {}


def client(name):
    if name not in CLIENTS:
        made = boto3.Session().client("sts")
        if name is None:
            return made
        CLIENTS[name] = made
    return CLIENTS[name]


def answer(question):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(question["env"])
    return {"arn": client(question["kept"]).get_caller_identity()["Arn"]}


for line in sys.stdin:
    try:
        said = answer(json.loads(line))
    except Exception as why:  # whatever it is, it is what the test asks about
        said = {"error": f"{type(why).__name__}: {why}"}
    print(json.dumps(said), flush=True)
