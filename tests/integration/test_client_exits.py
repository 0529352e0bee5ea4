"""The chain of exits: which one is used, and how little its death costs."""

import re
import time

import pytest
from harness import SLOW, SocksError, SocksUdp, curl, free_port, recv_exact, socks_connect
from servers import Path, TcpServer, UdpServer, tcp_echo, wait_until


class Two:
    """Two workers, each behind a path, and a client."""

    def __init__(self, lab, servers, origin, wait=True, **client):
        self.lab, self.origin = lab, origin
        self.first, self.second = lab.worker("first"), lab.worker("second")
        self.paths = {
            w.name: Path(servers, ("127.0.0.1", w.port)) for w in (self.first, self.second)
        }
        self.client = lab.client(
            "client", [self.first, self.second], paths=self.paths, wait=wait, **client
        )
        self.socks = self.client.socks

    def get(self):
        """Seconds that one request took."""
        start = time.monotonic()
        status, out = curl(self.socks, f"http://127.0.0.1:{self.origin.port}/204")
        assert status == 0, out
        return time.monotonic() - start

    def both_warm(self):
        exits = self.client.status()["exits"]
        return all(x["state"] == "healthy" for x in exits)

    def warm(self):
        wait_until(self.both_warm, 5 * SLOW, "both exits to be warm")
        return self


@pytest.fixture
def two(lab, servers, origin):
    return Two(lab, servers, origin).warm()


def test_the_first_exit_is_used_and_the_next_kept_warm(two):
    two.get()
    assert two.client.in_use() == "first"
    assert two.client.exit("second")["carriers"] == 1
    assert two.client.exit("second")["traffic"]["bytes_down"] == 0


def test_a_killed_exit_costs_a_new_request_less_than_a_second(two):
    two.get()
    two.first.kill()
    assert two.get() < 1.0 * SLOW
    assert two.client.in_use() == "second"


def test_an_exit_that_falls_silent_costs_a_new_request_little_more(two):
    two.get()
    two.paths["first"].freeze()
    two.paths["first"].block()
    assert two.get() < 1.2 * SLOW
    assert two.client.in_use() == "second"
    assert two.get() < 0.3 * SLOW


def test_an_exit_that_freezes_as_a_process_costs_a_new_request_little_more(two):
    import os
    import signal

    two.get()
    two.first.signal(signal.SIGSTOP)
    try:
        assert two.get() < 1.2 * SLOW
    finally:
        two.first.signal(signal.SIGCONT)
    assert two.client.status()["connections"]["moved"] == 1


