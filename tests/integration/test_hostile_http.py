"""Hostile HTTP against the listeners of a running fleet: the config endpoint, which strangers
reach, and the metrics listeners, which they should not. What is wrong is refused and counted;
clients with a good token get their config all the while."""

import contextlib
import http.client
import os
import socket
import ssl
import time

import pytest
import yaml
from fleetlab import FleetLab
from harness import SLOW, Lab, http_get
from servers import wait_until

HEAD = b"Host: x\r\n"
WRONG = {
    "huge field": b"GET /v1/config HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
    "many fields": b"GET /v1/config HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "endless target": b"GET /" + b"a/" * 20000 + b" HTTP/1.1\r\n\r\n",
    "dots": b"GET /v1/../../etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n",
    "encoded dots": b"GET /v1/%2e%2e/config HTTP/1.1\r\n" + HEAD + b"\r\n",
    "encoded path": b"GET /%76%31/config HTTP/1.1\r\n" + HEAD + b"\r\n",
    "zero byte": b"GET /v1/config\0.txt HTTP/1.1\r\n" + HEAD + b"\r\n",
    "encoded zero": b"GET /v1/config%00 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "bad escape": b"GET /v1/%zz%1 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "slashes": b"GET //v1//config HTTP/1.1\r\n" + HEAD + b"\r\n",
    "absolute": b"GET http://127.0.0.1/v1/config HTTP/1.1\r\n" + HEAD + b"\r\n",
    "folded": b"GET /v1/config HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "space before colon": b"GET /v1/config HTTP/1.1\r\nHost : x\r\n\r\n",
    "two lengths": b"GET /v1/config HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx",
    "chunked and length": b"POST /v1/config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
                          b"Content-Length: 4\r\n\r\n0\r\n\r\nGET /v1/config HTTP/1.1\r\n\r\n",
    "chunk size": b"POST /v1/config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                  b"ffffffffffffffff\r\nx",
    "bare newlines": b"GET /v1/config HTTP/1.1\nHost: x\n\n",
    "version": b"GET /v1/config HTTP/7.0\r\n\r\n",
    "method": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "connect": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    "nothing": b"",
    "garbage": bytes(range(128, 256)) * 40 + b"\r\n\r\n",
}


def answer_to(port, data, half_close=True, wait_s=5):
    with socket.create_connection(("127.0.0.1", port), 5 * SLOW) as s:
        s.settimeout(wait_s * SLOW)
        got = b""
        with contextlib.suppress(OSError):
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
            while part := s.recv(65536):
                got += part
        return got


@pytest.fixture(name="fleet", scope="module")
def _fleet(servers, dns):
    lab = Lab(servers, dns)
    fleet = FleetLab(lab, workers=("a",)).start()
    fleet.good = fleet.token("alice")
    try:
        yield fleet
    finally:
        lab.close()


def config(fleet, token=None, path="/v1/config", **headers):
    c = http.client.HTTPConnection("127.0.0.1", fleet.controller.endpoint, timeout=10 * SLOW)
    try:
        c.request("GET", path, headers={
            **({"Authorization": f"Bearer {token}"} if token else {}), **headers})
        r = c.getresponse()
        return r.status, r.read(), r.getheaders()
    finally:
        c.close()


def is_served(fleet, or_told_to_wait=False):
    """`or_told_to_wait`: a token that asks so often gets 429, which nobody else does."""
    status, body, _ = config(fleet, fleet.good)
    return or_told_to_wait and status == 429 or status == 200 and b"sallyport" in body[:200]


def served(fleet):
    return wait_until(lambda: is_served(fleet), 10 * SLOW, "a client is served")


def refused(fleet, cause):
    return next(v for k, v in fleet.controller.metrics().items()
                if k.endswith(f'refused_total{{cause="{cause}"}}') and "endpoint" in k)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_gets_no_config_and_the_next_one_does(fleet, what):
    got = answer_to(fleet.controller.endpoint, WRONG[what])
    assert not got.startswith(b"HTTP/1.1 2") and b"signing" not in got
    assert served(fleet)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_to_a_metrics_listener_shows_nothing(fleet, what):
    for port in (fleet.controller.admin, fleet["a"].admin, fleet["a"].agent_admin):
        got = answer_to(port, WRONG[what].replace(b"/v1/config", b"/secret"))
        assert not got.startswith(b"HTTP/1.1 2"), got[:100]
        assert http_get(port, "/metrics")[0] == 200


