"""spiffe and spiffe-tls as a peer of the tests: takes sources from the Workload API, serves mTLS with them, and does
what it is asked over HTTP, as the Go peer does (`tests/peers/go/workload.go`).

workload.py SOCKET ADDRESS_FILE TRUST_DOMAIN: the Workload API's socket (unix:///path), where to write the address it
listens on.
"""

import http.server
import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.parse
import warnings
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from spiffe import JwtSource, SpiffeId, TrustDomain, X509Source
from spiffetls import dial
from spiffetls.context import create_ssl_context
from spiffetls.tlsconfig.authorize import authorize_id, authorize_member_of

# spiffe-tls uses what spiffe would no longer have it use.
warnings.simplefilter("ignore", DeprecationWarning)

endpoint, address_file, trust_domain = sys.argv[1], sys.argv[2], TrustDomain(sys.argv[3])

TIMEOUT = 30


class Peer:
    def __init__(self):
        self.x509 = self.jwt = None
        self.serves = self.ended = ""

    def obtain(self):
        """The library wants the socket to be there; whoever starts before the agent waits for that much."""
        try:
            while not Path(endpoint.removeprefix("unix://")).exists():
                time.sleep(0.05)
            source = X509Source(socket_path=endpoint)
            tokens = JwtSource(socket_path=endpoint)
            self.serve(source)
            self.x509, self.jwt = source, tokens
        except Exception as why:
            traceback.print_exc()
            self.ended = str(why) or repr(why)

    def serve(self, source):
        """Answers everybody of the trust domain with who they are."""

        # Not `listen`: pyOpenSSL 26.2 and later let nobody change a context that was used, as `listen` would when the
        # certificate changes, so it goes on with its first one. A new context for each certificate follows.
        def prepare():
            self.context = create_ssl_context(
                SSL.TLS_SERVER_METHOD, source, authorize_member_of(trust_domain)
            )

        prepare()
        source.subscribe_for_updates(prepare)
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.serves = "127.0.0.1:%d" % listener.getsockname()[1]

        def accept():
            while True:
                stream, _ = listener.accept()
                connection = SSL.Connection(self.context, stream)
                connection.set_accept_state()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def state(self, _):
        state = {"failures": 0, "said": "", "ended": self.ended, "ready": self.jwt is not None}
        if self.jwt is not None:
            svid = self.x509.get_x509_context().default_svid
            state["id"] = str(svid.spiffe_id)
            state["serial"] = "%x" % svid.cert_chain[0].serial_number
            state["serves"] = self.serves
        return state

    def call(self, query):
        url = urllib.parse.urlsplit(query["url"])
        connection = dial(url.netloc, self.had(self.x509), authorize_fn=authorize_id(SpiffeId(query["expect"])))
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n")
            _, _, told = read(connection).partition(b"\r\n\r\n")
            server = connection.get_peer_certificate().to_cryptography()
            return {"server": "%x %s" % (server.serial_number, id_of(server)), "told": json.loads(told)}
        finally:
            connection.close()

    def token(self, query):
        token = self.had(self.jwt).fetch_svid({query["audience"]})
        return {"subject": str(token.spiffe_id), "audience": sorted(token.audience)}

    def bundle(self, query):
        asked = TrustDomain(query["trust_domain"])
        roots = self.had(self.x509).get_bundle_for_trust_domain(asked)
        keys = self.had(self.jwt).get_bundle_for_trust_domain(asked)
        return {"roots": len(roots.x509_authorities), "keys": len(keys.jwt_authorities)}

    @staticmethod
    def had(source):
        if source is None:
            raise LookupError("no sources yet")
        return source


def read(connection):
    """All that comes."""
    data = b""
    while True:
        try:
            data += connection.recv(65536)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return data


def answer(connection):
    try:
        connection.do_handshake()
        connection.recv(65536)
        caller = connection.get_peer_certificate().to_cryptography()
        body = json.dumps({"peer": id_of(caller)}).encode()
        head = "HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        connection.sendall(head.encode() + body)
        connection.shutdown()
    except SSL.Error as why:
        print("no call:", why, file=sys.stderr)
    finally:
        connection.close()


def id_of(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ",".join(names.get_values_for_type(x509.UniformResourceIdentifier))


peer = Peer()


class Control(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        asks = {"/state": peer.state, "/call": peer.call, "/token": peer.token, "/bundle": peer.bundle}
        try:
            status, said = 200, json.dumps(asks[url.path](dict(urllib.parse.parse_qsl(url.query))))
        except Exception as why:
            traceback.print_exc()
            status, said = 503, repr(why)
        self.send_response(status)
        self.send_header("content-length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_):
        pass


threading.Thread(target=peer.obtain, daemon=True).start()
control = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Control)
Path(address_file + ".draft").write_text("127.0.0.1:%d" % control.server_address[1])
os.replace(address_file + ".draft", address_file)
control.serve_forever()
