"""Simulated workers of `make scale`: publishes to them, and their herds."""
import json
import os
import time

import measure
from procs import BenchError, wait_until

A_PROCESS = 1250  # workers of one; each has eight descriptors, and more for a while
ACKS = "sallyport_controller_config_propagation_seconds"
CURRENT = 'sallyport_controller_peers_current{kind="worker"}'


def quantile(values, q):
    values = sorted(values)
    return values[int((len(values) - 1) * q)] if values else None


class Sims:
    """tests/scale/fleetsim.c by its lines: as many processes as the workers need."""

    def __init__(self, procs, build, folder, tokens):
        self.all, self.sizes = [], []
        for i in range(0, len(tokens), A_PROCESS):
            part = tokens[i:i + A_PROCESS]
            path = os.path.join(folder, f"tokens-{i}")
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(f"{name} {token}\n" for name, token in part)
            self.sizes.append(len(part))
            self.all.append(procs.start(
                "fleetsim", [os.path.join(build, "scale", "fleetsim"), path], pipes=True))
        self.active = self.all

    def send(self, line):
        for proc in self.active:
            proc.stdin.write((line + "\n").encode())
            proc.stdin.flush()

    def lines(self, what):
        """An answer of each process."""
        for proc in self.active:
            line = proc.stdout.readline()
            if not line:
                raise BenchError(f"the simulated workers ended in {what}; see fleetsim.log")
            yield json.loads(line)

    def read(self, what):
        """The answers as one."""
        answers = list(self.lines(what))
        whole = {key: sum(a[key] for a in answers)
                 for key in ("workers", "joined", "refused", "lost", "gaps", "snapshots",
                             "deltas", "errors", "cpu")}
        whole["seconds"] = max(a["seconds"] for a in answers)
        whole["took_ms"] = [t for a in answers for t in a["took_ms"]]
        return whole

    def ask(self, line):
        self.send(line)
        return self.read(line)

    def enrol(self, tell):
        """Joins them all, a process after another: so many may wait at a controller."""
        began, joined = time.monotonic(), 0
        for proc in self.all:
            self.active = [proc]
            self.send("enrol")
            while (answer := self.read("enrol"))["joined"] < self.sizes[self.all.index(proc)]:
                tell(joined + answer["joined"])
            joined += answer["joined"]
        self.active = self.all
        return time.monotonic() - began

    def start(self, n):
        """The first n workers connect, where they have not yet."""
        parts = [max(0, min(size, n - i * A_PROCESS)) for i, size in enumerate(self.sizes)]
        self.active = [p for p, part in zip(self.all, parts) if part]
        for proc, part in zip(self.active, parts):
            proc.stdin.write(f"start {part}\n".encode())
            proc.stdin.flush()
        return self.read("start")


