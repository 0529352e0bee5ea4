"""The client's proxies: what applications may ask for, and what they are told."""

import contextlib
import socket
import struct
import time

import pytest
from harness import (
    SLOW,
    SocksError,
    SocksUdp,
    curl,
    curl_sha256,
    recv_exact,
    socks_address,
    socks_connect,
)
from servers import (
    Gate,
    TcpServer,
    UdpServer,
    body_sha256,
    http_origin,
    tcp_echo,
    tcp_fin_first,
    tcp_sum,
    wait_until,
)


@pytest.fixture(scope="module")
def echo(servers):
    return TcpServer(servers, tcp_echo)


def ask_raw(port, data, timeout=5):
    """Sends bytes to a proxy and reads to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout * SLOW) as s:
        s.sendall(data)
        out = b""
        while part := s.recv(65536):
            out += part
        return out


def test_addresses_and_names_of_both_families_are_reached(pair, servers, echo):
    echo6 = TcpServer(servers, tcp_echo, host="::1")
    for host, port in (
        ("127.0.0.1", echo.port),
        ("origin.example", echo.port),
        ("::1", echo6.port),
        ("dual.example", echo6.port),
    ):
        with socks_connect(pair.socks, host, port) as s:
            s.sendall(host.encode())
            assert recv_exact(s, len(host)) == host.encode()


def test_curl_gets_the_same_bytes_through_both_proxies(pair, origin):
    n = 20_000_000
    url = f"http://127.0.0.1:{origin.port}/bytes/{n}"
    assert curl_sha256(pair.socks, url) == (n, body_sha256(n))
    assert curl_sha256(None, url, http_proxy=pair.client.http) == (n, body_sha256(n))


def test_an_upload_arrives_whole(pair, origin, tmp_path):
    n = 10_000_000
    file = tmp_path / "upload"
    file.write_bytes(b"x" * n)
    status, out = curl(
        pair.socks, f"http://127.0.0.1:{origin.port}/sum", "--data-binary", f"@{file}"
    )
    assert status == 0 and out.split()[0] == str(n).encode()


def test_failures_get_the_nearest_socks_code(pair, lab):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        closed = s.getsockname()[1]
    for host, port, code in (
        ("127.0.0.1", closed, 5),
        ("10.255.0.1", 80, 2),
        ("nobody.example", 80, 4),
    ):
        with pytest.raises(SocksError) as e:
            socks_connect(pair.socks, host, port)
        assert e.value.code == code, host


def test_failures_get_a_status_and_a_reason_over_http(pair):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        closed = s.getsockname()[1]
    for target, status, word in (
        (f"127.0.0.1:{closed}", b"502", b"refused"),
        ("10.255.0.1:80", b"403", b"policy"),
        ("nobody.example:80", b"502", b"resolve-failed"),
    ):
        out = ask_raw(pair.client.http, f"CONNECT {target} HTTP/1.1\r\n\r\n".encode(), 15)
        head, _, text = out.partition(b"\r\n\r\n")
        assert head.split()[1] == status and text.startswith(word + b":"), out


def test_an_answer_arrives_though_the_application_sent_bytes_early(pair):
    request = b"CONNECT 10.255.0.1:80 HTTP/1.1\r\n\r\n" + b"early" * 2000
    for _ in range(20):
        assert ask_raw(pair.client.http, request).startswith(b"HTTP/1.1 403")


def test_early_bytes_reach_the_destination_in_order(pair, echo):
    with socket.create_connection(("127.0.0.1", pair.socks), 5 * SLOW) as s:
        target = socks_address("127.0.0.1") + struct.pack(">H", echo.port)
        s.sendall(b"\x05\x01\x00" + b"\x05\x01\x00" + target + b"first words")
        assert recv_exact(s, 2 + 10 + 11)[-11:] == b"first words"


def test_requests_in_pieces_are_understood(pair, echo):
    request = f"CONNECT 127.0.0.1:{echo.port} HTTP/1.1\r\nHost: x\r\n\r\nhello".encode()
    with socket.create_connection(("127.0.0.1", pair.client.http), 5 * SLOW) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            s.sendall(bytes([byte]))
        got = recv_exact(s, len(b"HTTP/1.1 200"))
        assert got == b"HTTP/1.1 200"
        while not got.endswith(b"\r\n\r\n"):
            got += recv_exact(s, 1)
        assert recv_exact(s, 5) == b"hello"


def test_what_is_not_offered_is_refused(pair):
    socks, http = pair.socks, pair.client.http
    bind = b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50"
    assert ask_raw(socks, bind) == b"\x05\x00" + b"\x05\x07\x00\x01" + bytes(6)
    assert ask_raw(socks, b"\x05\x01\x02") == b"\x05\xff"
    assert ask_raw(socks, b"\x05\x01\x00\x05\x01\x00\x09")[2:4] == b"\x05\x08"
    assert ask_raw(socks, b"\x04\x01") == b""
    assert ask_raw(socks, b"GET / HTTP/1.1\r\n\r\n") == b""
    assert ask_raw(http, b"GET http://a.example/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405")
    assert ask_raw(http, b"\x16\x03\x01\x02\x00").startswith(b"HTTP/1.1 400")
    assert ask_raw(http, b"CONNECT a:1 HTTP/1.1\r\n" + b"a: b\r\n" * 9999).startswith(
        b"HTTP/1.1 431"
    )


def test_the_application_may_end_its_direction_first(pair, servers):
    sums = TcpServer(servers, tcp_sum)
    with socks_connect(pair.socks, "127.0.0.1", sums.port) as s:
        s.sendall(b"y" * 300_000)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1000).startswith(b"300000 ")
        assert s.recv(1) == b""


def test_the_destination_may_end_its_direction_first(pair, servers):
    tcp_fin_first.got.clear()
    server = TcpServer(servers, tcp_fin_first)
    with socks_connect(pair.socks, "127.0.0.1", server.port) as s:
        assert recv_exact(s, 10) == b"bye first\n"
        assert s.recv(1) == b""
        s.sendall(b"z" * 123_456)
        s.shutdown(socket.SHUT_WR)
        wait_until(lambda: tcp_fin_first.got == [123_456], 10 * SLOW, "the bytes after its end")


def test_a_reset_goes_through_in_both_directions(pair, servers, origin):
    with socks_connect(pair.socks, "127.0.0.1", origin.port) as s:
        s.sendall(b"GET /reset/5000 HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while s.recv(65536):
                pass
    echo = TcpServer(servers, tcp_echo)
    s = socks_connect(pair.socks, "127.0.0.1", echo.port)
    s.sendall(b"hello")
    assert recv_exact(s, 5) == b"hello"
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    wait_until(lambda: echo.errors == ["ConnectionResetError"], 10 * SLOW, "a reset there")


def test_an_application_that_reads_nothing_holds_the_source_back(pair, origin):
    s = socks_connect(pair.socks, "127.0.0.1", origin.port)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    before = pair.client.rss_kb()
    s.sendall(b"GET /bytes/200000000 HTTP/1.1\r\n\r\n")
    held = [0]

    def settled():
        now = pair.client.exit("worker")["traffic"]["bytes_down"]
        held.append(now)
        return len(held) > 5 and held[-1] == held[-5]

    wait_until(settled, 20 * SLOW, "the download to stand still", step=0.1)
    assert pair.client.rss_kb() - before < 30_000
    s.close()


def test_a_zero_window_at_the_destination_holds_the_application_back(pair, servers):
    gate = Gate(servers)
    server = TcpServer(servers, gate, rcvbuf=4096)
    n = 30_000_000
    s = socks_connect(pair.socks, "127.0.0.1", server.port)
    s.setblocking(False)
    sent, data = 0, b"w" * 65536
    still = time.monotonic()
    while sent < n and time.monotonic() - still < 1.0 * SLOW:
        with contextlib.suppress(BlockingIOError):
            sent += s.send(data[: n - sent])
            still = time.monotonic()
    assert sent < 25_000_000  # credit and buffers, not the whole
    gate.open()
    s.settimeout(20 * SLOW)
    s.sendall(b"w" * (n - sent))
    s.shutdown(socket.SHUT_WR)
    assert s.recv(100).startswith(str(n).encode())
    s.close()


def test_udp_associations_carry_datagrams_of_names_and_addresses(pair, servers):
    upper = UdpServer(servers, lambda data, addr: data.upper())
    udp = SocksUdp(pair.socks)
    assert udp.ask("127.0.0.1", upper.port, b"one") == b"ONE"
    assert udp.ask("origin.example", upper.port, b"two") == b"TWO"
    assert udp.ask("127.0.0.1", upper.port, b"x" * 9000) == b"X" * 9000
    udp.close()


def test_fragments_strangers_and_rubbish_are_dropped(pair, servers):
    echo = UdpServer(servers)
    udp = SocksUdp(pair.socks)
    assert udp.ask("127.0.0.1", echo.port, b"mine") == b"mine"
    before = echo.datagrams
    head = socks_address("127.0.0.1") + struct.pack(">H", echo.port)
    udp.sock.sendto(b"\0\0\1" + head + b"fragment", udp.relay)
    udp.sock.sendto(b"\0\0", udp.relay)
    udp.sock.sendto(b"\0\0\0\x07", udp.relay)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"\0\0\0" + head + b"stranger", udp.relay)
    assert udp.ask("127.0.0.1", echo.port, b"again") == b"again"
    assert echo.datagrams == before + 1
    udp.close()


def test_an_association_ends_with_its_connection(pair):
    udp = SocksUdp(pair.socks)
    wait_until(lambda: pair.client.status()["udp"]["associations"] == 1, 5 * SLOW, "one")
    udp.close()
    wait_until(lambda: pair.client.status()["udp"]["associations"] == 0, 5 * SLOW, "none")


def test_connections_that_do_not_ask_give_way_to_those_that_do(lab, origin):
    pair = lab.pair(client={"limits": {"half_open": 8, "request_timeout": "2s"}})
    idle = [socket.create_connection(("127.0.0.1", pair.socks)) for _ in range(40)]
    assert curl(pair.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    idle[0].settimeout(5 * SLOW)
    assert idle[0].recv(1) == b""  # the oldest went first
    idle[-1].settimeout(5 * SLOW)
    assert idle[-1].recv(1) == b""  # and the last when its time was over
    c = pair.client.status()["connections"]
    assert c["asking"] == 0 and c["evicted"] >= 32 and c["timed_out"] >= 1
    for s in idle:
        s.close()


def test_beyond_the_limit_connections_wait_for_a_place(lab, origin, servers):
    pair = lab.pair(client={"limits": {"connections": 4}})
    echo = TcpServer(servers, tcp_echo)
    held = [socks_connect(pair.socks, "127.0.0.1", echo.port) for _ in range(4)]
    late = socket.create_connection(("127.0.0.1", pair.socks), 5 * SLOW)
    late.sendall(b"\x05\x01\x00")
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.recv(2)
    held[0].close()
    late.settimeout(5 * SLOW)
    assert recv_exact(late, 2) == b"\x05\x00"
    late.close()
    for s in held[1:]:
        s.sendall(b"still")
        assert recv_exact(s, 5) == b"still"
        s.close()


def test_without_descriptors_accepting_waits_and_goes_on(lab, servers):
    pair = lab.pair()
    echo = TcpServer(servers, tcp_echo)
    import resource

    used = pair.client.fds()
    resource.prlimit(pair.client.pid, resource.RLIMIT_NOFILE, (used + 6, used + 6))
    held = []
    for _ in range(12):
        s = socket.create_connection(("127.0.0.1", pair.socks), 5 * SLOW)
        s.sendall(b"\x05\x01\x00")
        held.append(s)
    wait_until(lambda: "cannot accept" in pair.client.log, 5 * SLOW, "the limit to be met")
    for s in held[:8]:
        s.close()
    for s in held[8:]:
        s.settimeout(5 * SLOW)
        assert recv_exact(s, 2) == b"\x05\x00"
        s.close()
    with socks_connect(pair.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"well")
        assert recv_exact(s, 4) == b"well"
