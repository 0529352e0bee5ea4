"""What all scenarios share: their place, the choice of events from the seed, progress lines,
measured values beside their targets, and the watch over a worker's takeovers. Not here: the
command (chaos.py), the scenarios (scene_*.py)."""

import os
import random
import re
import sys
import time
from dataclasses import asdict, dataclass

import history

SCENARIOS = {}


def scenario(name, seconds, short):
    """Registers a function of a Run; seconds: of a full run; short: as a test."""
    def put(function):
        function.name, function.seconds, function.short = name, seconds, short
        SCENARIOS[name] = function
        return function
    return put


@dataclass
class Measure:
    what: str
    value: float
    unit: str
    target: float = None
    sense: str = "<="  # value SENSE target
    note: str = ""

    def ok(self):
        if self.target is None:
            return True
        if self.value is None:
            return False
        return {"<=": self.value <= self.target, ">=": self.value >= self.target,
                "==": self.value == self.target}[self.sense]


class Progress:
    """One line: rewritten on a terminal, else told each 10 s."""

    def __init__(self, name, out=sys.stdout):
        self.name, self.out, self.began, self.told = name, out, time.monotonic(), 0.0
        self.tty = out.isatty()

    def __call__(self, text, now=False):
        t = time.monotonic()
        if not now and t - self.told < (0.5 if self.tty else 10):
            return
        self.told = t
        line = f"{self.name}: {t - self.began:4.0f} s  {text}"
        self.out.write(f"\r\033[K{line}" if self.tty else line + "\n")
        self.out.flush()

    def end(self):
        if self.tty:
            self.out.write("\r\033[K")


class Quiet:
    def __call__(self, text, now=False):
        pass

    def end(self):
        pass


class Run:
    """One run of one scenario. `small`: a few seconds, few streams, no targets of time."""

    def __init__(self, name, lab, seed, seconds, small=False, progress=None):
        self.name, self.lab, self.seed, self.seconds, self.small = name, lab, seed, seconds, small
        self.rng = random.Random(f"{name}-{seed}")
        self.progress = progress or Quiet()
        self.measures, self.claims, self.distributions, self.facts = [], [], {}, {}
        self.began = time.monotonic()
        self.load = [os.getloadavg()[0]]
        self.closing = []

    def size(self, full, small):
        return small if self.small else full

    def left(self):
        return self.began + self.seconds - time.monotonic()

    def keep(self, thing):
        """It is closed at the end of the run."""
        self.closing.append(thing)
        return thing

    def measure(self, what, value, unit, target=None, sense="<=", note="", timing=False):
        """timing: of no weight in a small run, whose machine is busy with other tests."""
        if timing and self.small:
            note, target = f"target {sense} {target} in a full run", None
        self.measures.append(Measure(what, value, unit, target, sense, note))
        return value

    def claim(self, text, holds, detail=""):
        """An invariant: told only if it is broken."""
        if not holds:
            self.claims.append(f"{text}: {detail}" if detail else text)

    def distribution(self, what, dist):
        """Keeps [(ms, count)] for the report; its p99."""
        if dist:
            self.distributions[what] = {
                "count": sum(n for _, n in dist), "max_ms": dist[-1][0],
                **{f"p{p}_ms": history.percentile(dist, p) for p in (50, 90, 99, 99.9)},
                "values_ms": dist}
        return history.percentile(dist, 99)

    def verdict(self, v, lossless=True):
        """The checker's findings become measures."""
        self.measure("verified", round(v.verified / 1e9, 3), "GB")
        self.measure("streams checked", v.streams, "")
        wrong = v.count("lost", "doubled", "reordered", "wrong", "foreign", "short", "false-end")
        self.measure("bytes lost, doubled or wrong: streams", wrong, "", 0, "==")
        if lossless:
            self.measure("resets, refusals", v.count("reset", "refused", "nobody"), "", 0, "==")
            self.measure("streams that hang", v.count("unfinished"), "", 0, "==")
        self.measure("streams with two homes", v.count("two-homes"), "", 0, "==")
        self.facts["faults"] = v.told()
        self.facts["kinds"] = v.kinds
        self.facts["redone"], self.facts["empty_connections"] = v.redone, v.empty
        for kind, values in sorted(v.stalls_ms.items()):
            self.distribution(f"longest stall of a stream, {kind}",
                              sorted((ms, 1) for ms in values))

    def ok(self):
        return not self.claims and all(m.ok() for m in self.measures)

    def close(self):
        self.load.append(os.getloadavg()[0])
        self.progress.end()
        for thing in reversed(self.closing):
            thing.close()

    def told(self):
        return {"ok": self.ok(), "seed": self.seed, "seconds": round(
                    time.monotonic() - self.began, 1), "load": self.load,
                "measures": [{**asdict(m), "ok": m.ok()} for m in self.measures],
                "broken": self.claims, "distributions": self.distributions, **self.facts}


class Takeovers:
    """What each new exit of a worker said of what it took over; reads the log once."""

    def __init__(self, worker):
        self.worker, self.at, self.rest, self.rows = worker, 0, "", []

    def read(self):
        with open(self.worker.log_path, encoding="utf-8", errors="replace") as f:
            f.seek(self.at)
            text = self.rest + f.read()
            self.at = f.tell()
        text, _, self.rest = text.rpartition("\n")
        for row in re.findall(r'msg="took over" (.*)', text):
            self.rows.append({k: int(v) for k, v in (x.split("=") for x in row.split())})
        return self.rows

    def wait(self, n, timeout=20):
        """Until `n` have been told; polls quickly, as kills follow."""
        end = time.monotonic() + timeout
        while len(self.read()) < n:
            if not self.worker.alive():
                raise AssertionError(f"{self.worker.name} ended:\n{self.worker.log[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.worker.name}: no exit took over in {timeout} s")
            time.sleep(0.002)
        return self.rows