class Workers:
    """n workers at one controller: time to applied and to acked, its CPU, herds."""

    def __init__(self, fleet, sims, n, options, say):
        self.fleet, self.sims, self.n, self.opt, self.say = fleet, sims, n, options, say
        self.window_s = 1 if n <= 1000 else 2  # telemetry and digests: once a second

    def cpu(self):
        return measure.cpu_seconds([self.fleet.controller.pid])

    def all_current(self):
        wait_until(lambda: self.fleet.metric(CURRENT) >= self.n, 120,
                   "acks of all workers at the head")

    def over_window(self, do=lambda: None):
        """(CPU of the controller, s) of a window in which this was done."""
        before, began = self.cpu(), time.monotonic()
        do()
        seconds = self.window_s  # whole ones: telemetry and digests come once in each
        while time.monotonic() > began + seconds - 0.1:
            seconds += 1
        time.sleep(began + seconds - time.monotonic())
        return self.cpu() - before, seconds

    def connect(self):
        """All that are not there yet, at once: handshakes, hellos, snapshots."""
        before = self.cpu()
        out = self.sims.start(self.n)
        self.all_current()
        return {"seconds": out["seconds"], "snapshots": out["snapshots"],
                "cpu_us_a_worker": (self.cpu() - before) * 1e6 / self.n}

    def cut(self):
        """All links are cut at once, the controller runs on."""
        before = self.cpu()
        out = self.sims.ask("cut")
        self.all_current()
        return {"seconds": out["seconds"], "median_s": quantile(out["took_ms"], 0.5) / 1e3,
                "cpu_us_a_worker": (self.cpu() - before) * 1e6 / self.n}

    def changes(self, times):
        """So many small changes, each once the one before it is applied; the times of all."""
        took, head = [], self.fleet.head()
        for i in range(times):
            self.sims.send(f"wait {head + i + 1}")
            list(self.sims.lines("wait"))
            self.fleet.change()
            took += self.sims.read("a publish")["took_ms"]
        return took

    def publish(self):
        """Changes in a window between two in which nothing happens."""
        took, times = [], max(1, min(10, 3000 // self.n))
        idle = self.over_window()
        busy, seconds = self.over_window(lambda: took.extend(self.changes(times)))
        self.all_current()
        idle = sum(cpu / s for cpu, s in (idle, self.over_window())) / 2
        return {"apply_p50_ms": quantile(took, 0.5), "apply_p99_ms": quantile(took, 0.99),
                "apply_max_ms": max(took), "publishes": times,
                "cpu_us_a_worker": (busy - idle * seconds) * 1e6 / self.n / times,
                "idle_us_a_worker_second": idle * 1e6 / self.n}

    def acks(self, before):
        """Quantiles of the controller's own histogram, from publish to ack, over the run."""
        counts = [(le, n - dict(before).get(le, 0)) for le, n in self.fleet.histogram(ACKS)]
        total = counts[-1][1] if counts else 0
        found = {"count": total}
        for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            low, below = 0.0, 0
            for le, n in counts:
                if total and n >= q * total:
                    part = (q * total - below) / max(1, n - below)
                    found[name] = 1e3 * (low + (le - low) * part if le != float("inf") else low)
                    break
                low, below = le, n
        return found

    def herd(self):
        """The controller is killed and started again, and a change made at once."""
        self.sims.send("herd")
        list(self.sims.lines("herd"))
        armed = time.monotonic()
        self.fleet.kill_controller()
        began = time.monotonic()
        self.fleet.start_controller()
        self.fleet.ready()
        listens = time.monotonic() - began
        self.fleet.change_once_ready()
        self.sims.send(f"at {self.fleet.head()}")
        out = self.sims.read("herd")
        last = out["seconds"] - (began - armed)
        self.all_current()
        back = [t - (began - armed) * 1e3 for t in out["took_ms"]]
        return {"seconds": last, "listens_s": listens, "first_s": min(back) / 1e3,
                "median_s": quantile(back, 0.5) / 1e3, "refused": out["refused"],
                "cpu_us_a_worker": self.cpu() * 1e6 / self.n}

    def repeat(self, times, do, tell):
        rounds = []
        for i in range(times):
            rounds.append(do())
            self.say(f"  {tell(rounds[-1])} ({i + 1} of {times})")
        return {k: measure.spread([r[k] for r in rounds]) for k in rounds[0]} if rounds else None

    def run(self):
        result = {"workers": self.n, "connect": self.connect()}
        self.say(f"  {self.n:,} workers at the head in {result['connect']['seconds']:.2f} s")
        before = self.fleet.histogram(ACKS)
        result["publish"] = self.repeat(
            self.opt.publishes, self.publish,
            lambda r: f"publish: applied p99 {r['apply_p99_ms']:.0f} ms, "
                      f"{r['cpu_us_a_worker']:.0f} us of controller CPU a worker")
        result["ack"] = self.acks(before)
        result["cut"] = self.repeat(
            self.opt.herds, self.cut,
            lambda r: f"links cut: all back in {r['seconds']:.2f} s, "
                      f"{r['cpu_us_a_worker']:.0f} us a worker")
        result["herd"] = self.repeat(
            self.opt.herds, self.herd,
            lambda r: f"controller killed: all at the head {r['seconds']:.2f} s after its "
                      f"start, {r['cpu_us_a_worker']:.0f} us a worker")
        return result