def test_an_open_stream_waits_for_its_own_exit(two, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(two.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        two.paths["first"].block()
        two.paths["first"].cut()
        two.get()
        assert two.client.in_use() == "second"
        s.sendall(b"two")
        two.paths["first"].unblock()
        s.settimeout(15 * SLOW)
        assert recv_exact(s, 3) == b"two"


def test_a_dead_first_exit_does_not_hold_up_the_start(lab, servers, origin):
    dead = lab.worker("dead", start=False)
    alive = lab.worker("alive")
    client = lab.client("client", [dead, alive], wait=False)
    start = time.monotonic()
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    assert time.monotonic() - start < 1.0 * SLOW


def test_a_better_exit_is_gone_back_to_after_its_hold_down(lab, servers, origin):
    two = Two(lab, servers, origin, chain={"hold_down": "1s"}).warm()
    two.paths["first"].block()
    two.paths["first"].cut()
    wait_until(lambda: two.client.in_use() == "second", 5 * SLOW, "the second")
    two.paths["first"].unblock()
    wait_until(lambda: two.client.exit("first")["state"] == "healthy", 10 * SLOW, "it is back")
    back = time.monotonic()
    wait_until(lambda: two.client.in_use() == "first", 10 * SLOW, "the first again")
    assert time.monotonic() - back > 0.5


def test_a_drained_exit_gets_no_new_streams_and_keeps_its_old_ones(two, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(two.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        two.first.signal(15)
        wait_until(lambda: two.client.in_use() == "second", 5 * SLOW, "the second")
        two.get()
        assert two.client.exit("second")["traffic"]["bytes_down"] > 0
        s.sendall(b"two")
        assert recv_exact(s, 3) == b"two"


def test_datagram_flows_move_when_their_exit_dies(two, servers):
    echo = UdpServer(servers)
    udp = SocksUdp(two.socks, timeout=0.3)
    assert udp.ask("127.0.0.1", echo.port, b"one") == b"one"
    two.first.kill()

    def answered():
        try:
            return udp.ask("127.0.0.1", echo.port, b"two") == b"two"
        except TimeoutError:
            return False

    wait_until(answered, 3 * SLOW, "an answer by way of the second exit")
    assert len(echo.peers) >= 2  # another address of the second exit
    udp.close()


def test_with_every_exit_dead_nothing_goes_out_directly(lab, servers, origin):
    dead = lab.worker("dead", start=False)
    client = lab.client(
        "client", [dead], wait=False, limits={"connect_timeout": "1s"}
    )
    before = origin.connections
    with pytest.raises(SocksError) as e:
        socks_connect(client.socks, "127.0.0.1", origin.port)
    assert e.value.code == 6
    status, out = curl(
        None, f"http://127.0.0.1:{origin.port}/204", http_proxy=client.http
    )
    assert status != 0
    assert origin.connections == before


def test_a_request_waits_for_an_exit_that_comes_in_time(lab, servers, origin):
    late = lab.worker("late", start=False)
    client = lab.client("client", [late], wait=False)
    wait_until(lambda: client.exit("late")["dial_failures"] >= 1, 5 * SLOW, "a failed dial")
    import threading

    got = []
    url = f"http://127.0.0.1:{origin.port}/204"
    t = threading.Thread(target=lambda: got.append(curl(client.socks, url)))
    t.start()
    wait_until(
        lambda: client.status()["connections"]["connecting"] == 1, 5 * SLOW, "it waits"
    )
    late.start()
    t.join(20 * SLOW)
    assert got and got[0][0] == 0


def test_names_of_exits_are_resolved(lab, servers, origin):
    worker = lab.worker()
    client = lab.client("client", [worker], start=False)
    worker.exit_entry_address = None
    entry = worker.exit_entry()
    entry["carriers"][0]["address"] = f"localhost:{worker.port}"
    file = lab.signer.json_file(
        "client-config",
        {"format": 1, "revision": {"epoch": 1, "sequence": 1}, "exits": [entry]},
    )
    (client.dir / "exits.signed").write_bytes(file)
    client.spawn()
    wait_until(client.listening, 5 * SLOW, "its port")
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0


def test_an_address_that_takes_no_connection_is_told_as_unreachable(lab, origin):
    worker = lab.worker()
    entry = worker.exit_entry()
    nowhere = {"kind": "tcp", "address": "[fe80::1]:443"}  # which interface, it does not say
    worker.exit_entry = lambda path=None: dict(entry, carriers=[nowhere, *entry["carriers"]])
    client = lab.client("client", [worker])
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    said = re.search(r"dial failed.* reason=(\S+)", client.log)
    assert said and said.group(1) == "unreachable", said


def test_the_second_carrier_of_an_exit_is_tried_when_the_first_fails(lab, origin):
    worker = lab.worker()
    client = lab.client("client", [worker], start=False)
    entry = worker.exit_entry()
    entry["carriers"].insert(0, {"kind": "tcp", "address": f"127.0.0.1:{free_port()}"})
    file = lab.signer.json_file(
        "client-config",
        {"format": 1, "revision": {"epoch": 1, "sequence": 1}, "exits": [entry]},
    )
    (client.dir / "exits.signed").write_bytes(file)
    client.spawn()
    wait_until(client.listening, 5 * SLOW, "its port")
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
