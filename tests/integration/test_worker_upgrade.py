"""The worker is upgraded, with success and without: streams and flows go on, byte for byte."""

import hashlib
import socket

import pytest
from harness import SLOW, alone, curl_sha256, recv_exact, socks_connect
from servers import TcpServer, wait_until
from test_worker_crash import Run, digest, upload

pytestmark = pytest.mark.skipif(alone(), reason="the thread sanitizer wants no keeper")


def test_bulk_both_ways_outlives_upgrades(lab, origin, servers):
    pair = lab.pair()
    sink = TcpServer(servers, digest)
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    size = 200_000_000 // SLOW
    want = curl_sha256(pair.socks, f"{url}{size}")[1]
    down = Run(curl_sha256, pair.socks, f"{url}{size}")
    up = Run(upload, pair.socks, sink.port, 64 << 20, 7)
    upgrades = 0
    while (down.alive() or up.alive()) and upgrades < 30:
        status, text = pair.worker.ask("upgrade")
        assert status == 0, text
        assert text.startswith("upgraded: version ")
        upgrades += 1
    assert down.wait() == (size, want)
    got, sent = up.wait()
    assert got == sent
    assert upgrades > 2
    assert pair.worker.metric('sallyport_worker_upgrades_total{result="ok"}') == upgrades
