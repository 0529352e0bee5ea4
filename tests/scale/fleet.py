"""The fleet of `make scale`: redis-server, a controller, and the operator's verbs."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.request

from procs import BenchError, free_ports, listens, wait_until

START_S = 30
A_NODE = 10  # workers of one node
IN_PARALLEL = 16  # requests of an operator's programs


class UnixHTTP(http.client.HTTPConnection):
    """The operator API, over a connection that stays."""

    def __init__(self, path):
        super().__init__("controller", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def worker_name(i):
    return f"n{i // A_NODE}/{i % A_NODE}"


class Fleet:
    def __init__(self, procs, folder, build):
        self.procs, self.dir, self.bin = procs, folder, os.path.join(build, "bin")
        os.makedirs(folder, exist_ok=True)
        self.redis_socket = os.path.join(folder, "redis.sock")
        self.socket = os.path.join(folder, "api.sock")
        ports = free_ports(5)
        self.bus, self.admin, self.endpoint = ports[:3], ports[3], ports[4]
        self.cordoned, self.refresh_s = False, 60
        self.controller = None
        self.local = threading.local()

    def path(self, name):
        return os.path.join(self.dir, name)

    def ctl(self, *argv, socket_too=True):
        done = subprocess.run(
            [os.path.join(self.bin, "sallyportctl"), *argv,
             *(["--socket", self.socket] if socket_too else [])],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise BenchError(f"sallyportctl {argv[0]}: {done.stderr.strip()}")
        return done.stdout

    # ---- its programs ----

    def start(self, users=1):
        self.users = [f"user{i}" for i in range(users)]
        for kind in ("signing", "control", "route"):
            self.ctl("keys", kind, "-o", self.path(f"{kind}.key"), socket_too=False)
        self.redis = self.procs.start(
            "redis", ["redis-server", "--port", "0", "--unixsocket", self.redis_socket,
                      "--dir", self.dir, "--save", "", "--appendonly", "no",
                      "--daemonize", "no"])
        wait_until(lambda: os.path.exists(self.redis_socket), START_S, "redis-server")
        names = ("router", "publisher", "enrol")
        config = {
            "fleet": "scale", "state_dir": self.path("state"),
            "keys": {k: self.path(f"{k}.key") for k in ("signing", "control", "route")},
            "redis": {"address": f"unix:{self.redis_socket}"},
            "bus": {n: f"127.0.0.1:{p}" for n, p in zip(names, self.bus)},
            "api": {"socket": self.socket},
            "endpoint": {"listen": f"127.0.0.1:{self.endpoint}", "token_rate": 1000000},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "log": {"level": "error"}}
        with open(self.path("controller.yaml"), "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.start_controller()

    def start_controller(self):
        """Starts it and returns; ready() waits."""
        self.controller = self.procs.start(
            "controller", [os.path.join(self.bin, "sallyport-controller"), "-c",
                           self.path("controller.yaml")])

    def ready(self):
        """Until the controller answers; an end of it is an error."""
        def up():
            if self.controller.poll() is not None:
                raise BenchError("the controller ended; see controller.log")
            return listens(self.admin) and os.path.exists(self.socket)
        wait_until(up, START_S, "the controller")

    def kill_controller(self):
        self.controller.send_signal(signal.SIGKILL)
        self.controller.wait()
        self.procs.end(self.controller)
        self.local = threading.local()

    def end(self):
        self.procs.end(self.controller)
        self.procs.end(self.redis)

    # ---- what an operator does ----

    def apply(self, workers):
        """The fleet file, by the operator's program."""
        self.workers = workers
        with open(self.path("fleet.yaml"), "w", encoding="utf-8") as f:
            json.dump(self.declared(workers), f)
        self.ctl("apply", "-f", self.path("fleet.yaml"))

    def declared(self, workers, refresh_s=60):
        nodes = [{"name": f"n{i // A_NODE}", "worker": i % A_NODE,
                  "region": f"r{i // A_NODE % 8}",
                  "carriers": [{"kind": "tcp",
                                "address": f"10.{i >> 14}.{i >> 7 & 127}.{i & 127}:443"}]}
                 for i in range(workers)]
        return {
            "fleet": "scale", "regions": [{"name": f"r{i}"} for i in range(8)],
            "tiers": [{"name": "free"}], "nodes": nodes, "refresh": f"{refresh_s}s",
            "endpoints": [f"http://127.0.0.1:{self.endpoint}/v1/config"],
            "users": [{"name": u, "tier": "free", "max_devices": 10000}
                      for u in self.users]}

    def ask(self, method, path, body=None):
        """The operator API, over this thread's connection."""
        for attempt in (0, 1):
            connection = getattr(self.local, "connection", None)
            if not connection:
                connection = self.local.connection = UnixHTTP(self.socket)
            try:
                connection.request(method, path, body and json.dumps(body),
                                   {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.local.connection = None
                if attempt:
                    raise
        if answer.status >= 300:
            raise BenchError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def change(self):
        """A small change that every worker has to apply: a lease comes or goes."""
        self.cordoned = not self.cordoned
        if self.cordoned:
            self.ask("PUT", "/v1/leases/n0?force=1", {"kind": "cordon", "for_s": 3600})
        else:
            self.ask("DELETE", "/v1/leases/n0")

    def change_all_clients(self):
        """A change that is in every client's config: how often to ask."""
        self.refresh_s = 121 - self.refresh_s
        self.ask("POST", "/v1/apply", self.declared(self.workers, self.refresh_s))

    def change_once_ready(self):
        """The first change that a controller takes, which has just been started."""
        def changed():
            try:
                self.change()
            except (OSError, BenchError, http.client.HTTPException):
                self.cordoned = not self.cordoned
                return False
            return True
        wait_until(changed, START_S, "a change")

    def in_parallel(self, do, items, tell=lambda n: None):
        """[do(item), …], several at once; tell(how many are done) now and then."""
        found = []
        with concurrent.futures.ThreadPoolExecutor(IN_PARALLEL) as pool:
            for result in pool.map(do, items):
                found.append(result)
                if len(found) % 1000 == 0:
                    tell(len(found))
        return found

    def enrol_tokens(self, n, tell):
        """("NAME/N", one-time token) of each of the first n workers."""
        def one(i):
            name = worker_name(i)
            return name, self.ask("POST", "/v1/enrol", {"node": name})["token"]
        return self.in_parallel(one, range(n), tell)

    def client_tokens(self):
        return self.in_parallel(
            lambda user: self.ask("POST", "/v1/tokens", {"user": user})["token"], self.users)

    # ---- what the controller says ----

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as r:
            return r.read().decode()

    def head(self):
        return self.ask("GET", "/v1/status")["position"]["sequence"]

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.M)
        return float(found.group(1)) if found else 0.0

    def histogram(self, name):
        """[(upper bound, count)] of a histogram without labels, cumulated."""
        return [(float(le), float(n)) for le, n in
                re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', self.metrics(), re.M)]
