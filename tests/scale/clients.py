"""Simulated clients of `make scale`: the config endpoint under requests and long polls."""
import json
import os
import time
import urllib.request

import measure
from procs import BenchError, free_ports, listens, wait_until

NGINX = """daemon off; master_process off; pid {0}/pid; error_log stderr crit;
events {{ worker_connections 8000; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {0};
  proxy_temp_path {0}; fastcgi_temp_path {0}; uwsgi_temp_path {0}; scgi_temp_path {0};
  server {{ listen 127.0.0.1:{1}; root {0}; }}
}}
"""


class Clients:
    """The config endpoint under clients, and the same bytes from nginx beside it."""

    def __init__(self, fleet, procs, build, options, say):
        self.fleet, self.procs, self.opt, self.say = fleet, procs, options, say
        self.load = os.path.join(build, "scale", "httpload")
        self.tokens = fleet.path("client-tokens")
        with open(self.tokens, "w", encoding="utf-8") as f:
            f.writelines(token + "\n" for token in fleet.client_tokens())
        self.who = ["--tokens", self.tokens, "--devices"]

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
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(NGINX.format(folder, port))
        proc = self.procs.start("nginx", ["nginx", "-p", folder, "-c", conf])
        wait_until(lambda: listens(port), 10, "nginx")
        return proc, port

    def body(self):
        with open(self.tokens, encoding="utf-8") as f:
            token = f.readline().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.fleet.endpoint}/v1/config",
            headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as r:
            return r.read()

    def requests(self):
        """304s and 200s of both, in turn, so that what disturbs one disturbs the other."""
        body = self.body()
        sides = {"ours": (self.fleet.controller.pid, self.fleet.endpoint, "/v1/config", self.who)}
        if self.opt.nginx:
            nginx, port = self.nginx(body)
            sides["nginx"] = (nginx.pid, port, "/config", [])
        rounds = []
        for i in range(self.opt.rounds):
            rounds.append({})
            for name, expect, extra in (("304", 304, ["--etag"]), ("200", 200, [])):
                found = rounds[-1][name] = {
                    side: self.measure([pid], port, path, expect, who + extra)
                    for side, (pid, port, path, who) in sides.items()}
                self.say(f"  {name}: " + ", ".join(
                    f"{side} {f['cpu_us']:.1f} us of CPU each" for side, f in found.items())
                    + f" ({i + 1} of {self.opt.rounds})")
        if self.opt.nginx:
            self.procs.end(nginx)
        result = {name: {who: {k: measure.spread([r[name][who][k] for r in rounds])
                               for k in rounds[0][name][who]}
                         for who in sides} for name in ("304", "200")}
        return result | {"body_bytes": len(body)}

    def wake(self):
        """Long polls that wait, each of a device of its own, and a change that wakes all."""
        n = self.opt.polls
        load = self.procs.start("httpload-wait", [
            self.load, "wait", "--port", str(self.fleet.endpoint),
            "--path", "/v1/config?wait=60", "--connections", str(n), "--etag", *self.who],
            pipes=True)
        if load.stdout.readline().strip() != b"READY":
            raise BenchError("the long polls did not come to wait; see httpload-wait.log")
        time.sleep(0.5)
        pid = [self.fleet.controller.pid]
        before = measure.cpu_seconds(pid)
        load.stdin.write(b"go\n")
        load.stdin.flush()
        self.fleet.change_all_clients()
        out = json.loads(load.stdout.readline())
        cpu = measure.cpu_seconds(pid) - before
        self.procs.end(load)
        if out["failed"]:
            raise BenchError(f"long polls: {out['failed']} failed: {out['why']}")
        return {"early": out["early"], "first_ms": out["min_us"] / 1e3,
                "p50_ms": out["p50_us"] / 1e3, "p99_ms": out["p99_us"] / 1e3,
                "last_ms": out["max_us"] / 1e3,
                "cpu_us_a_poll": cpu * 1e6 / n}

    def wakes(self):
        rounds = []
        for i in range(self.opt.rounds):
            rounds.append(self.wake())
            self.say(f"  {self.opt.polls:,} long polls woken: last after "
                     f"{rounds[-1]['last_ms']:.0f} ms ({i + 1} of {self.opt.rounds})")
        return {"polls": self.opt.polls} | {
            k: measure.spread([r[k] for r in rounds]) for k in rounds[0]}

    def run(self):
        return {"exits": self.fleet.workers, **self.requests(), "wake": self.wakes()}
