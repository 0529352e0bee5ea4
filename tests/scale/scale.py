#!/usr/bin/python3
"""make scale: what the control plane costs and how fast it is, with many simulated workers
(real protocol, real CURVE) and many clients of the config endpoint.

One controller, one redis-server, all on this machine; docs/scale.md says what is measured
and what bounds it here.
"""
import argparse
import base64
import json
import os
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "bench"))
import measure  # noqa: E402
from procs import BenchError, Procs, free_ports, listens, wait_until  # noqa: E402

from fleet import Fleet  # noqa: E402



def say(text):
    print(text, file=sys.stderr, flush=True)


class Sim:
    """tests/scale/fleetsim.c, by its lines."""

    def __init__(self, procs, build, tokens):
        self.proc = procs.start("fleetsim", [os.path.join(build, "scale", "fleetsim"), tokens],
                                pipes=True)

    def send(self, line):
        self.proc.stdin.write((line + "\n").encode())
        self.proc.stdin.flush()

    def read(self, what):
        line = self.proc.stdout.readline()
        if not line:
            raise BenchError(f"the simulated workers ended while {what}; see fleetsim.log")
        return json.loads(line)

    def ask(self, line):
        self.send(line)
        return self.read(line)


class Workers:
    """Publishes to n simulated workers: time to applied, CPU of the controller a worker."""

    def __init__(self, fleet, sim, n, publishes):
        self.fleet, self.sim, self.n, self.publishes = fleet, sim, n, publishes

    def cpu(self):
        return measure.cpu_seconds([self.fleet.controller.pid])

    def current(self):
        return self.fleet.metric('sallyport_controller_peers_current{kind="worker"}')

    def idle(self):
        """CPU a second with nothing but heartbeats, digests and telemetry."""
        time.sleep(1.5)
        before, at = self.cpu(), time.monotonic()
        time.sleep(1.5)
        return (self.cpu() - before) / (time.monotonic() - at)

    def connect(self, command):
        before = self.cpu()
        out = self.sim.ask(command)
        wait_until(lambda: self.current() >= self.n, 60, "all workers at the head")
        return {"seconds": out["seconds"], "snapshots": out["snapshots"],
                "refused": out["refused"], "cpu_us_a_worker": (self.cpu() - before) * 1e6 / self.n}

    def publish(self, idle):
        """A small change, until the controller has the last worker's ack."""
        self.sim.ask(f"wait {self.fleet.head() + 1}")
        before, began = self.cpu(), time.monotonic()
        self.fleet.change()
        out = self.sim.read("a publish")
        time.sleep(0.2 + self.n / 5000)  # acks are on their way; looking costs CPU too
        took = time.monotonic() - began
        cost = self.cpu() - before - idle * took
        wait_until(lambda: self.current() >= self.n, 60, "acks of all workers")
        return {"apply_p50_ms": out["apply_p50_ms"], "apply_p99_ms": out["apply_p99_ms"],
                "apply_max_ms": out["apply_max_ms"], "cpu_us_a_worker": cost * 1e6 / self.n}

    def acks(self, before):
        """Quantiles of the controller's own histogram, from publish to ack, over the run."""
        now = self.fleet.histogram("sallyport_controller_config_propagation_seconds")
        counts = [(le, n - dict(before).get(le, 0)) for le, n in now]
        total = counts[-1][1] if counts else 0
        found = {}
        for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            low, below = 0.0, 0
            for le, n in counts:
                if total and n >= q * total:
                    part = (q * total - below) / max(1, n - below)
                    found[name] = 1e3 * (low + (le - low) * part if le != float("inf") else low)
                    break
                low, below = le, n
        return found

    def run(self):
        result = {"workers": self.n, "connect": self.connect(f"start {self.n}")}
        say(f"  {self.n:,} workers at the head in {result['connect']['seconds']:.2f} s")
        idle = result["idle_cpu"] = self.idle()
        before = self.fleet.histogram("sallyport_controller_config_propagation_seconds")
        rounds = []
        for i in range(self.publishes):
            rounds.append(self.publish(idle))
            say(f"  publish {i + 1} of {self.publishes}: p99 {rounds[-1]['apply_p99_ms']:.0f} ms, "
                f"{rounds[-1]['cpu_us_a_worker']:.0f} us of controller CPU a worker")
        result["publish"] = {k: measure.spread([r[k] for r in rounds]) for k in rounds[0]}
        result["ack"] = self.acks(before)
        result["herd"] = self.connect("reconnect")
        say(f"  {self.n:,} links cut at once: back in {result['herd']['seconds']:.2f} s")
        return result


