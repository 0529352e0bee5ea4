"""Streams through the real client and worker: bytes, ends, pressure, numbers."""

import asyncio
import hashlib
import os
import socket
import struct
import threading
import time

import pytest
from harness import SLOW, SocksError, curl, curl_sha256, socks_connect, socks_open
from servers import (
    Gate,
    TcpServer,
    body,
    body_sha256,
    http_origin,
    tcp_echo,
    tcp_fin_first,
    tcp_sum,
    wait_until,
)

MB = 1 << 20


def test_a_download_arrives_byte_for_byte(pair, origin):
    n = 24 * MB + 17
    assert curl_sha256(pair.socks, f"http://127.0.0.1:{origin.port}/bytes/{n}") == (
        n,
        body_sha256(n),
    )


def test_an_upload_arrives_byte_for_byte(pair, origin, tmp_path):
    data = os.urandom(9 * MB + 3)
    (tmp_path / "up").write_bytes(data)
    status, out = curl(
        pair.socks, f"http://127.0.0.1:{origin.port}/sum", "--data-binary", f"@{tmp_path}/up"
    )
    assert status == 0, out
    assert out.decode().split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


def test_both_directions_at_once_do_not_mix(pair, servers):
    echo = TcpServer(servers, tcp_echo)
    data = os.urandom(6 * MB)
    sock = socks_connect(pair.socks, "127.0.0.1", echo.port)

    def feed():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=feed)
    thread.start()
    got = bytearray()
    while part := sock.recv(1 << 18):
        got += part
    thread.join()
    assert bytes(got) == data


def test_the_answer_still_comes_after_the_application_ended_its_direction(pair, servers):
    server = TcpServer(servers, tcp_sum)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    sock.sendall(b"x" * 300000)
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while part := sock.recv(4096):
        answer += part
    assert answer.split() == [b"300000", hashlib.sha256(b"x" * 300000).hexdigest().encode()]


def test_the_application_may_still_send_after_the_destination_ended_its_direction(
    pair, servers
):
    server = TcpServer(servers, tcp_fin_first)
    before = len(tcp_fin_first.got)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    line = b""
    while part := sock.recv(100):
        line += part
    assert line == b"bye first\n"
    sock.sendall(b"y" * 200000)
    sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: len(tcp_fin_first.got) > before, 10 * SLOW, "the destination's EOF")
    assert tcp_fin_first.got[-1] == 200000


def test_what_came_before_a_reset_is_delivered_and_then_the_reset(pair, origin):
    n = 700000
    sock = socks_connect(pair.socks, "127.0.0.1", origin.port)
    sock.sendall(f"GET /reset/{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            part = sock.recv(65536)
            assert part, "a FIN instead of the reset"
            got += part
    assert hashlib.sha256(got.partition(b"\r\n\r\n")[2]).hexdigest() == body_sha256(n)


def test_a_reset_by_the_application_reaches_the_destination_as_one(pair, servers):
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    sock.sendall(b"ping")
    assert sock.recv(4) == b"ping"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    wait_until(lambda: "ConnectionResetError" in server.errors, 10 * SLOW, "an RST there")


def test_ipv6_destinations_work(pair, servers):
    origin6 = TcpServer(servers, http_origin, host="::1")
    n = 3 * MB
    assert curl_sha256(pair.socks, f"http://[::1]:{origin6.port}/bytes/{n}")[1] == body_sha256(n)


def test_names_are_resolved_at_the_exit(pair, origin):
    url = f"http://origin.example:{origin.port}/bytes/1000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(1000)
    assert pair.dns.asked["origin.example"] >= 1


@pytest.mark.parametrize(
    "host, code",
    [("nowhere.example", 4), ("10.1.2.3", 2), ("169.254.169.254", 2)],
)
def test_a_stream_that_cannot_be_opened_says_why(pair, host, code):
    with pytest.raises(SocksError) as e:
        socks_connect(pair.socks, host, 80)
    assert e.value.code == code


def test_a_refused_connection_is_told_as_refused(pair):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        with pytest.raises(SocksError) as e:
            socks_connect(pair.socks, "127.0.0.1", s.getsockname()[1])
    assert e.value.code == 5


def test_a_slow_reader_holds_up_only_itself(pair, origin):
    n = 40 * MB
    rss = pair.worker.rss_kb()
    slow = socks_connect(pair.socks, "127.0.0.1", origin.port)
    slow.sendall(f"GET /bytes/{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = slow.recv(4096)
    url = f"http://127.0.0.1:{origin.port}/bytes/{4 * MB}"
    for _ in range(3):
        started = time.monotonic()
        assert curl_sha256(pair.socks, url)[1] == body_sha256(4 * MB)
        assert time.monotonic() - started < 5 * SLOW
    assert pair.worker.rss_kb() - rss < 32 * 1024 * SLOW
    h, left = hashlib.sha256(), n
    data = head.partition(b"\r\n\r\n")[2]
    while True:
        h.update(data)
        left -= len(data)
        if left == 0:
            break
        data = slow.recv(1 << 18)
        assert data
    assert h.hexdigest() == body_sha256(n)


def test_a_destination_with_a_closed_window_stops_its_sender_and_nobody_else(pair, servers, origin):
    gate = Gate(servers)
    server = TcpServer(servers, gate, rcvbuf=8192)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    data = b"".join(body(24 * MB))
    sent = threading.Event()

    def feed():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sent.set()

    threading.Thread(target=feed, daemon=True).start()
    url = f"http://127.0.0.1:{origin.port}/bytes/{4 * MB}"
    for _ in range(3):
        assert curl_sha256(pair.socks, url)[1] == body_sha256(4 * MB)
    assert not sent.is_set(), "24 MB went into a closed window"
    gate.open()
    answer = b""
    while part := sock.recv(4096):
        answer += part
    assert answer.split() == [str(24 * MB).encode(), body_sha256(24 * MB).encode()]


def test_a_thousand_streams_at_once(pair, servers, origin):
    count, n = 1000, 60000
    everybody = dialling = None

    async def one(i):
        async with dialling:
            reader, writer = await socks_open(pair.socks, "127.0.0.1", origin.port)
        writer.write(f"GET /close/{n + i} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await everybody.wait()
        data = await reader.read(-1)
        writer.close()
        return hashlib.sha256(data.partition(b"\r\n\r\n")[2]).hexdigest() == body_sha256(n + i)

    async def run():
        nonlocal everybody, dialling
        everybody, dialling = asyncio.Event(), asyncio.Semaphore(100)
        tasks = [asyncio.create_task(one(i)) for i in range(count)]
        while origin.connections - before < count:
            await asyncio.sleep(0.02)
            assert not any(t.done() and t.exception() for t in tasks)
        everybody.set()
        return await asyncio.wait_for(asyncio.gather(*tasks), 60 * SLOW)

    before = origin.connections
    assert all(asyncio.run(run()))
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 0, 10 * SLOW, "all closed")
