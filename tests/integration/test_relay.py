"""A home that its client cannot reach is reached through another worker: the stream goes on at
the same destination socket, and the worker in between sees ciphertext alone."""

import contextlib
import hashlib
import re
import signal
import threading
import time

import pytest
from fleetlab import FleetLab
from harness import SLOW, recv_exact, socks_connect
from linklab import Net, NetClient, NetWorker, needs_net
from servers import Path, TcpServer, body_sha256, http_origin, tcp_echo, wait_until
from test_cut import Download

MARKER = b"a word that only the two ends may know 7d2f9c "


class Place:
    """Two workers that know each other, and a client whose way to each can be cut."""

    def __init__(self, lab, servers, carrier="tcp", client=None, **worker):
        self.lab, self.servers = lab, servers
        self.workers = [lab.worker(n, carrier=carrier, **worker) for n in ("home", "entry")]
        self.home, self.entry = self.workers
        self.introduce(2)
        self.paths = {w.name: Path(servers, ("127.0.0.1", w.port)) for w in self.workers}
        self.client = self.add_client("client", **(client or {}))
        self.socks = self.client.socks

    def add_client(self, name, **config):
        c = self.lab.client(name, self.workers, paths=self.paths, **config)
        wait_until(lambda: all(x["state"] == "healthy" for x in c.status()["exits"][:2]),
                   10 * SLOW, "two exits to be warm")
        return c

    def introduce(self, seq, members=None):
        for w in self.workers:
            self.lab.sign_worker_config(w, seq=seq, members=members or self.workers)
            mark = len(w.log)
            w.signal(signal.SIGHUP)
            w.wait_log(rf"new config in force.*sequence={seq}\b", after=mark)

    def block(self):
        """The home's address, for clients alone."""
        self.paths["home"].block()
        self.paths["home"].cut()

    def relayed(self):
        return self.entry.metric('sallyport_worker_relay_carriers{state="relayed"}')

    def wait_relayed(self, n=1):
        wait_until(lambda: self.relayed() >= n, 10 * SLOW, "a relayed carrier")


@pytest.fixture
def place(lab, servers):
    return Place(lab, servers)


def say(sock, data):
    sock.settimeout(20 * SLOW)
    sock.sendall(data)
    assert recv_exact(sock, len(data)) == data


