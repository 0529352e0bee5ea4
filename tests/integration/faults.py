"""What the tests of faults have in common: a disk that can be filled up, a stream that must
not break, and whether a whole fleet stands at one place."""

import ctypes
import functools
import os
import time

import pytest
from fleetlab import FleetLab
from harness import LIBC, SLOW, Lab, http_get, recv_exact, socks_connect
from servers import TcpServer, tcp_echo, wait_until

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2


@functools.cache
def own_mounts():
    """What is mounted from now on only this test run and what it starts sees; it ends with
    it. False: not allowed here."""
    return not (LIBC.unshare(CLONE_NEWNS) or LIBC.mount(
            None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))


class SmallDisk:
    """`kb` kilobytes on `folder`."""

    def __init__(self, folder, kb=1024, mode=0o700):
        if not own_mounts():
            pytest.skip("no mounts of one's own here")
        folder.mkdir(exist_ok=True)
        self.folder, self.ballast = folder, folder / "ballast"
        option = f"size={kb}k,mode={mode:o}".encode()
        if LIBC.mount(b"small", bytes(folder), b"tmpfs", ctypes.c_ulong(0), option):
            pytest.skip("tmpfs cannot be mounted here")

    def fill(self):
        """Not a byte more than the rest of the last page of each file."""
        fd = os.open(self.ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            while os.write(fd, bytes(4096)):
                pass
        except OSError:
            pass
        os.close(fd)

    def empty(self):
        self.ballast.unlink()

    def close(self):
        LIBC.umount2(bytes(self.folder), MNT_DETACH)


@pytest.fixture
def disks():
    """Makes small disks, and takes them away at the end."""
    made = []

    def make(folder, **kw):
        made.append(SmallDisk(folder, **kw))
        return made[-1]

    yield make
    for d in made:
        d.close()


class Stream:
    """A stream that must not break."""

    def __init__(self, client, servers):
        self.server = TcpServer(servers, tcp_echo)
        self.sock = socks_connect(client.socks, "127.0.0.1", self.server.port)
        self.sock.settimeout(15 * SLOW)

    def holds(self):
        self.sock.sendall(b"ping")
        return recv_exact(self.sock, 4) == b"ping"

    def ends_within(self, seconds):
        """Seconds until it ends."""
        began = time.monotonic()
        self.sock.settimeout(seconds * SLOW)
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - began


class FaultyFleet(FleetLab):
    """A fleet with a client and a stream through it that no fault may break."""

    def __init__(self, lab, workers=("a", "b"), **kw):
        own_mounts()
        super().__init__(lab, workers=workers, **kw)
        self.start()
        self.user = self.client()
        self.stream = Stream(self.user, lab.servers)
        self.turn = 0

    def position(self):
        return self.json("status")["position"]

    def applied(self):
        """Where each worker's agent says that it stands; None: no link."""
        return [n["applied"] if n.get("link") == "up" else None
                for n in self.json("get", "nodes")["nodes"]]

    def at_one(self):
        """The controller, Redis and all workers have one position and hash. It."""
        def same():
            status = self.json("status")
            return status["synced"] and all(a == status["position"] for a in self.applied())

        wait_until(same, 30 * SLOW, "the fleet at one place")
        return self.position()

    def change(self, check=True):
        """Something that every worker hears of."""
        self.turn += 1
        return self.apply(tiers=[{"name": "standard", "max_streams": 1000 + self.turn}],
                          check=check)

    def well(self):
        """Changes are made, reach all, and nothing broke."""
        before = self.at_one()
        assert self.stream.holds()
        self.change()
        now = self.at_one()
        assert (now["epoch"], now["sequence"]) == (before["epoch"], before["sequence"] + 1)
        assert self.stream.holds()
        assert len(self.applied()) == len(self.workers)
        return now

    def untouched(self):
        """While something is broken: programs live, traffic flows."""
        assert self.stream.holds()
        for p in (self.controller, *(w for w, _ in self.workers.values())):
            assert p.alive(), p.name
        assert http_get(self.controller.admin, "/livez")[0] == 200
        for w, _ in self.workers.values():
            assert w.ready()


def module_place(request, servers, dns, origin, make):
    """A place for all tests of a file."""
    place, failed = Lab(servers, dns, origin.port), True
    try:
        yield make(place)
        failed = any(request.node.nodeid in x
                     for x in getattr(request.session, "stash_failed", ()))
    finally:
        place.close(failed)
