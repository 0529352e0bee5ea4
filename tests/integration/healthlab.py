"""A fleet with health checkers, and what can go wrong with it: a site outside, whose way from
one worker can go dark; ways from vantages to workers that lose, refuse or talk nonsense,
told apart by vantage; and a client of the config endpoint that notes when which exit was
offered. Everything but those is a real program."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time

from fleetlab import FleetLab
from harness import SLOW
from servers import DnsServer, TcpServer, reset, wait_until
from signed import NodeKey

PROBE = {"interval": "1s", "deadline": "500ms"}
QUICK = {"hold_down": "1s", "hold_down_max": "1s", "slow_start": "1s", "cycle": "100ms"}


async def relay(reader, writer, up_reader, up_writer):
    """Both ways until either end is over; then both are."""
    async def pump(a, b):
        with contextlib.suppress(OSError):
            while data := await a.read(65536):
                b.write(data)
                await b.drain()

    ways = {asyncio.ensure_future(pump(reader, up_writer)),
            asyncio.ensure_future(pump(up_reader, writer))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ways:
            task.cancel()
        for w in (writer, up_writer):
            w.close()


class Site:
    """A TLS site at 127.0.0.1; and a second way in at 127.0.0.2, which can go dark: with
    `dark` "silent" nothing comes back from there, with "reset" all is cut at once."""

    def __init__(self, thread, folder):
        self.thread, self.dark, self.served = thread, "", 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        sock, other = self._sockets()
        self.port = sock.getsockname()[1]

        async def start():
            await asyncio.start_server(self._serve, sock=sock, ssl=self.context)
            await asyncio.start_server(self._relay, sock=other)

        thread.call(start())

    @staticmethod
    def _sockets():
        """One port at both addresses."""
        tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio: no delay
        for _ in range(20):
            sock, other = socket.socket(*tcp), socket.socket(*tcp)
            sock.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.2", sock.getsockname()[1]))
                return sock, other
            sock.close()
            other.close()
        raise RuntimeError("no port is free at both addresses")

    async def _serve(self, reader, writer):
        self.served += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    async def _relay(self, reader, writer):
        if self.dark == "reset":
            return reset(writer)
        if self.dark:
            await asyncio.sleep(5)
            return writer.close()
        await relay(reader, writer, *await asyncio.open_connection("127.0.0.1", self.port))


def socket_inode(local, remote):
    """Of the TCP socket of this machine with these ends, by sock_diag(7); None: gone."""
    ends = [struct.pack(">H", port) for _, port in (local, remote)]
    hosts = [socket.inet_aton(host) + bytes(12) for host, _ in (local, remote)]
    body = (struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xffffffff)
            + ends[0] + ends[1] + hosts[0] + hosts[1] + struct.pack("=III", 0, 0xffffffff,
                                                                     0xffffffff))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as s:  # NETLINK_SOCK_DIAG
        s.send(struct.pack("=IHHII", 16 + len(body), 20, 1, 0, 0) + body)
        answer = s.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    return struct.unpack_from("=I", answer, 16 + 68)[0] if kind == 20 else None


def owner(inode, pids):
    """Whose descriptor it is."""
    want = f"socket:[{inode}]"
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        for fd in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{fd}") == want:
                    return pid
    return None


class Way:
    """What a worker advertises: a relay in front of it. `fate(vantage)` says of each new
    connection what becomes of it: "" it passes, "lost" nothing comes back, "cut" it is reset,
    "nonsense" it is answered by something that is no worker."""

    def __init__(self, thread, port, who):
        self.target, self.who = port, who
        self.fate = lambda vantage: ""
        self.fates = {}
        self.server = TcpServer(thread, self._serve, limit=1 << 18)
        self.port = self.server.port

    async def _serve(self, reader, writer):
        vantage = self.who(writer.get_extra_info("peername"), ("127.0.0.1", self.port))
        fate = self.fate(vantage)
        self.fates[vantage, fate] = self.fates.get((vantage, fate), 0) + 1
        if fate == "cut":
            return reset(writer)
        if fate == "nonsense":
            writer.write(b"220 nothing to see here\r\n" * 8)
        if fate:
            while await reader.read(65536):
                pass
            return None
        try:
            up = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return reset(writer)
        return await relay(reader, writer, *up)


class Watch:
    """A client of the config endpoint that long-polls all the time and notes when it was
    told of which exits. `stop` it."""

    def __init__(self, fleet, user="alice", region=""):
        self.port, self.region = fleet.controller.endpoint, region
        self.headers = {"Authorization": f"Bearer {fleet.token(user)}",
                        "Sallyport-Device": NodeKey("device").public_text}
        self.told = []  # (time.monotonic(), names), as answers came
        self.errors, self.stopped = [], False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.until(lambda names: True, 10 * SLOW, "the first config")

    def _run(self):
        c, etag = None, None
        region = f"&region={self.region}" if self.region else ""
        while not self.stopped:
            try:
                c = c or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                etag = self._poll(c, f"/v1/config?wait=5{region}", etag)
            except (OSError, http.client.HTTPException) as e:
                c = None
                if self.stopped:
                    return
                self.errors.append(repr(e))
                time.sleep(0.1)

    def _poll(self, c, path, etag):
        c.request("GET", path, headers={**self.headers, **({"If-None-Match": etag}
                                                          if etag else {})})
        r = c.getresponse()
        body, now = r.read(), time.monotonic()
        if r.status == 200:
            exits = json.loads(body.split(b"\n", 1)[1])["exits"]
            with self.changed:
                self.told.append((now, [x["name"] for x in exits]))
                self.changed.notify_all()
            return r.headers["ETag"]
        if r.status != 304:
            self.errors.append(f"status {r.status}")
            time.sleep(0.2)
        return etag

    @property
    def names(self):
        return self.told[-1][1]

    def until(self, holds, timeout, what):
        """The instant at which an answer came for which `holds(names)`; the newest counts
        if it already does."""
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                if self.told and holds(self.told[-1][1]):
                    return self.told[-1][0]
                left = end - time.monotonic()
                assert left > 0, f"not within {timeout} s: {what}; told of {self.told[-1:]}"
                self.changed.wait(left)

    def until_out(self, name, timeout=30):
        return self.until(lambda names: name not in names, timeout * SLOW, f"{name} is out")

    def until_in(self, name, timeout=60):
        return self.until(lambda names: name in names, timeout * SLOW, f"{name} is offered")

    def stop(self):
        """What follows, such as a controller that ends, is no error of its."""
        self.stopped = True


class HealthFleet(FleetLab):
    """`workers`: as FleetLab's; `vantages`: (name, region). The internet of `detour` leads
    through the site's second way in; those of `ways` advertise a Way."""

    def __init__(self, lab, workers, vantages, detour="", ways=(), health=None, **fleet):
        folder = lab.dir / "site"
        folder.mkdir()
        lab.certificate(folder)
        self.site = Site(lab.servers, folder)
        names = DnsServer(lab.servers, {"exit.example": ["127.0.0.1"]})
        other = DnsServer(lab.servers, {"exit.example": ["127.0.0.2"]})
        self.ways, self.seen_from = {}, []
        super().__init__(lab, workers=workers)
        for name, (w, _) in self.workers.items():
            port = other.port if name == detour else names.port
            w.config["dns"]["servers"] = [f"127.0.0.1:{port}"]
            w.config_path.write_text(json.dumps(w.config))
        for node in self.fleet["nodes"]:
            node["egress"] = ["127.0.0.1"]
        for name in ways:
            self._put_way(name, self.workers[name][0])
        self.apply(health=health or QUICK, probe={
            "external": [f"https://exit.example:{self.site.port}/"],
            "controls": [f"http://127.0.0.1:{lab.cover_port}/204"]}, **fleet)
        self.start()
        probe = {**PROBE, "ca_file": str(folder / "cert.pem")}
        self.seen_from = self.vantages(*vantages, probe=probe)
        wait_until(lambda: self.count("healthy") == len(self.workers), 20 * SLOW,
                   "all are healthy")

    def _put_way(self, name, worker):
        way = self.ways[name] = Way(self.servers, worker.port, self.whose)
        self.entry(name)["carriers"][0]["address"] = f"127.0.0.1:{way.port}"

    def entry(self, name):
        """Of the fleet file; `apply` takes what is changed in it."""
        return next(n for n in self.fleet["nodes"] if n["name"] == name)

    def whose(self, local, remote):
        """The name of the vantage that has this connection; None: none of them."""
        by_pid = {v.pid: v.vantage for v in self.seen_from}
        inode = socket_inode(local, remote)
        return by_pid.get(owner(inode, by_pid)) if inode else None

    # ---- what the controller says ----

    def api(self, path):
        c = http.client.HTTPConnection("unix", timeout=5 * SLOW)
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(str(self.controller.socket))
        c.request("GET", path)
        answer = json.loads(c.getresponse().read())
        c.close()
        return answer

    def health(self):
        return self.api("/v1/health")

    def node(self, name):
        return next(n for n in self.health()["nodes"] if n["name"] == f"{name}/0")

    def vantage(self, name):
        return next(v for v in self.health()["vantages"] if v["name"] == name)

    def count(self, state):
        return sum(n["health"] == state for n in self.health()["nodes"])

    def events(self, kind, about=""):
        return [e["text"] for e in self.api("/v1/events?limit=1000")["events"]
                if e["kind"] == kind and (not about or e["about"] == about)]

    def until_back(self, name):
        wait_until(lambda: self.node(name)["health"] == "healthy", 60 * SLOW,
                   f"{name} is back", step=0.05)