class Bulk(threading.Thread):
    """Downloads n bytes and keeps their hash."""

    def __init__(self, socks, port, n):
        super().__init__(daemon=True)
        self.socks, self.port, self.n = socks, port, n
        self.bytes, self.hash, self.error = 0, hashlib.sha256(), None
        self.start()

    def run(self):
        try:
            with socks_connect(self.socks, "127.0.0.1", self.port) as s:
                s.settimeout(30 * SLOW)
                s.sendall(f"GET /bytes/{self.n} HTTP/1.1\r\n\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += recv_exact(s, 1)
                while self.bytes < self.n:
                    data = s.recv(1 << 16)
                    if not data:
                        raise EOFError(f"{self.bytes} of {self.n}")
                    self.hash.update(data)
                    self.bytes += len(data)
        except Exception as e:
            self.error = e

    def going(self, n=1):
        goal = self.bytes + n
        wait_until(lambda: self.bytes >= goal or self.error, 40 * SLOW, f"{n} bytes more")
        assert self.error is None, self.error

    def check(self):
        self.join(60 * SLOW)
        assert not self.is_alive() and self.error is None, (self.bytes, self.error)
        assert self.hash.hexdigest() == body_sha256(self.n)


@pytest.mark.parametrize("carrier", ["tcp", "tls"])
def test_a_stream_goes_on_through_another_worker_at_the_same_socket(lab, servers, carrier):
    place = Place(lab, servers, carrier)
    ports = []

    async def echo(reader, writer):
        ports.append(writer.get_extra_info("peername")[1])
        await tcp_echo(reader, writer)

    server = TcpServer(servers, echo)
    with socks_connect(place.socks, "127.0.0.1", server.port) as s:
        say(s, b"before")
        place.block()
        begin = time.monotonic()
        say(s, b"through another")
        took = time.monotonic() - begin
        assert place.relayed() >= 1
        place.paths["home"].unblock()
        say(s, b"after")
    assert len(ports) == 1 and server.connections == 1 and not server.errors
    assert took < 1.5 * SLOW
    assert place.home.metric("sallyport_worker_relayed_opened_total") >= 1
    assert place.entry.metric('sallyport_worker_trunks_made_total{by="this"}') == 1
    assert place.home.metric('sallyport_worker_trunks_made_total{by="other"}') == 1


def test_bytes_are_exact_while_the_home_is_blocked_and_back_again_and_again(place, origin):
    bulk = Bulk(place.socks, origin.port, 150_000_000)
    bulk.going(1_000_000)
    for _ in range(3):
        place.block()
        bulk.going(8_000_000)
        place.paths["home"].unblock()
        bulk.going(2_000_000)
    bulk.check()


def memory_has(pid, marker):
    """Whether the bytes stand anywhere in what the process has mapped."""
    found = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if not m or "[v" in line:
                continue
            at, end, tail = int(m[1], 16), int(m[2], 16), b""
            while at < end:
                n = min(end - at, 1 << 24)
                with contextlib.suppress(OSError):
                    mem.seek(at)
                    data = tail + mem.read(n)
                    found += data.count(marker)
                    tail = data[-len(marker):]
                at += n
    return found


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer maps terabytes")
def test_the_relay_never_has_a_byte_in_clear(place, servers):
    async def flood(reader, writer):
        await reader.readexactly(len(MARKER))
        while True:
            writer.write(MARKER * 1000)
            await writer.drain()

    server = TcpServer(servers, flood)
    with socks_connect(place.socks, "127.0.0.1", server.port) as s:
        s.settimeout(20 * SLOW)
        place.block()
        s.sendall(MARKER)
        assert recv_exact(s, 3_000_000).count(MARKER) > 60_000
        assert place.relayed() >= 1
        # More is on its way, in every buffer, since the application reads no more.
        passed = 'sallyport_worker_relay_bytes_total{direction="to_client"}'
        assert place.entry.metric(passed) > 2_500_000
        assert memory_has(place.client.pid, MARKER) > 0
        assert memory_has(place.home.exit_pid(), MARKER) > 0
        for _ in range(5):
            assert memory_has(place.entry.exit_pid(), MARKER) == 0
            recv_exact(s, 500_000)


def test_a_client_that_does_not_read_holds_up_no_other(place, servers, origin):
    other = place.add_client("other")
    echo = TcpServer(servers, tcp_echo)
    stuck = Bulk(place.socks, origin.port, 200_000_000)
    stuck.going(1_000_000)
    with socks_connect(other.socks, "127.0.0.1", echo.port) as s:
        say(s, b"x")
        place.block()
        say(s, b"y")
        place.wait_relayed(2)
        stuck.going(2_000_000)
        assert place.entry.metric('sallyport_worker_trunks{state="up"}') == 1
        place.client.signal(signal.SIGSTOP)
        try:
            times = []
            for _ in range(100):
                begin = time.monotonic()
                say(s, b"quick" * 100)
                times.append(time.monotonic() - begin)
            bulk = Bulk(other.socks, origin.port, 30_000_000)
            bulk.check()
        finally:
            place.client.signal(signal.SIGCONT)
        assert sorted(times)[50] < 0.1 * SLOW
    stuck.check()


@pytest.mark.parametrize("who", ["home", "entry"])
def test_a_crash_of_the_exit_loses_no_byte(place, origin, who):
    bulk = Bulk(place.socks, origin.port, 120_000_000)
    bulk.going(1_000_000)
    place.block()
    bulk.going(5_000_000)
    for _ in range(3):
        (place.home if who == "home" else place.entry).kill_exit()
        bulk.going(3_000_000)
    assert place.home.metric("sallyport_worker_relayed_opened_total") >= 1
    bulk.check()


def test_who_leaves_the_fleet_loses_its_trunk_and_comes_back_with_it(place, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        place.block()
        say(s, b"one")
        assert place.relayed() >= 1
        place.introduce(3, members=[place.home])
        for w in place.workers:
            wait_until(lambda w=w: w.metric('sallyport_worker_trunks{state="up"}') == 0,
                       10 * SLOW, f"{w.name} to lose its trunk")
        assert place.home.metric('sallyport_worker_trunks_ended_total{reason="member"}') == 1
        # The entry still knows the home, which takes its hello for a stranger's.
        wait_until(lambda: place.home.metric('sallyport_worker_strangers_total{reason="member"}') >= 1,
                   15 * SLOW, "its hello to be refused")
        assert place.relayed() == 0
        place.introduce(4)
        say(s, b"two")
        assert place.relayed() >= 1


class Named:
    """A worker whose address is a name."""

    def __init__(self, worker):
        self.worker = worker

    def exit_entry(self):
        entry = self.worker.exit_entry()
        entry["carriers"][0]["address"] = f"origin.example:{self.worker.port}"
        return entry


def test_a_member_may_be_known_by_name(place, servers):
    place.introduce(3, members=[Named(w) for w in place.workers])
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        say(s, b"one")
        place.block()
        say(s, b"two")
        assert place.relayed() >= 1
        assert place.home.metric('sallyport_worker_trunks_made_total{by="other"}') == 1


def test_without_members_an_entry_says_that_it_cannot(lab, servers):
    place = Place(lab, servers, relay={"enabled": False})
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        say(s, b"one")
        place.block()
        wait_until(
            lambda: place.entry.metric('sallyport_worker_relay_refused_total{reason="unreachable"}'),
            10 * SLOW, "a refusal")
        place.client.wait_log(r"relayed dial failed.*reason=unreachable")
        place.paths["home"].unblock()
        say(s, b"two")
    assert place.home.metric("sallyport_worker_trunk_members") == 0


def test_enrolled_workers_know_who_is_in_the_fleet(lab):
    fleet = FleetLab(lab, workers=("a", "b", "c")).start("a", "b")

    def members(name):
        with contextlib.suppress(OSError):  # between two agents
            return fleet[name].metrics().get("sallyport_worker_trunk_members")

    def knows(name, n):
        wait_until(lambda: members(name) == n, 15 * SLOW, f"{name} to know {n} others")

    knows("a", 1)  # the third is declared and has not enrolled
    knows("b", 1)
    fleet.start("c")
    for name in "abc":
        knows(name, 2)
    fleet.apply(nodes=[n for n in fleet.fleet["nodes"] if n["name"] != "b"])
    knows("a", 1)
    knows("c", 1)
    before = fleet["a"].kill_exit()
    wait_until(lambda: fleet["a"].exit_pid() not in (None, before), 10 * SLOW, "another exit")
    knows("a", 1)


# ---- over an emulated network ----


def rate(download, seconds):
    before, begin = download.bytes, time.monotonic()
    time.sleep(seconds)
    assert download.error is None, download.error
    return (download.bytes - before) / (time.monotonic() - begin)


@needs_net
def test_on_a_limited_link_the_relay_gives_four_fifths_of_the_direct_rate(lab, servers):
    ends = {"client": "10.77.0.1", "home": "10.77.0.2", "entry": "10.77.0.3"}
    with Net(ends) as net:
        for end in ("home", "entry"):
            net(f"link client {end} delay=25ms rate=100mbit queue=512k")
        net("link home entry delay=10ms")
        with net.inside("home"):
            origin = TcpServer(servers, http_origin, limit=1 << 18)
        workers = [NetWorker(lab, n, net, n) for n in ("home", "entry")]
        for w in workers:
            lab.sign_worker_config(w, seq=2, members=workers)
            w.signal(signal.SIGHUP)
            w.wait_log(r"new config in force.*sequence=2\b")
        client = NetClient(lab, "client", net, "client", workers)
        wait_until(lambda: all(x["state"] == "healthy" for x in client.status()["exits"]),
                   10 * SLOW, "two exits to be warm")
        here = type("Here", (), {"client": client, "origin": origin, "net": net})
        d = Download(here, 200_000_000)
        d.going(15_000_000)
        direct = max(rate(d, 2), rate(d, 2))
        answer = net("cut client home")
        pause = d.pause_after(answer.at, 1.0)
        d.going(10_000_000)
        relayed = max(rate(d, 2), rate(d, 2))
        print(f"direct {direct * 8e-6:.1f} Mbit/s, relayed {relayed * 8e-6:.1f}, "
              f"pause {pause:.2f} s")
        assert workers[1].metric('sallyport_worker_relay_carriers{state="relayed"}') >= 1
        assert relayed >= 0.8 * direct
        assert pause < 1.5 + 0.5 * SLOW
        d.check(120)
        origin.close()
