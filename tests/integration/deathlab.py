"""A fleet of two nodes in namespaces whose nodes die or are cut off, with health checkers and
the world outside at ends of their own, and streams whose two ends know what each other said.
Everything else is tests/chaos/netfleet.py's."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "chaos"))

# pylint: disable=wrong-import-position
from harness import SLOW, descendants, recv_exact, socks_connect
from netfleet import NetFleet
from servers import TcpServer, wait_until

EYES, WORLD = "10.77.0.3", "10.77.0.4"


class Run:
    """What NetFleet wants of the runner of scenarios."""

    def __init__(self, lab):
        self.lab, self.seed, self.kept = lab, 1, []

    def keep(self, what):
        self.kept.append(what)
        return what

    def close(self):
        while self.kept:
            self.kept.pop().close()


class World:
    """The destinations. Echo: the first 8 bytes of a stream are its tag; who dialled for it
    and all it said are kept by tag. A second port answers a stream with `answer` once as many
    dials have come as `mute` says: the ones before hear nothing."""

    def __init__(self, fleet, servers):
        self.heard = {}  # tag: {source address: bytes}
        self.hellos, self.mute = [], 1
        with fleet.net.inside("world"):
            self.echo = TcpServer(servers, self._echo, host=WORLD)
            self.quiet = TcpServer(servers, self._quiet, host=WORLD)

    async def _echo(self, reader, writer):
        source = writer.get_extra_info("peername")[0]
        tag = await reader.readexactly(8)
        said = self.heard.setdefault(struct.unpack(">Q", tag)[0], {})
        said[source] = b""
        writer.write(tag)
        while data := await reader.read(65536):
            said[source] += data
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _quiet(self, reader, writer):
        source = writer.get_extra_info("peername")[0]
        data = await reader.read(65536)
        if data.startswith(b"flood "):
            return await self._flood(writer, int(data[6:]))
        self.hellos.append((source, data))
        if len(self.hellos) > self.mute:
            writer.write(b"answer" + data)
        while await reader.read(65536):
            pass
        writer.close()

    @staticmethod
    async def _flood(writer, rate):
        """So many bytes a second."""
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(rate // 50))
                await writer.drain()
                await asyncio.sleep(0.02)

    def close(self):
        self.echo.close()
        self.quiet.close()


class Echo:
    """A stream to the world; `say` sends and checks what comes back."""

    def __init__(self, place, tag):
        self.tag, self.said = tag, b""
        self.sock = place.connect(place.world.echo.port)
        self.sock.settimeout(40 * SLOW)
        self.sock.sendall(struct.pack(">Q", tag))
        assert recv_exact(self.sock, 8) == struct.pack(">Q", tag)

    def send(self, data):
        self.said += data
        self.sock.sendall(data)
        return data

    def say(self, data):
        assert recv_exact(self.sock, len(self.send(data))) == data

    def ends(self, within):
        """When it was reset (time.monotonic()); fails if it lives on or ends in order."""
        self.sock.settimeout(within * SLOW)
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return time.monotonic()
        raise AssertionError("it ended in order")

    def close(self):
        self.sock.close()


class Place:
    def __init__(self, lab, servers, vantages=3):
        self.run = Run(lab)
        self.fleet = NetFleet(self.run, vantages=vantages, eyes="eyes", delay="5ms",
                              more={"eyes": EYES, "world": WORLD})
        self.net = self.fleet.net
        self.world = self.run.keep(World(self.fleet, servers))
        self.fleet.apply(probe={"controls": [f"http://{self.fleet.endpoint.split('/')[2]}/"]},
                         health={"hold_down": "1s", "hold_down_max": "1s"})
        self.fleet.all_healthy()
        self.clients = []
        self.client = None

    def new_client(self, name="client", **config):
        self.client = self.fleet.client(name, **config)
        self.clients.append(self.client)
        wait_until(lambda: sum(x["state"] == "healthy" for x in self.client.status()["exits"])
                   == 2, 15 * SLOW, "two exits to be warm")
        return self.client

    @property
    def home(self):
        return self.client.in_use().partition("/")[0]

    def moved(self, key, client=None):
        return (client or self.client).status()["sessions_moved"][key]

    def connect(self, port, client=None, timeout=10):
        with self.net.inside("client"):
            return socks_connect((client or self.client).socks, WORLD, port, timeout)

    def first_byte(self, client=None):
        """Seconds from the application's request to the first byte of a new stream."""
        began = time.monotonic()
        with self.connect(self.world.echo.port, client) as s:
            s.settimeout(20 * SLOW)
            s.sendall(struct.pack(">Q", 0))
            recv_exact(s, 8)
            return time.monotonic() - began

    def cut(self, node, *others, down=1):
        """The links of a node with these ends, or with all; silently."""
        for other in others or self.net.address:
            if other != node:
                self.net(f"link {node} {other} down={down}")

    def join(self, node, *others):
        self.cut(node, *others, down=0)

    def die(self, node):
        """All processes of a node, and before them its link. When that was."""
        self.cut(node)
        worker = self.fleet[node]
        at = time.monotonic()
        for pid in [worker.pid, *descendants(worker.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.process.wait(10)
        return at

    def given(self):
        """Sessions that the controller gave away, by evidence."""
        name = "sallyport_controller_sessions_given_total"
        return {k.partition('"')[2].rstrip('"}'): int(v)
                for k, v in self.fleet.controller.metrics().items() if k.startswith(name)}

    def close(self):
        self.run.close()


class Pulse(threading.Thread):
    """A stream that says something each `each_s` until it is over, so that its client has
    something under way all the time."""

    def __init__(self, place, client, tag, each_s=0.05):
        super().__init__(daemon=True)
        before, place.client = place.client, client
        self.echo, self.each_s = Echo(place, tag), each_s
        place.client = before
        self.over, self.error, self.ended = threading.Event(), None, None
        self.start()

    def run(self):
        n = 0
        try:
            while not self.over.wait(self.each_s):
                n += 1
                self.echo.say(struct.pack(">Q", n) * 16)
        except (OSError, EOFError, AssertionError) as e:
            self.error, self.ended = e, time.monotonic()

    def stop(self):
        self.over.set()
        self.join(60 * SLOW)
        assert not self.is_alive()


class Flows(threading.Thread):
    """New streams of a client, one begun each 50 ms until `end`; the times to their first
    bytes."""

    def __init__(self, place, client, end):
        super().__init__(daemon=True)
        self.place, self.client, self.end = place, client, end
        self.took, self.each, self.errors = [], [], []
        self.start()

    def run(self):
        while time.monotonic() < self.end:
            self.each.append(threading.Thread(target=self._one, daemon=True))
            self.each[-1].start()
            time.sleep(0.05)

    def _one(self):
        try:
            self.took.append(self.place.first_byte(self.client))
        except (OSError, EOFError, AssertionError) as e:
            self.errors.append(repr(e))

    def finish(self):
        self.join(60)
        for t in self.each:
            t.join(60)
        assert not self.errors, self.errors
        return sorted(self.took)


def client_hello():
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(*ends, server_hostname="example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return ends[1].read()
