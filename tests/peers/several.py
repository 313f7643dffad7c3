"""An app with the SPIFFE library of Python that chooses one of its workload's identities, until it is ended.

several.py SOCKET EVENTS ID

The library tells no hints, so it chooses by SPIFFE ID. Writes a line of JSON to EVENTS each time it looks: what it was
told of last (`ids`), what it chose (`id`, `serial`), and whose JWT-SVID it gets for that SPIFFE ID (`named`).
"""

import json
import sys
import time

from spiffe import JwtSource, SpiffeId, X509Source

socket, events, wanted = sys.argv[1], open(sys.argv[2], "a", buffering=1), sys.argv[3]
address = "unix://" + socket
ids = []


def pick(svids):
    global ids
    ids = [str(svid.spiffe_id) for svid in svids]
    return next(svid for svid in svids if str(svid.spiffe_id) == wanted)


x509 = X509Source(socket_path=address, timeout_in_seconds=60, svid_picker=pick)
jwt = JwtSource(socket_path=address, timeout_in_seconds=60)
while True:
    line = {"ids": ids}
    try:
        svid = x509.get_x509_context().default_svid
        line["id"] = str(svid.spiffe_id)
        line["serial"] = str(svid.cert_chain[0].serial_number)
    except Exception as why:
        line["no_x509"] = repr(why)
    try:
        token = jwt.fetch_svid({"ledger"}, subject=SpiffeId(wanted))
        line["named"] = str(token.spiffe_id)
    except Exception as why:
        line["no_named"] = repr(why)
    events.write(json.dumps(line) + "\n")
    time.sleep(0.2)
