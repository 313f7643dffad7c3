"""WebSockets as Python programs speak them.

websocket.py serve                 an echo on a free loopback port, which is said in JSON
websocket.py call ADDRESS URL      opens URL over a connection to ADDRESS (IP:PORT), has texts and bytes of many sizes
                                   echoed, closes, and says in JSON what came of it
"""

import json
import socket
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

TIMEOUT = 30
SIZES = [0, 1, 125, 126, 65_535, 65_536, 300_000]


def echo(connection):
    for message in connection:
        connection.send(message)


def call(address, url):
    host, port = address.rsplit(":", 1)
    stream = socket.create_connection((host, int(port)), timeout=TIMEOUT)
    try:
        with connect(url, sock=stream, open_timeout=TIMEOUT, close_timeout=TIMEOUT) as connection:
            echoed = 0
            for size in SIZES:
                for message in ("x" * size, b"\x00" * size):
                    connection.send(message)
                    assert connection.recv(timeout=TIMEOUT) == message
                    echoed += 1
            # A ping goes through as it is, and so does its answer.
            assert connection.ping().wait(TIMEOUT)
        return {"echoed": echoed, "closed": connection.close_code}
    except InvalidStatus as refused:
        headers = refused.response.headers
        return {"status": refused.response.status_code, "reason": headers.get("x-warifu-reason")}


if sys.argv[1] == "serve":
    with serve(echo, "127.0.0.1", 0, compression=None) as server:
        print(json.dumps({"port": server.socket.getsockname()[1]}), flush=True)
        server.serve_forever()
else:
    print(json.dumps(call(*sys.argv[2:])))
