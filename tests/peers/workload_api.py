"""An app with the SPIFFE library of Python, for as long as its standard input is open.

workload_api.py SOCKET EVENTS

Writes a line of JSON to EVENTS for each certificate it is given, and one for each error it would stop at. At the end
it fetches a JWT-SVID for `payments`, has it validated, and says what it holds.
"""

import json
import sys
import time
from pathlib import Path

from spiffe import JwtSource, WorkloadApiClient, X509Source

socket, events = sys.argv[1], open(sys.argv[2], "a", buffering=1)


def tell(**event):
    events.write(json.dumps(event) + "\n")


# The library wants the socket to be there; whoever starts before the agent waits for that much.
while not Path(socket).exists():
    time.sleep(0.05)
address = "unix://" + socket

x509 = X509Source(socket_path=address, timeout_in_seconds=60)


def on_update():
    try:
        svid = x509.get_x509_context().default_svid
        tell(serial=str(svid.cert_chain[0].serial_number), id=str(svid.spiffe_id))
    except Exception as why:
        tell(error=repr(why))


x509.subscribe_for_updates(on_update)
on_update()
jwt = JwtSource(socket_path=address, timeout_in_seconds=60)

sys.stdin.read()

token = jwt.fetch_svid({"payments"})
with WorkloadApiClient(address) as client:
    client.validate_jwt_svid(token.token, "payments")
    try:
        client.validate_jwt_svid(token.token, "orders")
        other = None
    except Exception as why:
        other = str(why)
print(
    json.dumps(
        {
            "id": str(token.spiffe_id),
            "audience": sorted(token.audience),
            "other_audience": other,
            "closed": [x509.is_closed(), jwt.is_closed()],
            "domains": sorted(str(it.trust_domain) for it in x509.get_x509_context().x509_bundle_set.bundles),
        }
    )
)