class Clients:
    """The config endpoint under clients, and the same bytes from nginx beside it."""

    def __init__(self, fleet, procs, build, options):
        self.fleet, self.procs, self.opt = fleet, procs, options
        self.load = os.path.join(build, "scale", "httpload")
        self.tokens = fleet.path("client-tokens")
        with open(self.tokens, "w", encoding="utf-8") as f:
            for user in fleet.users:
                f.write(fleet.post("/v1/tokens", {"user": user})["token"] + "\n")

    def device(self):
        return "sallyport-device-public:" + base64.b64encode(os.urandom(32)).decode()

    def measure(self, pids, port, path, expect, extra):
        before = measure.cpu_seconds(pids)
        _, out = self.procs.run_json(
            "httpload", [self.load, "requests", "--port", str(port), "--path", path,
                         "--connections", "64", "--count", str(self.opt.requests),
                         "--expect", str(expect), *extra], 120)
        if out["failed"]:
            raise BenchError(f"{path}: {out['failed']} failed: {out['why']}")
        cpu = measure.cpu_seconds(pids) - before
        return {"cpu_us": cpu * 1e6 / out["done"], "p50_us": out["p50_us"],
                "p99_us": out["p99_us"], "a_second": out["done"] / out["seconds"]}

    def nginx(self, body):
        port = free_ports(1)[0]
        folder = self.fleet.path("nginx")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config"), "wb") as f:
            f.write(body)
        conf = (f"daemon off; master_process off; pid {folder}/pid; error_log stderr crit;"
                "events { worker_connections 8000; }"
                f"http {{ access_log off; keepalive_requests 100000000;"
                f" client_body_temp_path {folder}; proxy_temp_path {folder};"
                f" fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};"
                f" server {{ listen 127.0.0.1:{port}; root {folder}; }} }}")
        with open(os.path.join(folder, "nginx.conf"), "w", encoding="utf-8") as f:
            f.write(conf)
        proc = self.procs.start("nginx", ["nginx", "-p", folder, "-c",
                                          os.path.join(folder, "nginx.conf")])
        wait_until(lambda: listens(port), 10, "nginx")
        return proc, port

    def body(self, device):
        token = open(self.tokens, encoding="utf-8").readline().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.fleet.endpoint}/v1/config",
            headers={"Authorization": f"Bearer {token}", "Sallyport-Device": device})
        with urllib.request.urlopen(request, timeout=10) as r:
            return r.read()

    def wake(self, device):
        """Long polls that wait, and one change that wakes them all."""
        n = self.opt.polls
        load = self.procs.start("httpload-wait", [
            self.load, "wait", "--port", str(self.fleet.endpoint),
            "--path", "/v1/config?wait=60", "--connections", str(n), "--etag",
            "--tokens", self.tokens, "--header", f"Sallyport-Device: {device}"], pipes=True)
        if load.stdout.readline().strip() != b"READY":
            raise BenchError("the long polls did not come to wait; see httpload-wait.log")
        time.sleep(0.5)
        pid = [self.fleet.controller.pid]
        before = measure.cpu_seconds(pid)
        load.stdin.write(b"go\n")
        load.stdin.flush()
        self.fleet.change()  # a node comes or goes: every client's config is another
        out = json.loads(load.stdout.readline())
        if out["failed"]:
            raise BenchError(f"long polls: {out['failed']} failed: {out['why']}")
        return {"polls": n, "p50_ms": out["p50_us"] / 1e3, "p99_ms": out["p99_us"] / 1e3,
                "max_ms": out["max_us"] / 1e3,
                "cpu_us_a_poll": (measure.cpu_seconds(pid) - before) * 1e6 / n}

    def run(self):
        device = self.device()
        who = ["--tokens", self.tokens, "--header", f"Sallyport-Device: {device}"]
        ours, port = [self.fleet.controller.pid], self.fleet.endpoint
        nginx, nginx_port = self.nginx(self.body(device))
        result = {}
        for name, expect, extra in (("304", 304, ["--etag"]), ("200", 200, [])):
            result[name] = {
                "ours": self.measure(ours, port, "/v1/config", expect, who + extra),
                "nginx": self.measure([nginx.pid], nginx_port, "/config", expect, extra)}
            say(f"  {name}: {result[name]['ours']['cpu_us']:.1f} us of CPU each, "
                f"nginx {result[name]['nginx']['cpu_us']:.1f}")
        result["wake"] = self.wake(device)
        say(f"  {result['wake']['polls']:,} long polls woken: last after "
            f"{result['wake']['max_ms']:.0f} ms")
        return result


