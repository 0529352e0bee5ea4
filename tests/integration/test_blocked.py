"""The address of a session's home is out of its client's reach, and of nobody else's: a real
client, two real workers, and the ways between them emulated.

    client --- 25 ms, 100 Mbit/s --- home       (blackholed on command)
       `------ 25 ms, 100 Mbit/s --- entry
                                     entry --- 5 ms --- home"""

import signal
import time

import pytest
from harness import SLOW, recv_exact
from linklab import Net, NetClient, NetWorker, needs_net
from servers import TcpServer, http_origin, tcp_echo, wait_until
from test_cut import Download

pytestmark = needs_net
RATE = 100e6 / 8
# What the machine's other work may add to a pause; the promise itself is in the test.
SLACK = 0.2


class Place:
    def __init__(self, lab, servers, net, carrier="tcp", entry=None, **client):
        self.net, self.lab = net, lab
        for end in ("home", "entry"):
            net(f"link client {end} delay=25ms rate=100mbit queue=512k")
        net("link entry home delay=5ms")
        self.ports = []
        with net.inside("home"):
            self.origin = TcpServer(servers, http_origin, limit=1 << 18)
            self.echo = TcpServer(servers, self.serve_echo)
        self.home = NetWorker(lab, "home", net, "home", carrier=carrier)
        self.entry = NetWorker(lab, "entry", net, "entry", carrier=carrier, **(entry or {}))
        workers = [self.home, self.entry]
        self.introduce(2, workers)
        self.client = NetClient(lab, "client", net, "client", workers, **client)
        wait_until(self.warm, 20 * SLOW, "two exits to be warm")

    async def serve_echo(self, reader, writer):
        self.ports.append(writer.get_extra_info("peername")[1])
        await tcp_echo(reader, writer)

    def introduce(self, seq, workers):
        """Each of them to the others."""
        for w in workers:
            self.lab.sign_worker_config(w, seq=seq, members=workers)
            mark = len(w.log)
            w.signal(signal.SIGHUP)
            w.wait_log(rf"new config in force.*sequence={seq}", after=mark)

    def warm(self):
        return all(x["state"] == "healthy" for x in self.client.status()["exits"])

    def exit(self, name="home"):
        return self.client.exit(name)

    def block(self):
        """The home's address, for the client alone and without a word."""
        return self.net("cut client home").at

    def unblock(self):
        return self.net("unblock all").at

    def close(self):
        self.origin.close()
        self.echo.close()


@pytest.fixture
def net():
    ends = {"client": "10.78.0.1", "home": "10.78.0.2", "entry": "10.78.0.3"}
    with Net(ends) as n:
        yield n


@pytest.fixture
def make(lab, servers, net):
    made = []

    def one(*args, **kwargs):
        made.append(Place(lab, servers, net, *args, **kwargs))
        return made[-1]

    yield one
    for p in made:
        p.close()


def say(sock, data):
    sock.settimeout(20 * SLOW)
    sock.sendall(data)
    assert recv_exact(sock, len(data)) == data


def rate_between(d, begin, end):
    """Bytes a second of a download in a span of time.monotonic()."""
    wait_until(lambda: d.came[-1][0] > end or d.error or d.bytes == d.n, 60 * SLOW, "bytes")
    inside = [(t, n) for t, n in list(d.came) if begin <= t <= end]
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


@pytest.mark.parametrize("carrier", ["tcp", "tls"])
def test_flows_go_on_in_1_5_s_through_another_worker_and_later_directly(make, carrier):
    place = make(carrier)
    with place.client.connect("127.0.0.1", place.echo.port, 30) as beside:
        say(beside, b"before")
        d = Download(place, 140_000_000)
        d.going(12_000_000)
        now = time.monotonic()
        before = rate_between(d, now, now + 1.2)

        blocked = place.block()
        pause = d.pause_after(blocked, 2.0)
        say(beside, b"through another")
        x = place.exit()
        assert x["via"] == "entry" and x["state"] == "relayed" and x["homes_lost"] == 0
        assert "via entry" in place.client.run("status").stdout
        relayed = 0  # the better of two spans: the machine has other work
        for _ in range(2):
            now = time.monotonic()
            relayed = max(relayed, rate_between(d, now, now + 1.5))

        unblocked = place.unblock()
        wait_until(lambda: not place.exit()["via"], 30 * SLOW, "the direct way again")
        back = time.monotonic() - unblocked
        switch = d.pause_after(unblocked, back)
        say(beside, b"after")
        d.check()
    print(f"{carrier}: paused {pause * 1000:.0f} ms; {before / 1e6:.1f} MB/s before, "
          f"{relayed / 1e6:.1f} on the relay; direct again after {back:.1f} s "
          f"(longest pause {switch * 1000:.0f} ms)")
    # The same sockets at the destinations, from the first to the last byte.
    assert len(place.ports) == 1 and place.origin.connections == 1
    assert place.client.status()["sessions_moved"]["streams_lost"] == 0
    assert pause <= (1.5 + SLACK) * SLOW
    assert relayed >= 0.8 * min(before, RATE) / SLOW


