"""blocked: the way from the client to its home goes dark, for the client alone; another
worker relays to the home meanwhile, and sees nothing of what it relays."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

from frame import scenario
from harness import SLOW, SocksError
from linklab import Net, NetClient, NetWorker
from netfleet import CLIENT as CLIENT_ADDRESS
from netfleet import HUB
from scene_crash import CLIENT, ROOMY, mix
from servers import wait_until
from scene_cut import told
from traffic import Traffic

MBIT = 100
PAGE = 4096


class Members:
    """Two workers that know each other, 10 ms and 100 Mbit/s from the client; destinations
    at a fourth place. No control plane."""

    def __init__(self, run, name="members"):
        nodes = {"a": "10.77.0.10", "b": "10.77.0.11"}
        self.net = run.keep(Net({"client": CLIENT_ADDRESS, "hub": HUB, **nodes},
                                seed=run.seed))
        for n in nodes:
            self.net(f"link client {n} delay=10ms rate={MBIT}mbit queue=512k")
        self.workers = {n: NetWorker(run.lab, n, self.net, n, policy=["allow 10.77.0.0/24"],
                                     **ROOMY) for n in nodes}
        for w in self.workers.values():
            run.lab.sign_worker_config(w, seq=2, policy=["allow 10.77.0.0/24"],
                                       members=list(self.workers.values()))
            mark = len(w.log)
            w.signal(signal.SIGHUP)
            w.wait_log(r"new config in force.*sequence=2", after=mark)
        self.client = NetClient(run.lab, "client", self.net, "client",
                                list(self.workers.values()), **CLIENT)
        wait_until(lambda: all(x["state"] == "healthy"
                               for x in self.client.status()["exits"][:2]), 10 * SLOW,
                   "two exits to be warm")

    def __getitem__(self, name):
        return self.workers[name]


class Marker(threading.Thread):
    """A stream that carries one text, up and back again, over and over."""

    def __init__(self, fleet, client):
        super().__init__(daemon=True)
        self.text = b"marker-" + os.urandom(24).hex().encode() + b"."
        self.over, self.rounds, self.error = threading.Event(), 0, None
        with fleet.net.inside("hub"):
            self.server = socket.create_server((HUB, 0))
        threading.Thread(target=self._echo, daemon=True).start()
        self.sock = client.connect(HUB, self.server.getsockname()[1])
        self.sock.settimeout(20 * SLOW)
        self.start()

    def _echo(self):
        with contextlib.suppress(OSError):
            conn, _ = self.server.accept()
            while data := conn.recv(65536):
                conn.sendall(data)
            conn.close()

    def run(self):
        try:
            while not self.over.is_set():
                self.sock.sendall(self.text * 50)
                need = len(self.text) * 50
                while need:
                    data = self.sock.recv(need)
                    if not data:
                        raise EOFError("its end")
                    need -= len(data)
                self.rounds += 1
                time.sleep(0.005)
        except (OSError, EOFError, SocksError) as e:
            self.error = e

    def close(self):
        self.over.set()
        self.join(20 * SLOW)
        self.sock.close()
        self.server.close()


def in_memory(pid, text):
    """How often the text stands in the resident memory of a process."""
    found = 0
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, \
            open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap, \
            open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("r") or "[v" in line:  # vvar, vdso, vsyscall
                continue
            a, b = (int(x, 16) for x in span.split("-"))
            found += _in_span(mem, pagemap, a, b, text)
    return found


def _in_span(mem, pagemap, a, b, text):
    """Runs of pages that are there, each as one piece."""
    pagemap.seek(a // PAGE * 8)
    words = pagemap.read((b - a) // PAGE * 8)
    there = [w >> 62 != 0 for w in struct.unpack(f"={len(words) // 8}Q", words)] + [False]
    found, begin = 0, None
    for i, here in enumerate(there):
        if here and begin is None:
            begin = i
        elif not here and begin is not None:
            with contextlib.suppress(OSError, ValueError):
                mem.seek(a + begin * PAGE)
                found += mem.read((i - begin) * PAGE).count(text)
            begin = None
    return found


def throughput(run, traffic, seconds, text):
    """Mbit/s that come to all applications, which share the link, over so many seconds."""
    def came():
        return sum(a.stat["rx"] for a in traffic.apps), time.monotonic()

    rx, at = came()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told(run, traffic, text)
        time.sleep(0.1)
    more, now = came()
    return (more - rx) * 8e-6 / (now - at)


def relayed(fleet, name):
    """Carriers that it relays now."""
    return fleet[name].metric('sallyport_worker_relay_carriers{state="relayed"}')


@scenario("blocked", seconds=40, short=5)
def blocked(run):
    """the home is blackholed for the client alone: another worker relays"""
    fleet = Members(run)
    client = fleet.client
    traffic = run.keep(Traffic(run.lab, run.seed, fleet.net, "hub", HUB))
    home = client.in_use()
    entry = next(n for n in fleet.workers if n != home)
    steady = traffic.start(client, f"echo={run.size(100, 20)}", at="client")
    traffic.start(client, *mix(run.size(0.2, 0.05), down=5000, up=5000, both=5000),
                  at="client")
    marker = run.keep(Marker(fleet, client))
    traffic.wait_live(steady.flows)
    times = run.size(8, 1)
    for i in range(times):
        time.sleep(1 + run.rng.random())
        steady.mark(fleet.net(f"cut client {home}").at)
        end = time.monotonic() + 2.5 * SLOW
        while time.monotonic() < end:
            told(run, traffic, f"{home} is dark, {entry} relays")
            time.sleep(0.1)
        steady.calm()
        if i < times - 1:
            fleet.net("unblock all")
            time.sleep(run.size(3, 1))
    steady.report()
    dist = [tuple(x) for x in steady.reports[-1]["pause"]]
    p99 = run.distribution("longest pause of requests and answers", dist)
    run.measure("blackhole to going on through another worker, p99", p99, "ms", 1500.0,
                timing=True)
    run.claim("the other worker relays", relayed(fleet, entry) > 0)
    rate(run, client, traffic)
    rounds = marker.rounds
    time.sleep(0.5)
    run.claim("the marker travels meanwhile", marker.rounds > rounds, str(marker.error))
    if SLOW == 1:  # a sanitizer's shadow is too large to look through
        look_for(run, fleet[entry], client, marker)
    fleet.net("unblock all")
    traffic.stop()
    run.verdict(traffic.finish())
    run.claim("the marker's stream goes on", not marker.error, str(marker.error))
    client.stop()


def look_for(run, relay, client, marker):
    """In every resident page of the relay; and, so that it would be found, of the client."""
    run.measure("marker in the relay's memory", in_memory(relay.exit_pid(), marker.text),
                "", 0, "==")
    run.measure("marker in the client's memory", in_memory(client.pid, marker.text), "", 1,
                ">=", note="that it would be found")


def rate(run, client, traffic):
    """Bulk through the relay, beside the other streams."""
    traffic.start(client, "load=4", at="client")
    seconds = run.size(8.0, 1.5)
    time.sleep(run.size(3, 1))
    through = throughput(run, traffic, seconds, "throughput through the relay")
    run.measure("throughput through the relay", round(through, 1), "Mbit/s")
    run.measure("of the link", round(100 * through / MBIT), "%", 80, ">=", timing=True)
