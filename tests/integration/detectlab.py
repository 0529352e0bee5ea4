"""What `make detect` and test_detect.py measure: how long a fault of a node takes to be in
the config endpoint's answers, and whether losses, a vantage that lies and one that is cut
off ever take out a node that lives."""

import contextlib
import random
import signal
import socket
import time

from harness import SLOW
from healthlab import HealthFleet, Watch
from servers import TcpServer, http_origin, wait_until

WORKERS = [("a", "eu"), ("b", "eu"), ("c", "us"), ("d", "us"), ("e", "as"), ("f", "as")]
VANTAGES = [("v1", "eu"), ("v2", "us"), ("v3", "as")]


def percentile(values, percent):
    """By nearest rank: of 20 values, the 99th is the largest."""
    values = sorted(values)
    return values[max(0, -(-len(values) * percent // 100) - 1)]


# ---- faults ----


class Fault:
    """Of the node `name`, which then falls from `rung`."""

    def __init__(self, what, name, rung, hurt, mend):
        self.what, self.name, self.rung, self.hurt, self.mend = what, name, rung, hurt, mend
        self.took = []


class Detection:
    """A fleet whose nodes are hurt one by one, and a client that waits for it."""

    def __init__(self, lab):
        self.fleet = fleet = HealthFleet(lab, WORKERS, VANTAGES, detour="e", ways=("d",))
        self.watch = Watch(fleet)
        a, c = fleet["a"], fleet["c"]

        def stop():
            c.signal(signal.SIGSTOP)
            socket.create_connection(("127.0.0.1", c.port), 1).close()  # a TCP check: up

        def fate(word):
            fleet.ways["d"].fate = lambda vantage: word

        def dark(word):
            fleet.site.dark = word

        self.faults = [
            Fault("killed", "a", "connect", a.kill, a.start),
            Fault("hung, port open", "c", "handshake", stop, lambda: c.signal(signal.SIGCONT)),
            Fault("nonsense on its port", "d", "handshake", lambda: fate("nonsense"),
                  lambda: fate("")),
            Fault("internet gone, silent", "e", "external", lambda: dark("silent"),
                  lambda: dark("")),
            Fault("internet gone, reset", "e", "external", lambda: dark("reset"),
                  lambda: dark("")),
        ]

    def run(self, fault):
        """Seconds from the fault to the client's answer without the node."""
        fleet = self.fleet
        wait_until(lambda: fleet.count("healthy") == len(WORKERS), 60 * SLOW,
                   "all are healthy", step=0.05)
        self.watch.until_in(fault.name)
        time.sleep(random.random())  # at any place of an interval
        before, began = len(self.watch.told), time.monotonic()
        fault.hurt()
        try:
            took = self.watch.until_out(fault.name) - began
        finally:
            fault.mend()
        down = fleet.events("node-down", f"{fault.name}/0")
        assert any(f"rung {fault.rung}" in text for text in down), down
        for _, names in self.watch.told[before:]:  # nobody else goes
            assert {n for n, _ in WORKERS} - set(names) <= {fault.name}, names
        fault.took.append(took)
        return took


# ---- living with losses, a liar and a cut ----


class Trouble:
    """5 % of all carriers to nodes are lost; v2 lies about a third of the nodes, others all
    the time; v3 is cut off from nodes and from its control most of the time. `step_s`: after
    that long on the average one of them does something else."""

    def __init__(self, lab, seed, loss=0.05, step_s=10.0):
        self.random, self.loss, self.step_s = random.Random(seed), loss, step_s
        self.lied_about, self.cut = (), ""
        self.control = TcpServer(lab.servers, self._control, limit=1 << 18)
        names = [n for n, _ in WORKERS]
        self.fleet = HealthFleet(lab, WORKERS, VANTAGES, ways=names)
        v3 = self.fleet.seen_from[2]
        v3.config["controls"] = [f"http://127.0.0.1:{self.control.port}/204"]
        v3.write_config()
        v3.signal(signal.SIGHUP)
        wait_until(lambda: self.control.connections, 10 * SLOW, "v3 has its own control")
        self.watch = Watch(self.fleet)
        for name, way in self.fleet.ways.items():
            way.fates.clear()
            way.fate = lambda vantage, name=name: self._fate(name, vantage)

    async def _control(self, reader, writer):
        if self.cut:
            return writer.transport.abort()
        return await http_origin(reader, writer)

    def _fate(self, name, vantage):
        if vantage == "v3" and self.cut:
            return self.cut
        if vantage == "v2" and name in self.lied_about:
            return "cut"
        return "lost" if self.random.random() < self.loss else ""

    def _lie(self):
        names = [n for n, _ in WORKERS]
        return tuple(self.random.sample(names, len(names) // 3))

    def run(self, seconds, progress=lambda left: None):
        """Lives with it for so long; what was seen."""
        end = time.monotonic() + seconds
        until = {"lie": 0.0, "cut": 0.0}
        cut_s = 0.0
        while (now := time.monotonic()) < end:
            if now >= until["lie"]:
                self.lied_about = self._lie()
                until["lie"] = now + self.step_s * self.random.uniform(0.3, 2)
            if now >= until["cut"]:
                self.cut = "" if self.cut else self.random.choice(["cut", "lost"])
                until["cut"] = now + self.step_s * (self.random.uniform(1, 6) if self.cut
                                                    else 0.5)
            began = now
            time.sleep(max(0, min(*until.values(), end, now + 5) - now))
            cut_s += (time.monotonic() - began) * bool(self.cut)
            progress(end - time.monotonic())
        return {**self.seen(), "cut_off_s": round(cut_s, 1)}

    def seen(self):
        all_names = {n for n, _ in WORKERS}
        fates = {}
        for way in self.fleet.ways.values():
            for (vantage, fate), n in way.fates.items():
                of = fates.setdefault(vantage or "?", {})
                of[fate or "passed"] = of.get(fate or "passed", 0) + n
        metrics = self.fleet.controller.metrics()
        return {
            "demotions": int(sum(v for k, v in metrics.items()
                                 if k.startswith("sallyport_controller_demotions_total{"))),
            "node_down_events": self.fleet.events("node-down"),
            "answers_without_a_node": [sorted(all_names - set(names))
                                       for _, names in self.watch.told
                                       if all_names - set(names)],
            "answers": len(self.watch.told), "endpoint_errors": self.watch.errors,
            "vantage_events": {kind: len(self.fleet.events(f"vantage-{kind}"))
                               for kind in ("cut-off", "astray", "silent", "votes")},
            "carriers": fates}

    def find_a_death(self):
        """Seconds until a node that really dies is out, amidst all that."""
        name = next(n for n, _ in WORKERS if n not in self.lied_about)
        began = time.monotonic()
        self.fleet[name].kill()
        return self.watch.until_out(name, 60) - began


@contextlib.contextmanager
def closing(made):
    """Stops the watching client of what was made."""
    try:
        yield made
    finally:
        made.watch.stop()