def test_what_is_opened_meanwhile_goes_to_the_next_exit(make):
    place = make()
    with place.client.connect("127.0.0.1", place.echo.port, 30) as old:
        say(old, b"before")
        place.block()
        say(old, b"through another")
        wait_until(lambda: place.client.in_use() == "entry", 5 * SLOW, "another exit in use")
        with pytest.raises(OSError):  # the same words, another machine: nobody listens there
            place.client.connect("127.0.0.1", place.echo.port, 5)
        say(old, b"still through another")
        assert place.exit()["streams"] == 1
    assert len(place.ports) == 1


def test_or_onto_the_relay_if_the_config_says_so(make):
    place = make(relay={"new_flows": "relay"})
    with place.client.connect("127.0.0.1", place.echo.port, 30) as old:
        say(old, b"before")
        place.block()
        say(old, b"through another")
        wait_until(lambda: place.client.in_use() == "entry", 5 * SLOW, "another exit in use")
        with place.client.connect("127.0.0.1", place.echo.port, 30) as new:
            say(new, b"opened on the relay")
    assert len(place.ports) == 2


def test_an_entry_that_does_not_relay_costs_no_ticket_and_the_streams_wait(make):
    place = make(entry={"relay": {"enabled": False}})
    with place.client.connect("127.0.0.1", place.echo.port, 30) as s:
        say(s, b"before")
        tickets = place.exit()["tickets"]
        place.block()
        s.sendall(b"while it is blocked")
        wait_until(
            lambda: place.client.status()["resumes"]["relay_failures"] >= 3, 20 * SLOW,
            "entries that refuse",
        )
        assert place.exit()["homes_lost"] == 0
        assert 0 < place.exit()["tickets"] <= tickets
        place.unblock()
        s.settimeout(30 * SLOW)
        assert recv_exact(s, 19) == b"while it is blocked"
    assert len(place.ports) == 1


def test_a_blocked_home_that_left_the_config_keeps_its_streams(make):
    place = make()
    with place.client.connect("127.0.0.1", place.echo.port, 30) as s:
        say(s, b"before")
        place.block()
        place.client.sign_exits([place.entry], seq=2)  # controllers saw the block, too
        place.client.signal(signal.SIGHUP)
        wait_until(
            lambda: len(place.client.status()["exits"]) == 1, 10 * SLOW, "one exit"
        )
        say(s, b"through another")
        # The relayed carrier is reset: it is dialled again.
        assert place.net("rst client entry").flows >= 1
        say(s, b"through another, again")
    assert len(place.ports) == 1
    assert place.client.status()["resumes"]["relay"] >= 2


def test_a_home_that_died_behind_the_block_is_not_waited_for_on_a_relay(make):
    place = make()
    with place.client.connect("127.0.0.1", place.echo.port, 30) as s:
        say(s, b"before")
        place.block()
        say(s, b"through another")
        place.home.kill()
        wait_until(lambda: not place.exit()["via"], 20 * SLOW, "the relay to end")
    wait_until(lambda: place.client.in_use() == "entry", 10 * SLOW, "another exit in use")


def test_a_relay_that_dies_is_replaced_by_the_next_entry(lab, servers):
    ends = {"client": "10.78.0.1", "home": "10.78.0.2", "entry": "10.78.0.3",
            "third": "10.78.0.4"}
    with Net(ends) as net:
        place = Place(lab, servers, net)
        try:
            third = NetWorker(lab, "third", net, "third")
            workers = [place.home, place.entry, third]
            place.introduce(3, workers)
            place.client.sign_exits(workers, seq=2)
            place.client.signal(signal.SIGHUP)
            wait_until(
                lambda: len(place.client.status()["exits"]) == 3, 10 * SLOW, "three exits"
            )
            with place.client.connect("127.0.0.1", place.echo.port, 30) as s:
                say(s, b"before")
                place.block()
                say(s, b"through another")
                assert place.exit()["via"] == "entry"
                at = net("cut client entry").at
                say(s, b"through the third")
                pause = time.monotonic() - at
                assert place.exit()["via"] == "third"
            print(f"paused {pause * 1000:.0f} ms when the relay was blocked too")
            assert len(place.ports) == 1 and pause <= (1.5 + SLACK) * SLOW
        finally:
            place.close()
