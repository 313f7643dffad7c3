"""Calls through an agent's outbound listener as ordinary programs do. Says the answers in JSON.

plain_client.py HOW ADDRESS URL, where HOW is
  host     http.client to ADDRESS (IP:PORT), the service named by `Host`
  proxy    urllib with ADDRESS as its `http_proxy`: the target in absolute form
  tunnel   http.client with ADDRESS as a proxy for CONNECT
  unix     http.client over the unix socket ADDRESS
"""

import http.client
import json
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT = 30


def told(answer):
    return {
        "status": answer.status,
        "reason": answer.headers.get("x-warifu-reason"),
        "body": answer.read().decode(),
    }


def ask(connection, url, **headers):
    parts = urllib.parse.urlsplit(url)
    connection.request("GET", parts.path, headers={"Host": parts.netloc, **headers})
    return told(connection.getresponse())


def by_host(address, url):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
    # Two requests, one connection: keep-alive works.
    return [ask(connection, url), ask(connection, url)]


def by_proxy(address, url):
    proxies = urllib.request.ProxyHandler({"http": f"http://{address}"})
    try:
        return [told(urllib.request.build_opener(proxies).open(url, timeout=TIMEOUT))]
    except urllib.error.HTTPError as answer:
        return [told(answer)]


def by_tunnel(address, url):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
    connection.set_tunnel(urllib.parse.urlsplit(url).hostname, 443)
    try:
        return [ask(connection, url)]
    except OSError as error:
        return [{"refused": str(error)}]


def by_unix(address, url):
    connection = http.client.HTTPConnection("ignored", timeout=TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT)
    connection.sock.connect(address)
    return [ask(connection, url)]


HOW = {
    "host": by_host,
    "proxy": by_proxy,
    "tunnel": by_tunnel,
    "unix": by_unix,
}
how, address, url = sys.argv[1:]
print(json.dumps(HOW[how](address, url)))
