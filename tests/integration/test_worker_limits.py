"""What happens at each limit of a worker."""

import contextlib
import time

import pytest
from harness import SLOW, SocksError, SocksUdp, curl_sha256, socks_connect
from servers import TcpServer, UdpEverywhere, body_sha256, tcp_echo, wait_until


def hold(pair, server, n):
    """n streams that stay open."""
    socks = [socks_connect(pair.socks, "127.0.0.1", server.port) for _ in range(n)]
    for s in socks:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
    return socks


def close_all(socks):
    for s in socks:
        with contextlib.suppress(OSError):
            s.close()


def test_a_stream_over_the_session_limit_is_refused_and_the_others_live(lab, servers):
    pair = lab.pair(worker={"limits": {"streams_per_session": 10}})
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 10)
    with pytest.raises((SocksError, EOFError, ConnectionError)):
        socks_connect(pair.socks, "127.0.0.1", server.port)
    for s in socks:
        s.sendall(b"y")
        assert s.recv(1) == b"y"
    close_all(socks)
    # room again: the limit counts what lives
    wait_until(lambda: server.live == 0, 10 * SLOW, "streams closed")
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 0, 10 * SLOW)
    close_all(hold(pair, server, 3))


def test_a_session_over_the_users_limit_is_refused(lab, servers):
    pair = lab.pair(worker={"limits": {"sessions_per_user": 1}})
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 1)
    second = lab.client("client2", [pair.worker], wait=False)
    wait_until(
        lambda: pair.worker.metric('sallyport_worker_refused_total{reason="session-limit"}') > 0,
        15 * SLOW,
        "a refused session",
    )
    socks[0].sendall(b"z")
    assert socks[0].recv(1) == b"z"
    second.stop()
    close_all(socks)


def test_the_stalest_detached_session_makes_room_for_a_new_one(lab, servers):
    pair = lab.pair(worker={"limits": {"sessions_per_user": 1}})
    wait_until(lambda: pair.worker.metric('sallyport_worker_sessions{state="attached"}') == 1, 10)
    pair.client.kill()
    wait_until(lambda: pair.worker.metric('sallyport_worker_sessions{state="detached"}') == 1, 10)
    second = lab.client("client2", [pair.worker])
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(second.socks, "127.0.0.1", server.port)
    sock.sendall(b"q")
    assert sock.recv(1) == b"q"
    assert pair.worker.metric("sallyport_worker_sessions_evicted_total") == 1


def test_more_flows_than_the_session_may_have_evict_the_stalest_not_the_newest(lab, servers):
    pair = lab.pair(worker={"limits": {"flows_per_session": 20}})
    echo = UdpEverywhere(servers)
    udp = SocksUdp(pair.socks)
    for i in range(100):
        data = b"%d" % i
        assert udp.ask(f"127.0.1.{i + 1}", echo.port, data) == data, "the newest went"
    assert pair.worker.metric("sallyport_worker_flows") <= 20


def test_without_descriptors_stalest_flows_go_streams_live_and_all_recovers(lab, servers, origin):
    pair = lab.pair(worker_nofile=160)
    server = TcpServer(servers, tcp_echo)
    echo = UdpEverywhere(servers)
    udp = SocksUdp(pair.socks)
    socks = hold(pair, server, 5)
    for i in range(200):  # more flows than descriptors: each new one works all the same
        data = b"%d" % i
        assert udp.ask(f"127.0.{2 + i // 200}.{1 + i % 200}", echo.port, data) == data
    assert pair.worker.metric('sallyport_worker_flows_evicted_total{limit="worker"}') > 0
    more = hold(pair, server, 20)  # streams take the place of idle flows
    refused = 0
    for _ in range(150):
        try:
            more.append(socks_connect(pair.socks, "127.0.0.1", server.port))
        except (SocksError, EOFError, ConnectionError):
            refused += 1
    assert refused > 0, "160 descriptors were enough for all of it"
    for s in socks:
        s.sendall(b"k")
        assert s.recv(1) == b"k"
    assert pair.worker.alive()
    assert pair.worker.metric("sallyport_worker_no_descriptors_total") > 0
    close_all(more)
    wait_until(lambda: server.live <= 5, 10 * SLOW, "streams closed")
    url = f"http://127.0.0.1:{origin.port}/bytes/100000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(100000)


def test_little_memory_slows_streams_and_breaks_none(lab, servers, origin):
    pair = lab.pair(worker={"limits": {"memory": "1M", "streams": 256}})
    n = 4 << 20
    slow = []
    for _ in range(12):  # readers that stop: their bytes fill the pool
        s = socks_connect(pair.socks, "127.0.0.1", origin.port)
        s.sendall(f"GET /bytes/{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        slow.append(s)
    url = f"http://127.0.0.1:{origin.port}/bytes/200000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(200000)
    rest = slow.pop()
    close_all(slow)  # their memory is free again
    got = 0
    while got < n:
        part = rest.recv(1 << 18)
        assert part
        got += len(part)
    close_all([rest])


def test_streams_of_a_detached_session_go_when_it_is_stale(lab, servers):
    pair = lab.pair(worker={"limits": {"stale_timeout": "1s"}})
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 3)
    assert server.live == 3
    pair.client.kill()
    wait_until(lambda: server.live == 0, 10 * SLOW, "the destinations' resets")
    assert pair.worker.metric('sallyport_worker_sessions{state="detached"}') == 1
    assert pair.worker.metric('sallyport_worker_streams_ended_total{reason="stale"}') == 3
    close_all(socks)


def test_a_stream_without_traffic_is_reset_after_its_time(lab, servers):
    pair = lab.pair(worker={"limits": {"stream_idle": "1s"}})
    server = TcpServer(servers, tcp_echo)
    sock = hold(pair, server, 1)[0]
    started = time.monotonic()
    sock.settimeout(10 * SLOW)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    assert time.monotonic() - started > 0.7
    assert pair.worker.metric('sallyport_worker_streams_ended_total{reason="idle"}') == 1


def test_the_worker_ends_a_session_whose_pass_expired(lab, servers):
    pair = lab.pair(passport={"lifetime": -88})  # inside the 90 s of tolerance for two more seconds
    wait_until(
        lambda: pair.worker.metric('sallyport_worker_sessions_ended_total{reason="pass-expired"}') >= 1,
        15 * SLOW,
        "END(pass-expired)",
    )
