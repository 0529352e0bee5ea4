"""Bytes that no client of the fleet sends, on every port of a worker: each kind is counted by
its reason, nothing crashes or grows, and sessions beside them go on."""

import contextlib
import hashlib
import random
import socket
import struct


import pytest
from harness import SLOW, curl_sha256, http_get, socks_connect
from servers import Path, TcpServer, body_sha256, tcp_echo, wait_until

RNG = random.Random(7)


def mac1(worker, rest):
    key = hashlib.blake2b(b"sallyport mac1 v1" + worker.key.public, digest_size=32).digest()
    return hashlib.blake2b(rest, digest_size=16, key=key).digest()


def flight(worker, kind, body, versions=(1, 1), mac=True):
    rest = bytes([*versions, kind]) + body
    rest = struct.pack(">H", len(rest)) + rest
    return (mac1(worker, rest) if mac else RNG.randbytes(16)) + rest


def send(worker, data, pieces=1):
    sock = socket.create_connection(("127.0.0.1", worker.port), 5)
    step = max(1, len(data) // pieces)
    with contextlib.suppress(OSError):
        for i in range(0, len(data), step):
            sock.sendall(data[i : i + step])
    return sock


def strangers(worker, reason):
    return worker.metric(f'sallyport_worker_strangers_total{{reason="{reason}"}}')


@pytest.mark.parametrize(
    "reason, make",
    [
        ("mac", lambda w: flight(w, 0, RNG.randbytes(300), mac=False)),
        ("version", lambda w: flight(w, 0, RNG.randbytes(300), versions=(7, 9))),
        ("handshake", lambda w: flight(w, 0, RNG.randbytes(400))),
        ("malformed", lambda w: flight(w, 0, RNG.randbytes(20))),
        ("malformed", lambda w: flight(w, 9, RNG.randbytes(300))),
        ("ticket", lambda w: flight(w, 1, struct.pack(">H", 192) + RNG.randbytes(500))),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_bad_first_flight_is_counted_and_answered_with_nothing(pair, reason, make, pieces):
    w = pair.worker
    before = strangers(w, reason)
    sock = send(w, make(w), pieces)
    wait_until(lambda: strangers(w, reason) > before, 10 * SLOW, f"a stranger: {reason}")
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.close()


def test_a_first_flight_that_was_seen_before_is_a_replay(lab, servers):
    """A genuine one, recorded on its way and sent again by somebody else."""
    w = lab.worker()
    taken = []

    class Recorder(Path):
        async def _pump(self, pair, reader, writer):
            read = reader.read

            async def note(n):
                data = await read(n)
                if not taken and writer is pair["writers"][1]:
                    taken.append(data)
                return data

            reader.read = note
            await super()._pump(pair, reader, writer)

    path = Recorder(servers, ("127.0.0.1", w.port))
    client = lab.client("client", [w], paths={w.name: path})
    assert taken
    sock = send(w, taken[0])
    wait_until(lambda: strangers(w, "replay") == 1, 10 * SLOW, "a replay")
    assert w.metric('sallyport_worker_sessions{state="attached"}') == 1
    server = TcpServer(servers, tcp_echo)
    stream = socks_connect(client.socks, "127.0.0.1", server.port)
    stream.sendall(b"untouched")
    assert stream.recv(9) == b"untouched"
    sock.close()
    path.close()


def test_noise_on_every_port_leaves_sessions_and_memory_alone(lab, servers, origin):
    pair = lab.pair(carrier="tls")
    w = pair.worker
    url = f"http://127.0.0.1:{origin.port}/bytes/2000000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(2000000)
    rss, fds = w.rss_kb(), w.fds()
    socks = []
    for i in range(400):
        port = w.admin if i % 4 == 0 else w.port
        with contextlib.suppress(OSError):
            s = socket.create_connection(("127.0.0.1", port), 5)
            s.sendall(RNG.randbytes(RNG.choice([1, 5, 16, 100, 1500, 20000])))
            socks.append(s)
        if len(socks) > 40:
            socks.pop(0).close()
        if i % 100 == 50:
            assert curl_sha256(pair.socks, url)[1] == body_sha256(2000000)
    for s in socks:
        s.close()
    wait_until(lambda: w.fds() <= fds + 2, 20 * SLOW, "the descriptors back")
    assert w.rss_kb() - rss < 16 * 1024 * SLOW
    assert http_get(w.admin, "/livez")[0] == 200
    assert curl_sha256(pair.socks, url)[1] == body_sha256(2000000)


def test_beyond_the_limit_of_half_open_carriers_the_oldest_goes(lab, servers):
    pair = lab.pair(worker={"limits": {"half_open": 20}})
    w = pair.worker
    server = TcpServer(servers, tcp_echo)
    stream = socks_connect(pair.socks, "127.0.0.1", server.port)
    idle = [socket.create_connection(("127.0.0.1", w.port), 5) for _ in range(60)]
    wait_until(
        lambda: w.metric('sallyport_worker_carriers{state="half-open"}') == 20, 10 * SLOW
    )
    idle[0].settimeout(10 * SLOW)
    with contextlib.suppress(ConnectionResetError):
        assert idle[0].recv(1) == b"", "the oldest lives"
    idle[-1].settimeout(0.2)
    with pytest.raises(TimeoutError):
        idle[-1].recv(1)
    stream.sendall(b"still here")
    assert stream.recv(10) == b"still here"
    for s in idle:
        s.close()


def test_strangers_leave_descriptors_to_users(lab, servers):
    server = TcpServer(servers, tcp_echo)
    lab.cover_port = server.port
    pair = lab.pair(carrier="tls", worker_nofile=320)
    strangers = []
    for i in range(400):  # half of them silent, half relayed to the cover site
        strangers.append(socket.create_connection(("127.0.0.1", pair.worker.port), 5))
        if i % 2:
            strangers[-1].sendall(b"GET / HTTP/1.1\r\n")
    wait_until(lambda: pair.worker.metric("sallyport_worker_cover_relays") > 20, 10 * SLOW, "relays")
    streams = [socks_connect(pair.socks, "127.0.0.1", server.port) for _ in range(100)]
    for s in streams:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
    for s in strangers + streams:
        s.close()


def test_one_source_cannot_make_the_worker_do_many_key_exchanges(lab):
    w = lab.worker()
    for _ in range(200):  # the burst of one source is 100
        send(w, flight(w, 0, RNG.randbytes(400))).close()
    wait_until(lambda: strangers(w, "budget") >= 50, 10 * SLOW, "the budget")
    assert 100 <= strangers(w, "handshake") <= 150


def test_the_admin_listener_bounds_headers_bodies_and_methods(lab):
    w = lab.worker()
    for request, status in [
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n", b"4"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
    ]:
        with socket.create_connection(("127.0.0.1", w.admin), 5) as s:
            with contextlib.suppress(OSError):
                s.sendall(request)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = s.recv(4096)
            assert answer.split(b" ")[1].startswith(status), (request[:30], answer[:60])
    assert http_get(w.admin, "/livez")[0] == 200
