"""The fleet of `make scale`: redis-server, a controller, and the operator's verbs."""
import json
import os
import re
import subprocess
import urllib.request

from procs import BenchError, free_ports, listens, wait_until

START_S = 15


class Fleet:
    def __init__(self, procs, folder, build):
        self.procs, self.dir, self.bin = procs, folder, os.path.join(build, "bin")
        self.redis_socket = os.path.join(folder, "redis.sock")
        self.socket = os.path.join(folder, "api.sock")
        ports = free_ports(5)
        self.bus, self.admin, self.endpoint = ports[:3], ports[3], ports[4]
        self.rules = 0
        self.controller = None

    def path(self, name):
        return os.path.join(self.dir, name)

    def ctl(self, *argv, socket=True):
        done = subprocess.run(
            [os.path.join(self.bin, "sallyportctl"), *argv,
             *(["--socket", self.socket] if socket else [])],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise BenchError(f"sallyportctl {argv[0]}: {done.stderr.strip()}")
        return done.stdout

    def start(self, users=1):
        for kind in ("signing", "control", "route"):
            self.ctl("keys", kind, "-o", self.path(f"{kind}.key"), socket=False)
        self.procs.start("redis", ["redis-server", "--port", "0", "--unixsocket",
                                   self.redis_socket, "--dir", self.dir, "--save", "",
                                   "--appendonly", "no", "--daemonize", "no"])
        wait_until(lambda: os.path.exists(self.redis_socket), START_S, "redis-server")
        names = ("router", "publisher", "enrol")
        config = {
            "fleet": "scale", "state_dir": "state",
            "keys": {k: f"{k}.key" for k in ("signing", "control", "route")},
            "redis": {"address": f"unix:{self.redis_socket}"},
            "bus": {n: f"127.0.0.1:{p}" for n, p in zip(names, self.bus)},
            "api": {"socket": self.socket},
            "endpoint": {"listen": f"127.0.0.1:{self.endpoint}", "token_rate": 1000000},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "log": {"level": "warn"}}
        with open(self.path("controller.yaml"), "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.controller = self.procs.start(
            "controller", [os.path.join(self.bin, "sallyport-controller"), "-c",
                           self.path("controller.yaml")])
        wait_until(lambda: listens(self.admin) or self.controller.poll() is not None,
                   START_S, "the controller")
        self.users = [f"user{i}" for i in range(users)]

    # ---- what an operator does ----

    def apply(self, workers):
        nodes = [{"name": f"n{i // 100}", "worker": i % 100, "region": f"r{i // 100 % 8}",
                  "carriers": [{"kind": "tcp", "address": f"10.{i >> 14}.{i >> 7 & 127}.{i & 127}:443"}]}
                 for i in range(workers)]
        fleet = {
            "fleet": "scale", "regions": [{"name": f"r{i}"} for i in range(8)],
            "tiers": [{"name": "free"}], "nodes": nodes,
            "endpoints": [f"http://127.0.0.1:{self.endpoint}/v1/config"],
            "users": [{"name": u, "tier": "free"} for u in self.users],
            "exit_policy": [f"deny 10.77.{self.rules % 250}.0/24"]}
        with open(self.path("fleet.yaml"), "w", encoding="utf-8") as f:
            json.dump(fleet, f)
        self.workers = workers
        self.ctl("apply", "-f", self.path("fleet.yaml"))

    def change(self):
        """A small change that every worker has to apply: a lease comes or goes."""
        self.rules += 1
        self.ctl(*(["cordon", "n0", "--force"] if self.rules % 2 else ["undrain", "n0"]))

    def post(self, path, body):
        """The operator API itself, for what a thousand processes would be slow to say."""
        done = subprocess.run(
            ["curl", "-sS", "--unix-socket", self.socket, "-d", json.dumps(body),
             "-H", "Content-Type: application/json", f"http://controller{path}"],
            check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def tokens(self, n):
        """A file with a one-time token for each of n workers."""
        path = self.path("tokens")
        with open(path, "w", encoding="utf-8") as f:
            for i in range(n):
                name = f"n{i // 100}/{i % 100}"
                f.write(f"{name} {self.post('/v1/enrol', {'node': name})['token']}\n")
        return path

    # ---- what the controller says ----

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as r:
            return r.read().decode()

    def status(self):
        return json.loads(self.ctl("status", "--json"))

    def head(self):
        return self.status()["position"]["sequence"]

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.M)
        return float(found.group(1)) if found else 0.0

    def histogram(self, name):
        """[(upper bound, count)] of a histogram without labels, cumulated."""
        return [(float(le), float(n)) for le, n in
                re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', self.metrics(), re.M)]
