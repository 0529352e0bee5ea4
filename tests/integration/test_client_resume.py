"""Carriers that die under the client: streams go on, and their bytes are right."""

import hashlib
import socket
import threading
import time

import pytest
from harness import SLOW, SocksUdp, curl_sha256, recv_exact, socks_connect
from servers import Path, TcpServer, UdpServer, body_sha256, tcp_echo, tcp_sum, wait_until


class Bench:
    """A client, a worker, and a path between them that can be hurt."""

    def __init__(self, lab, servers, carrier, **client):
        self.worker = lab.worker(carrier=carrier)
        self.path = Path(servers, ("127.0.0.1", self.worker.port))
        self.client = lab.client(
            "client", [self.worker], paths={"worker": self.path}, **client
        )
        self.socks = self.client.socks

    def exit(self):
        return self.client.exit("worker")


@pytest.fixture(params=["tcp", "tls"])
def bench(request, lab, servers):
    return Bench(lab, servers, request.param)


class Download(threading.Thread):
    """A paced download; notes the longest pause between two pieces."""

    def __init__(self, socks, origin, n, delay_ms=5):
        super().__init__()
        self.args = socks, origin, n, delay_ms
        self.n, self.bytes, self.pause, self.hash = n, 0, 0.0, hashlib.sha256()
        self.error = None
        self.start()

    def run(self):
        socks, origin, n, delay_ms = self.args
        try:
            with socks_connect(socks, "127.0.0.1", origin.port) as s:
                s.settimeout(20 * SLOW)
                s.sendall(f"GET /slow/{n}/{delay_ms} HTTP/1.1\r\n\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += recv_exact(s, 1)
                last = time.monotonic()
                while self.bytes < n:
                    data = s.recv(1 << 18)
                    if not data:
                        raise EOFError(f"{self.bytes} of {n}")
                    now = time.monotonic()
                    self.pause = max(self.pause, now - last)
                    last = now
                    self.hash.update(data)
                    self.bytes += len(data)
        except Exception as e:
            self.error = e

    def check(self):
        self.join(60 * SLOW)
        assert not self.is_alive() and self.error is None, self.error
        assert self.hash.hexdigest() == body_sha256(self.n)


def test_a_download_outlives_ten_resets_of_its_carrier(bench, origin):
    d = Download(bench.socks, origin, 30_000_000)
    for i in range(10):
        wait_until(lambda: d.bytes > (i + 1) * 2_500_000 or d.error, 30 * SLOW, "progress")
        assert bench.path.cut() >= 1
    d.check()
    x = bench.exit()
    assert x["resumes"] == 10 and x["homes_lost"] == 0
    # By tickets, those of spares included; the pass was shown once.
    assert bench.client.log.count("resumed=ticket") >= 10
    assert bench.client.log.count("resumed=pass") == 1
    assert d.pause < 0.5 * SLOW


def test_an_upload_outlives_resets_of_its_carrier(bench, servers):
    sums = TcpServer(servers, tcp_sum)
    data = bytes(range(256)) * 65536
    with socks_connect(bench.socks, "127.0.0.1", sums.port, 30) as s:
        for i in range(8):
            s.sendall(data[i << 21 : (i + 1) << 21])
            bench.path.cut()
        s.shutdown(socket.SHUT_WR)
        got = s.recv(200).decode().split()
    assert got == [str(len(data)), hashlib.sha256(data).hexdigest()]


def test_a_silent_carrier_is_replaced_within_a_second(bench, origin):
    d = Download(bench.socks, origin, 20_000_000)
    for i in range(2):
        wait_until(lambda: d.bytes > (i + 1) * 4_000_000 or d.error, 30 * SLOW, "progress")
        assert bench.path.freeze() >= 1
    d.check()
    assert bench.exit()["stalls"] >= 2
    assert 0.3 < d.pause < 1.2 * SLOW
    wait_until(
        lambda: (x := bench.exit())["carriers"] == 1 + x["spare"],
        5 * SLOW, "the loser to be closed",
    )


def test_a_stream_waits_for_its_exit_through_an_outage(bench, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(bench.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"before")
        assert recv_exact(s, 6) == b"before"
        bench.path.block()
        bench.path.cut()
        wait_until(lambda: bench.exit()["dial_failures"] >= 4, 10 * SLOW, "failed dials")
        s.sendall(b"meanwhile")
        bench.path.unblock()
        s.settimeout(15 * SLOW)
        assert recv_exact(s, 9) == b"meanwhile"


def test_half_closed_streams_survive_a_reset_in_either_half(bench, servers):
    sums = TcpServer(servers, tcp_sum)
    with socks_connect(bench.socks, "127.0.0.1", sums.port) as s:
        s.sendall(b"a" * 100_000)
        s.shutdown(socket.SHUT_WR)
        bench.path.cut()
        assert s.recv(100).startswith(b"100000 ")
        assert s.recv(1) == b""


def test_many_streams_survive_the_same_reset(bench, servers):
    echo = TcpServer(servers, tcp_echo)
    socks = [socks_connect(bench.socks, "127.0.0.1", echo.port) for _ in range(100)]
    for round in range(3):
        for i, s in enumerate(socks):
            s.sendall(b"%06d" % (i + round))
        bench.path.cut()
        for i, s in enumerate(socks):
            assert recv_exact(s, 6) == b"%06d" % (i + round)
    for s in socks:
        s.close()


def test_datagram_flows_go_on_after_a_reset(bench, servers):
    udp_echo = UdpServer(servers)
    udp = SocksUdp(bench.socks)
    assert udp.ask("127.0.0.1", udp_echo.port, b"one") == b"one"
    for i in range(3):
        bench.path.cut()
        wait_until(lambda: bench.exit()["resumes"] > i, 5 * SLOW, "a resume")
        assert udp.ask("127.0.0.1", udp_echo.port, b"two") == b"two"
    udp.close()


def test_tickets_run_out_into_a_first_contact_that_reclaims_the_session(lab, servers):
    bench = Bench(lab, servers, "tcp")
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(bench.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"hello")
        assert recv_exact(s, 5) == b"hello"
        # each connection is cut as soon as it stands, so no new ticket arrives
        for _ in range(60):
            bench.path.cut()
            if bench.client.log.count("resumed=pass") > 1:
                break
            time.sleep(0.02)
        s.sendall(b"still here")
        s.settimeout(20 * SLOW)
        assert recv_exact(s, 10) == b"still here"


def test_a_worker_that_lost_its_memory_resets_open_streams_and_serves_new_ones(
    lab, servers, origin
):
    bench = Bench(lab, servers, "tcp")
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(bench.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"hello")
        assert recv_exact(s, 5) == b"hello"
        bench.worker.kill()
        bench.worker.start()
        s.settimeout(15 * SLOW)
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    assert curl_sha256(bench.socks, f"http://127.0.0.1:{origin.port}/bytes/1000")[0] == 1000
    assert bench.exit()["homes_lost"] == 1


def test_streams_of_an_exit_that_stays_away_are_reset_in_the_end(lab, servers):
    bench = Bench(lab, servers, "tcp", limits={"stale_timeout": "1s"})
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(bench.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"hello")
        assert recv_exact(s, 5) == b"hello"
        bench.path.block()
        bench.path.cut()
        s.settimeout(20 * SLOW)
        with pytest.raises(ConnectionResetError):
            s.recv(1)
