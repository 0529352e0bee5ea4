"""The streams of a chaos scenario: the programs app and dest, their counters while they run,
and the checker's verdict on what they wrote down."""

import contextlib
import ctypes
import json
import signal
import subprocess
import threading
import time

import history
from harness import BUILD, SLOW
from servers import wait_until

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class End:
    """One of the two programs; `stat` is the last line of counters."""

    def __init__(self, argv, log):
        self.reports, self.stat, self.ready = [], {}, None
        self.answers = threading.Condition()
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True, bufsize=1,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self.answers:
                if event["e"] in ("report", "over"):
                    self.reports.append(event)
                elif event["e"] == "ready":
                    self.ready = event
                self.stat = event if event["e"] != "ready" else self.stat
                self.answers.notify_all()

    def say(self, line):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def alive(self):
        return self.process.poll() is None

    def mark(self, at):
        self.say(f"mark {int(at * 1e9)}")

    def calm(self):
        self.say("calm")

    def report(self):
        """Its distributions as they are now."""
        n = len(self.reports)
        self.say("report")
        with self.answers:
            self.answers.wait_for(lambda: len(self.reports) > n, 20 * SLOW)
        return self.reports[-1]

    def end(self, timeout=10):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.close()


class Traffic:
    """A destination, and applications in front of any number of clients. `net`: a linklab
    Net whose end `at` the destination lives in; None: loopback."""

    def __init__(self, lab, seed, net=None, at=None, address="127.0.0.1", name="traffic"):
        self.lab, self.seed, self.net = lab, seed, net
        self.dir = lab.dir / name
        self.dir.mkdir()
        self.address, self.apps, self.next_id = address, [], 1
        self.redo = False
        with self._inside(at):
            everywhere = "0.0.0.0" if address == "127.0.0.1" else address
            self.dest = End([BUILD / "chaos/dest", everywhere, self.dir / "dest"],
                            self.dir / "dest.log")
        wait_until(lambda: self.dest.ready, 10 * SLOW, "the destination")

    def _inside(self, end):
        return self.net.inside(end) if self.net else contextlib.nullcontext()

    def start(self, client, *mix, at=None):
        """An application; mix: "down=40", "paced=100:12500" (app.c)."""
        i = len(self.apps)
        # The kernel looks for a free port among those to the same destination.
        address = f"127.0.0.{1 + i}" if self.address == "127.0.0.1" else self.address
        with self._inside(at):
            app = End([BUILD / "chaos/app", client.socks, address, self.dest.ready["port"],
                       self.dest.ready["slow"], self.seed + i, self.next_id,
                       self.dir / f"app{i}", *mix], self.dir / f"app{i}.log")
        self.next_id += 1 << 20
        app.flows = sum(int(m.partition("=")[2].partition(":")[0]) for m in mix)
        self.apps.append(app)
        return app

    def live(self):
        return sum(a.stat.get("live", 0) for a in self.apps)

    def wait_live(self, n, timeout=60):
        wait_until(lambda: self.live() >= n or self.dead(), timeout * SLOW, f"{n} streams")
        assert not self.dead(), "a program of the traffic ended"

    def dead(self):
        return [x for x in [*self.apps, self.dest] if not x.alive()]

    def total(self, key):
        """A counter over both ends; rx: bytes that came and were checked."""
        return sum(x.stat.get(key, 0) for x in [*self.apps, self.dest])

    def mark(self, at=None):
        """From here on pauses are counted; time.monotonic() of it."""
        at = at or time.monotonic()
        for x in [*self.apps, self.dest]:
            x.mark(at)
        return at

    def calm(self):
        """Pauses are not counted until the next mark."""
        for x in [*self.apps, self.dest]:
            x.calm()

    def stop(self, timeout=60):
        """No further streams; those that are there end. Whether all did."""
        for a in self.apps:
            a.say("stop")
        end = time.monotonic() + timeout * SLOW
        while time.monotonic() < end and any(a.alive() for a in self.apps):
            time.sleep(0.05)
        return not any(a.alive() for a in self.apps)

    def distribution(self, key):
        """[(ms, count)] over both ends: `first` byte after a mark, or longest `pause`."""
        for x in [*self.apps, self.dest]:
            if x.alive():
                x.report()
        return history.merge(x.reports[-1][key] for x in [*self.apps, self.dest] if x.reports)

    def control(self, times, seconds=1.0):
        """The longest pauses in so many stretches in which nothing is done: what the machine
        and the load itself cost."""
        before = dict(self.distribution("pause"))
        for _ in range(times):
            self.mark()
            time.sleep(seconds)
            self.calm()
        after = self.distribution("pause")
        return [(ms, n - before.get(ms, 0)) for ms, n in after if n > before.get(ms, 0)]

    def finish(self, **how):
        """Ends the programs; the checker's verdict."""
        for x in [*self.apps, self.dest]:
            x.end()
        app_events = []
        for i in range(len(self.apps)):
            app_events += history.read(self.dir / f"app{i}")
        return history.check(app_events, history.read(self.dir / "dest"), **how)

    def close(self):
        for x in [*self.apps, self.dest]:
            if x.alive():
                x.process.kill()
                x.process.wait(10)
