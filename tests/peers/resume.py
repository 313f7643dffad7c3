"""Connects twice over mTLS, the second time offering the first session. Says in JSON what came of it.

resume.py ADDRESS DIR: DIR has svid.pem, key.pem and bundle.pem.
"""

import json
import socket
import ssl
import sys

address, directory = sys.argv[1:]
host, port = address.rsplit(":", 1)
context = ssl.create_default_context(cafile=f"{directory}/bundle.pem")
# A SPIFFE ID is no host name; the chain and its purpose are verified all the same.
context.check_hostname = False
context.load_cert_chain(f"{directory}/svid.pem", f"{directory}/key.pem")
answers, session = [], None
for _ in range(2):
    tcp = socket.create_connection((host, int(port)), 30)
    with context.wrap_socket(tcp, session=session) as tls:
        tls.sendall(b"GET /charges HTTP/1.1\r\nhost: payments\r\nconnection: close\r\n\r\n")
        # A ticket comes after the handshake, with or before the answer: reading to the end takes it.
        answer = b""
        while chunk := tls.recv(4096):
            answer += chunk
        session = tls.session
        answers.append(
            {
                "status": int(answer.split()[1]),
                "version": tls.version(),
                "resumed": tls.session_reused,
                "ticket": bool(session and session.has_ticket),
            }
        )
print(json.dumps(answers))
