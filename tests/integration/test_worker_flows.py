"""Datagram flows through the real client and worker."""

import asyncio
import random
import socket
import threading
import time

from harness import SLOW, SocksUdp, socks_open
from servers import UdpEverywhere, UdpServer, dns_query, wait_until


def test_datagrams_go_and_come_with_their_borders(pair, servers):
    echo = UdpServer(servers)
    udp = SocksUdp(pair.socks)
    for n in (1, 100, 1400, 9000):
        data = random.randbytes(n)
        assert udp.ask("127.0.0.1", echo.port, data) == data


def test_datagrams_to_ipv6_and_to_names(pair, servers):
    echo6 = UdpServer(servers, host="::1")
    echo4 = UdpServer(servers)
    udp = SocksUdp(pair.socks)
    assert udp.ask("::1", echo6.port, b"six") == b"six"
    assert udp.ask("origin.example", echo4.port, b"name") == b"name"


def test_destinations_of_one_association_see_one_source_each(pair, servers):
    echo = UdpServer(servers)
    udp = SocksUdp(pair.socks)
    for i in range(20):
        assert udp.ask("127.0.0.1", echo.port, b"%d" % i) == b"%d" % i
    assert len(echo.peers) == 1


def test_icmp_errors_end_nothing(pair, servers):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        closed = s.getsockname()[1]
    echo = UdpServer(servers)
    udp = SocksUdp(pair.socks)
    before = pair.worker.metric("sallyport_worker_flow_icmp_errors_total")
    for _ in range(5):
        udp.send("127.0.0.1", closed, b"to nobody")
        assert udp.ask("127.0.0.1", echo.port, b"still here") == b"still here"
    wait_until(
        lambda: pair.worker.metric("sallyport_worker_flow_icmp_errors_total") > before, 5 * SLOW
    )


def test_dns_is_answered_beside_2000_flows_and_50_bulk_streams(pair, servers, origin):
    """2,000 flows with traffic, 50 downloads without end, one look-up a second over the same
    session: each look-up is answered, at the first try."""
    stop = threading.Event()
    got = {"bulk": 0, "flows": set()}
    problems = []
    echo_any = UdpEverywhere(servers)

    async def bulk():
        reader, writer = await socks_open(pair.socks, "127.0.0.1", origin.port)
        writer.write(b"GET /bytes/100000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        while not stop.is_set():
            data = await reader.read(1 << 17)
            if not data:
                problems.append("a bulk stream ended")
                return
            got["bulk"] += len(data)
        writer.transport.abort()

    def run_bulk():
        async def all_of_it():
            await asyncio.gather(*(bulk() for _ in range(50)))

        asyncio.run(all_of_it())

    def run_flows():
        udp = SocksUdp(pair.socks, timeout=0.05)
        destinations = [(f"127.0.{i // 250}.{1 + i % 250}", echo_any.port) for i in range(2000)]
        while not stop.is_set():
            for i, (host, port) in enumerate(destinations):
                udp.send(host, port, b"%d" % i)
                if i % 20 == 0:
                    try:
                        while True:
                            got["flows"].add(udp.recv())
                    except TimeoutError:
                        pass
                    if stop.is_set():
                        break
        udp.close()

    threads = [threading.Thread(target=f, daemon=True) for f in (run_bulk, run_flows)]
    for t in threads:
        t.start()
    try:
        wait_until(
            lambda: pair.worker.metric("sallyport_worker_flows") >= 2000, 60 * SLOW, "2,000 flows"
        )
        wait_until(lambda: got["bulk"] > 50e6 / SLOW, 30 * SLOW, "bulk traffic")
        times = []
        for i in range(5):
            dns = SocksUdp(pair.socks, timeout=2)
            started = time.monotonic()
            query = dns_query("origin.example")
            answer = dns.ask("127.0.0.1", pair.dns.port, query)
            times.append(time.monotonic() - started)
            assert answer[:2] == query[:2] and answer[-4:] == bytes([127, 0, 0, 1])
            dns.close()
            stop.wait(max(0, 1 - times[-1]))  # one a second
    finally:
        stop.set()
        for t in threads:
            t.join(20)
    assert not problems
    assert len(got["flows"]) > 1900, f"answers on {len(got['flows'])} of 2,000 flows"
    assert pair.worker.metric("sallyport_worker_flows") <= 2100
    print("look-up ms:", [round(1000 * t, 1) for t in times], "bulk MB:", got["bulk"] // 10**6)
