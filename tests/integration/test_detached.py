"""Sessions whose client is away: what applications see when it was too long, or when the
worker ran short of memory meanwhile. The same in virtual time: tests/unit/test_detached.c."""

import re
import time

from harness import SLOW, curl, http_get, parse_metrics, recv_exact, socks_connect
from servers import Path, TcpServer, tcp_echo, wait_until


def broken(client):
    head = 'sallyport_client_connections_broken_total{reason="'
    found = parse_metrics(http_get(client.admin, "/metrics")[1])
    return {k[len(head):-2]: v for k, v in found.items() if k.startswith(head)}


class Away:
    """A client whose path can be taken away."""

    def __init__(self, lab, servers, worker, name):
        self.path = Path(servers, ("127.0.0.1", worker.port))
        self.client = lab.client(name, [worker], paths={worker.name: self.path})
        self.socks, self.streams = self.client.socks, []

    def goes(self):
        self.path.block()
        self.path.cut()

    def comes(self):
        self.path.unblock()
        wait_until(lambda: self.client.exit("worker")["resumes"] > 0, 15 * SLOW, "it resumed")

    def is_reset(self, sock):
        sock.settimeout(15 * SLOW)
        try:
            while sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            return True
        return False


def test_a_client_that_is_away_for_too_long_finds_its_session_and_not_its_streams(lab, servers):
    w = lab.worker(limits={"stale_timeout": "1s"})
    away = Away(lab, servers, w, "client")
    echo = TcpServer(servers, tcp_echo)
    sock = socks_connect(away.socks, "127.0.0.1", echo.port)
    sock.sendall(b"here")
    assert recv_exact(sock, 4) == b"here"
    away.goes()
    wait_until(lambda: w.metric('sallyport_worker_detached_given_up_total{reason="stale"}') == 1,
               10 * SLOW, "its streams are given up")
    assert w.metric('sallyport_worker_sessions{state="detached"}') == 1
    away.comes()
    assert away.is_reset(sock)
    assert broken(away.client) == {"stale": 1}
    assert away.client.exit("worker")["homes_lost"] == 0
    assert w.metric("sallyport_worker_sessions_made_total") == 1
    sock = socks_connect(away.socks, "127.0.0.1", echo.port)  # the session serves
    sock.sendall(b"back")
    assert recv_exact(sock, 4) == b"back"


def test_short_of_memory_a_worker_gives_up_the_stalest_client_that_is_away(lab, servers, origin):
    """One MiB: the others, and whoever is there, lose nothing."""
    w = lab.worker(limits={"memory": "1M", "streams": 128})
    n, each = 5, 4
    away = [Away(lab, servers, w, f"client{i}") for i in range(n)]
    for a in away:
        for _ in range(each):
            s = socks_connect(a.socks, "127.0.0.1", origin.port)
            s.sendall(b"GET /slow/3000000/20 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert recv_exact(s, 1)
            a.streams.append(s)
    there = lab.client("there", [w])
    for a in away:
        a.goes()
        time.sleep(0.01)  # an order
    given_up = 'sallyport_worker_detached_given_up_total{reason="pressure"}'
    assert w.metric(given_up) == 0  # nobody at once
    wait_until(lambda: w.metric(given_up) >= 1, 30 * SLOW, "memory is short")
    assert w.metric("sallyport_worker_detached_bytes") > 0
    assert re.search("memory is short: a detached session gives up its streams", w.log)
    assert curl(there.socks, f"http://127.0.0.1:{origin.port}/bytes/1000000")[0] == 0
    for a in away:
        a.path.unblock()
    for a in away:
        a.comes()
    lost = int(w.metric(given_up))  # nobody is away any more
    assert 1 <= lost < n
    for a in away[:lost]:  # who went first
        assert all(a.is_reset(s) for s in a.streams)
        assert broken(a.client) == {"pressure": each}
    for a in away[lost:]:  # to the last byte
        for s in a.streams:
            s.settimeout(30 * SLOW)
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(1 << 16)
            size = len(got.partition(b"\r\n\r\n")[2])
            while size < 3_000_000 and (part := s.recv(1 << 18)):
                size += len(part)
            assert size == 3_000_000
        assert broken(a.client) == {}
    assert w.metric("sallyport_worker_sessions_made_total") == n + 1