def table(report):
    lines = ["workers   publish to applied, ms     publish to acked, ms   controller CPU   "
             "herd back", "            p50     p99     max       p50      p99        "
             "us a worker          s"]
    for w in report["workers"]:
        p, a = w["publish"], w["ack"]
        lines.append(
            f"{w['workers']:>7,} {p['apply_p50_ms']['median']:>7.0f} "
            f"{p['apply_p99_ms']['median']:>7.0f} {p['apply_max_ms']['median']:>7.0f} "
            f"{a.get('p50_ms', 0):>9.0f} {a.get('p99_ms', 0):>8.0f} "
            f"{p['cpu_us_a_worker']['median']:>18.1f} {w['herd']['seconds']:>10.2f}")
    c = report.get("clients")
    if c:
        lines += ["", "config endpoint   us CPU   nginx   p50 us   p99 us   requests a second"]
        for name in ("304", "200"):
            o = c[name]["ours"]
            lines.append(f"{name:>15} {o['cpu_us']:>8.1f} {c[name]['nginx']['cpu_us']:>7.1f} "
                         f"{o['p50_us']:>8} {o['p99_us']:>8} {o['a_second']:>19,.0f}")
        w = c["wake"]
        lines.append(f"{w['polls']:,} long polls woken: p50 {w['p50_ms']:.0f} ms, "
                     f"p99 {w['p99_ms']:.0f} ms, last {w['max_ms']:.0f} ms, "
                     f"{w['cpu_us_a_poll']:.0f} us of CPU each")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--workers", default="100,1000", help="counts, by commas")
    parser.add_argument("--publishes", type=int, default=10)
    parser.add_argument("--requests", type=int, default=50000)
    parser.add_argument("--polls", type=int, default=5000)
    parser.add_argument("--only", choices=["workers", "clients"])
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    noise = measure.Noise()
    report = {"workers": [], "machine": measure.describe_machine()}
    with tempfile.TemporaryDirectory(prefix="sallyport-scale-") as folder:
        try:
            with Procs(folder) as procs:
                run(procs, folder, build, options, report)
        except BenchError as e:
            for name in sorted(os.listdir(folder)):
                if name.endswith(".log"):
                    text = open(os.path.join(folder, name), errors="replace").read()[-1500:]
                    say(f"---- {name}\n{text}" if text else f"---- {name}: empty")
            say(f"scale: {e}")
            return 1
    report["noise"] = noise.over()
    where = os.path.join(build, os.pardir, "scale")
    os.makedirs(where, exist_ok=True)
    with open(os.path.join(where, "report.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
    print(table(report))
    return 0


def run(procs, folder, build, options, report):
    counts = sorted(int(n) for n in options.workers.split(","))
    if options.only == "clients":
        counts = [200]  # exits to tell clients of
    fleet = Fleet(procs, folder, build)
    fleet.start(users=100)
    fleet.apply(counts[-1])
    say(f"enrolling {counts[-1]:,} workers")
    sim = Sim(procs, build, fleet.tokens(counts[-1]))
    say(f"  joined in {sim.ask('enrol')['seconds']:.1f} s")
    if options.only != "clients":
        for n in counts:
            report["workers"].append(Workers(fleet, sim, n, options.publishes).run())
    procs.end(sim.proc)
    if options.only != "workers":
        say("clients of the config endpoint")
        report["clients"] = Clients(fleet, procs, build, options).run()


if __name__ == "__main__":
    sys.exit(main())