def test_a_token_counts_in_its_own_place_only(fleet):
    t = fleet.good
    none = config(fleet)
    for path, headers in [
            (f"/v1/config?token={t}", {}), (f"/v1/config/{t}", {}),
            ("/v1/config", {"Cookie": f"token={t}"}), ("/v1/config", {"X-Token": t}),
            ("/v1/config", {"Authorization": t}),
            ("/v1/config", {"Authorization": f"Basic {t}"}),
            ("/v1/config", {"Authorization": f"Bearer {t}x"}),
            ("/v1/config", {"Authorization": f"Bearer {t[:-1]}"}),
            ("/v1/config", {"Authorization": f"Bearer {t} {t}"})]:
        got = config(fleet, path=path, **headers)
        assert got[0] == none[0] and got[1] == none[1], (path, headers, got)
    twice = (f"GET /v1/config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {t}\r\n"
             f"Authorization: Bearer {t}\r\n\r\n").encode()
    assert not answer_to(fleet.controller.endpoint, twice).startswith(b"HTTP/1.1 2")
    assert t not in fleet.controller.log
    assert served(fleet)


def test_requests_in_one_write_are_answered_in_turn(fleet):
    ask = (f"GET /v1/config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fleet.good}\r\n"
           "\r\n").encode()
    got = answer_to(fleet.controller.endpoint, ask * 5 + b"GET /nothing HTTP/1.1\r\n\r\n")
    assert 1 <= got.count(b"HTTP/1.1 200") <= 5
    assert got.startswith(b"HTTP/1.1 200")
    assert served(fleet)


def test_slow_requests_and_readers_hold_nobody_up(fleet):
    before, port = refused(fleet, "slow-request"), fleet.controller.endpoint
    slow = []
    for i in range(200):
        s = socket.create_connection(("127.0.0.1", port), 5 * SLOW)
        s.sendall(b"GET /v1/config HTTP/1.1\r\nX: " + b"a" * (i % 7))
        slow.append(s)
    until = time.monotonic() + 60 * SLOW
    while refused(fleet, "slow-request") < before + 200:  # a byte now and then buys no time
        assert time.monotonic() < until and is_served(fleet, or_told_to_wait=True)
        for s in slow:
            with contextlib.suppress(OSError):
                s.send(b"a")
    for s in slow:
        s.close()
    assert served(fleet)


def test_thousands_of_idle_connections_leave_room(fleet):
    before = fleet.controller.rss_kb()
    idle = []
    for i in range(3000):
        s = socket.socket()
        s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            s.connect(("127.0.0.1", fleet.controller.endpoint))
        idle.append(s)
        if i % 500 == 499:
            assert is_served(fleet, or_told_to_wait=True)
    assert fleet.controller.rss_kb() - before < 60_000 * SLOW
    for s in idle:
        s.close()
    assert served(fleet)


@pytest.mark.parametrize("where", ["controller", "agent", "exit"])
def test_idle_connections_to_a_metrics_listener_leave_room(fleet, where):
    port = {"controller": fleet.controller.admin, "agent": fleet["a"].agent_admin,
            "exit": fleet["a"].admin}[where]
    idle = [socket.create_connection(("127.0.0.1", port), 5 * SLOW) for _ in range(300)]
    assert http_get(port, "/metrics")[0] == 200
    for s in idle:
        s.close()


def test_what_is_no_tls_is_counted_and_tls_goes_on(lab):
    lab.certificate(lab.dir)
    fleet = FleetLab(lab, workers=("a",))
    port = fleet.controller.endpoint
    fleet.controller.stop()
    fleet.controller.config["endpoint"] = {
        "listen": f"127.0.0.1:{port}", "certificate": str(lab.dir / "cert.pem"),
        "key": str(lab.dir / "key.pem")}
    fleet.controller.config_path.write_text(yaml.safe_dump(fleet.controller.config))
    fleet.controller.start()
    for i in range(40):
        answer_to(port, [b"GET / HTTP/1.1\r\n\r\n", os.urandom(300), b"\x16\x03\x01\xff\xff",
                         WRONG["tls"]][i % 4])
    wait_until(lambda: refused(fleet, "tls") >= 20, 20 * SLOW, "all counted")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 5 * SLOW) as raw, \
            context.wrap_socket(raw, server_hostname="x") as s:
        s.sendall(b"GET /v1/config HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 ")
