"""death: everything of a node is killed and its link goes down; or only the link, for a
while."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

from frame import scenario
from harness import _socks_request, descendants
from history import percentile, read
from netfleet import HUB, Answerer, NetFleet
from scene_crash import CLIENT, mix
from scene_cut import told
from servers import wait_until
from traffic import Traffic

TRIES_S = (0.0, 1.0, 2.0)  # when a look-up is asked, as stub resolvers do
LOOKUP_S = 4.0


class Lookups(threading.Thread):
    """Questions to a name server through the client's UDP, so many a second."""

    def __init__(self, fleet, client, server, each_s=0.02):
        super().__init__(daemon=True)
        self.each_s, self.over = each_s, threading.Event()
        self.asked, self.answered = {}, {}
        with fleet.net.inside("client"):
            self.control = socket.create_connection(("127.0.0.1", client.socks), 10)
            _, port = _socks_request(self.control, 3, "0.0.0.0", 0)
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.connect(("127.0.0.1", port))
        self.sock.settimeout(0.005)
        self.head = b"\0\0\0\1" + socket.inet_aton(server[0]) + struct.pack(">H", server[1])
        self.start()

    def run(self):
        due, number = [], 0
        at = time.monotonic()
        while not self.over.is_set() or due:
            now = time.monotonic()
            if now >= at and not self.over.is_set():
                number += 1
                at += self.each_s
                self.asked[number] = now
                due += [(now + t, number) for t in TRIES_S]
            due.sort()
            while due and due[0][0] <= now:
                n = due.pop(0)[1]
                if n not in self.answered:
                    with contextlib.suppress(OSError):
                        self.sock.send(self.head + struct.pack("<I", n) + b"who is example?")
            with contextlib.suppress(OSError):
                while data := self.sock.recv(2048):
                    n = struct.unpack("<I", data[10:14])[0]
                    self.answered.setdefault(n, time.monotonic())

    def finish(self):
        """(how many were asked, answered; the times of answers in ms, sorted)."""
        self.over.set()
        self.join(20)
        wait_until(lambda: len(self.answered) == len(self.asked) or time.monotonic()
                   > max(self.asked.values()) + LOOKUP_S, 10, "the last look-ups")
        took = sorted((t - self.asked[n]) * 1000 for n, t in self.answered.items())
        return len(self.asked), len(took), took

    def close(self):
        self.over.set()
        self.join(20)
        self.sock.close()
        self.control.close()


def link(fleet, node, down):
    """The node's link to everybody."""
    for other in fleet.net.address:
        if other != node:
            fleet.net(f"path {node} {other} down={down}")
            fleet.net(f"path {other} {node} down={down}")


def kill_all(worker):
    """Every process of the node at once."""
    for pid in [worker.pid, *descendants(worker.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Death:
    def __init__(self, run, name, nodes=("a", "b")):
        self.run = run
        self.fleet = NetFleet(run, nodes=nodes, vantages=2, name=name)
        self.client = self.fleet.client(**CLIENT)
        self.fleet.all_healthy()
        self.traffic = run.keep(Traffic(run.lab, run.seed, self.fleet.net, "hub", HUB,
                                        name=f"traffic-{name}"))
        self.home = self.client.in_use().partition("/")[0]

    def start(self, *kinds):
        return self.traffic.start(self.client, *kinds, at="client")

    def watch(self, seconds, text):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            told(self.run, self.traffic, text)
            time.sleep(0.1)


@scenario("death", seconds=60, short=8)
def death(run):
    """all of a node is killed and its link down; a link that is down for a while"""
    node_dies(run)
    link_comes_back(run)


def node_dies(run):
    d = Death(run, "dies")
    server = run.keep(Answerer(d.fleet.net, "hub", HUB))
    old = d.start(f"echo={run.size(200, 20)}", f"idle={run.size(50, 5)}")
    d.traffic.wait_live(old.flows)
    lookups = run.keep(Lookups(d.fleet, d.client, server.address))
    d.watch(run.size(3, 1), "before the death")
    at = time.monotonic()
    link(d.fleet, d.home, 1)  # first: no FIN of a killed process comes through any more
    kill_all(d.fleet[d.home])
    d.start(f"tiny={run.size(200, 20)}", f"half={run.size(20, 2)}")
    d.watch(run.size(12, 4.5), f"{d.home} is dead")
    asked, answered, took = lookups.finish()
    for a in d.traffic.apps:
        a.say("stop")
    d.watch(run.size(3, 1), "streams come to their ends")
    d.traffic.stop(10)
    v = d.traffic.finish(may_redo=True)
    new = read(d.traffic.dir / "app1")
    firsts = sorted((e["first_ms"], 1) for e in new if e["e"] == "end" and e["first_ms"])
    begun = {e["s"]: e["t"] for e in new if e["e"] == "open"}
    early = sorted((e["first_ms"], 1) for e in new if e["e"] == "end" and e["first_ms"]
                   and begun[e["s"]] < at + 2)
    run.distribution("first byte of a new stream, all", firsts)
    p99 = run.distribution("first byte of a new stream, of the first 2 s", early)
    run.measure("first byte of a new stream after the death, p99", p99, "ms", 1000.0,
                timing=True)
    resets = sorted(((e["t"] - at) * 1000, 1) for e in read(d.traffic.dir / "app0")
                    if e["e"] == "end" and e["how"] == "failed")
    run.distribution("death to reset of an established stream", resets)
    run.measure("established streams that were reset", len(resets), "", old.flows * 0.95, ">=")
    run.measure("death to their reset, last", resets[-1][0] if resets else None, "ms", 4000.0,
                timing=True)
    run.distribution("look-ups", [(ms, 1) for ms in took])
    run.measure("look-ups over the death", asked, "")
    run.measure("of which answered", round(100 * answered / asked, 2), "%", 99.9, ">=",
                note=f"p99 {percentile([(ms, 1) for ms in took], 99):.0f} ms")
    judge(run, v, old_failed=True)
    d.client.stop()


def judge(run, v, old_failed=False, resets=True):
    """Bytes are right whatever died; which resets are faults depends on who died."""
    wrong = v.count("lost", "doubled", "reordered", "wrong", "foreign", "short", "false-end",
                    "two-homes")
    run.measure("bytes lost, doubled or wrong; two homes: streams", wrong, "", 0, "==")
    ended = [f for f in v.faults if f.kind in ("reset", "refused", "nobody", "unfinished")
             and (f.stream >= 1 << 20 or not old_failed)]
    if resets:
        run.measure("new streams reset, refused or hanging" if old_failed else
                    "streams reset, refused or hanging", len(ended), "", 0, "==")
    run.facts.setdefault("faults", []).extend(v.told())


def link_comes_back(run):
    """Nobody can attest a death: the controller is away. Streams wait for their node."""
    d = Death(run, "returns")
    app = d.start(*mix(run.size(0.3, 0.05), down=20000, up=20000, both=20000))
    d.traffic.wait_live(app.flows * 0.7)
    d.fleet.controller.kill()
    link(d.fleet, d.home, 1)
    d.watch(run.size(15, 2), f"the link of {d.home} is down")
    d.traffic.mark()
    link(d.fleet, d.home, 0)
    d.watch(run.size(5, 1), f"the link of {d.home} is back")
    d.traffic.calm()
    first = run.distribution("first byte after the link is back",
                             d.traffic.distribution("first"))
    run.measure("link back to first byte, p99", first, "ms")
    d.traffic.stop(60)
    judge(run, d.traffic.finish(may_redo=True))
    d.client.stop()
