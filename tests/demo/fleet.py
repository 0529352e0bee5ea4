"""A fleet as its operator would make it: redis-server, a controller, workers and health
checkers that joined with one-time tokens, a client that asks the config endpoint. With one
difference: what the fleet file advertises are the cutter's ports, so every carrier passes
there. Not here: what is done to it (scenario.py, operations.py)."""
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess

import fleetfiles
from origin import CONTROL
from procs import BenchError, free_ports, listens, wait_until

START_S = 30
FLEET, USER, TIER = "demo", "alice", "standard"
REGION_OF = {"a": "eu", "b": "eu", "c": "us", "d": "us", "e": "ap"}
STANDBY = "e"  # used when no other is left: the only one of a region is never demoted
VANTAGES = {"v1": "eu", "v2": "us", "v3": "ap"}
# Those of docs/health.md, but for shorter times, so that a node is back while one watches.
HEALTH = {"hold_down": "1s", "hold_down_max": "1s", "slow_start": "1s", "cycle": "100ms"}


def http_get(port, path):
    """(status, body) of a listener on loopback; OSError when there is none."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read().decode()
    except http.client.HTTPException as e:
        raise OSError(f"{path}: {e!r}") from e
    finally:
        c.close()


def is_ready(port):
    with contextlib.suppress(OSError):
        return http_get(port, "/readyz")[0] == 200
    return False


def parse_metrics(text):
    """{'name{label="x"}': value}"""
    found = re.findall(r"^([a-z_0-9]+(?:\{[^{}]*\})?) (\S+)", text, re.M)
    return {name: float(value) for name, value in found}


class Node:
    """One worker: its ports, its files, its process."""

    def __init__(self, name, near, far):
        self.name, self.full, self.region = name, f"{name}/0", REGION_OF[name]
        self.near, self.far = near, far  # the cutter's port, its own
        self.admin, self.agent_admin = free_ports(2)
        self.folder = self.pin = self.proc = None
        self.stopped = False


class Fleet:
    """paths: {node's name: (port of the cutter, port of the worker)}"""

    def __init__(self, procs, folder, build, paths):
        self.procs, self.paths, self.bin = procs, paths, os.path.join(build, "bin")
        self.folder = os.path.join(folder, "fleet")
        self.nodes = {name: Node(name, *ports) for name, ports in paths.items()}
        self.redis = self.controller = self.client = None
        self.vantages = {}
        (self.socks_port, self.client_admin, self.controller_admin, self.endpoint_port,
         *self.bus) = free_ports(7)
        self.vantage_admin = dict(zip(VANTAGES, free_ports(len(VANTAGES))))
        self.operator = fleetfiles.Operator(
            self.program("sallyportctl"), self.path("controller", "api.sock"), START_S,
            BenchError)
        self.endpoint = fleetfiles.endpoint_url(self.endpoint_port)
        self.file = {}

    def program(self, name):
        return os.path.join(self.bin, name)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def argv(self, program, folder, *command):
        return [self.program(program), "-c", self.path(folder, "config.yaml"), *command]

    def client_argv(self, *command):
        return self.argv("sallyport", "client", *command)

    def worker_argv(self, name, *command):
        """Each worker's program is a file of its own, which can be replaced."""
        return [self.path(f"worker-{name}", "sallyport-worker"), *command, "-c",
                self.path(f"worker-{name}", "config.yaml")]

    def install(self, name, data):
        """Puts another program there, at once, as package managers do."""
        path = self.worker_argv(name)[0]
        with open(path + ".new", "wb") as f:
            f.write(data)
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    def controller_argv(self):
        return self.argv("sallyport-controller", "controller")

    def redis_argv(self):
        return fleetfiles.redis_argv(self.path("redis"), self.path("redis", "socket"))

    # ---- files ----

    def _write(self, folder, config):
        """A config, in a folder of its own; JSON is YAML."""
        os.makedirs(self.path(folder), exist_ok=True)
        with open(self.path(folder, "config.yaml"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)

    def _once(self, *argv):
        done = subprocess.run(argv, check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=START_S)
        if done.returncode:
            raise BenchError(f"{' '.join(argv[:4])}…: exit {done.returncode}: "
                             f"{done.stderr.strip()}")
        return done.stdout

    def _certificate(self, node):
        """A certificate of its own; clients pin it."""
        cert, key = self.path(node.folder, "cert.pem"), self.path(node.folder, "key.pem")
        self._once("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                   "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                   f"/CN={node.name}.demo.test", "-keyout", key, "-out", cert)
        os.chmod(key, 0o600)
        with open(cert, encoding="ascii") as f:
            node.pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(f.read())).hexdigest()

    def make(self, dns_port, origin_port):
        """Keys, certificates and configs, for this run alone."""
        os.makedirs(self.path("redis"))
        self._write("controller", fleetfiles.controller_config(
            FLEET, self.path("redis", "socket"), self.bus, self.endpoint_port,
            self.controller_admin))
        for kind in fleetfiles.KEYS:
            self._once(self.program("sallyportctl"), "keys", kind, "-o",
                       self.path("controller", f"{kind}.key"))
        for node in self.nodes.values():
            node.folder = f"worker-{node.name}"
            self._write(node.folder, {
                **fleetfiles.worker_config(node.name, 0, "tls", node.far, dns_port,
                                           node.admin, node.agent_admin),
                "cover": fleetfiles.loopback(origin_port),
                "tls": {"certificate": "cert.pem", "key": "key.pem"}})
            self._certificate(node)
            with open(self.program("sallyport-worker"), "rb") as f:
                self.install(node.name, f.read())
        for name in VANTAGES:
            self._write(f"vantage-{name}", fleetfiles.vantage_config(self.vantage_admin[name]))
        with open(self.path("controller", "signing.pub"), encoding="ascii") as f:
            signing_key = f.read().strip()
        self._write("client", fleetfiles.client_config(
            [self.endpoint], signing_key, self.socks_port, self.client_admin))
        self.file = self._file(origin_port)

    def _file(self, origin_port):
        origin = fleetfiles.loopback(origin_port)
        return {
            "fleet": FLEET, "endpoints": [self.endpoint], "refresh": "10s",
            "regions": [{"name": r} for r in sorted(set(REGION_OF.values()))],
            "tiers": [{"name": TIER}],
            "users": [{"name": USER, "tier": TIER}],
            "nodes": [{**fleetfiles.node_entry(n.name, 0, n.region, "tls", n.near, n.far,
                                               pin_sha256=n.pin),
                       "weight": 0 if n.name == STANDBY else 100}
                      for n in self.nodes.values()],
            "exit_policy": ["allow 127.0.0.0/8"],
            "health": HEALTH,
            "probe": {"url": f"http://{fleetfiles.loopback(self.endpoint_port)}/v1/probe",
                      "controls": [f"http://{origin}{CONTROL}"]}}

    def write_file(self, **change):
        """The fleet file with a change; its path."""
        self.file.update(change)
        with open(self.path("fleet.yaml"), "w", encoding="utf-8") as f:
            json.dump(self.file, f, indent=1)
        return self.path("fleet.yaml")

    # ---- starting ----

    def start(self):
        self.start_redis()
        self.start_controller()
        self.operator.apply(self.write_file())
        for node in self.nodes.values():
            self._once(*self.worker_argv(node.name), "enroll", "--token",
                       self.operator.enrol_token(node.full))
            self.start_worker(node.name)
        for name, region in VANTAGES.items():
            argv = self.argv("sallyport-healthcheck", f"vantage-{name}")
            self._once(*argv, "enroll", self.operator.vantage_token(name, region))
            self.vantages[name] = self.procs.start(f"vantage-{name}", argv)
        for node in self.nodes.values():
            self._wait(node.proc, lambda node=node: is_ready(node.admin), "is ready")
        self._client()
        wait_until(self.all_healthy, START_S, "all nodes are healthy to the health checkers")

    def _client(self):
        self._once(*self.client_argv("init"))
        fleetfiles.save_secret(self.path("client", "token"),
                               self.operator.user_token(USER) + "\n")
        # The cutter looks in /proc which connections are the client's. The client shows itself
        # to root alone; without root, to whoever made its user namespace.
        shown = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        self.client = self.procs.start("client", [*shown, *self.client_argv("up")])
        self._wait(self.client, lambda: is_ready(self.client_admin), "has a session")

    def start_redis(self):
        socket = self.path("redis", "socket")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)
        self.redis = self.procs.start("redis", self.redis_argv())
        self._wait(self.redis, lambda: os.path.exists(socket), "listens")

    def start_controller(self):
        self.controller = self.procs.start("controller", self.controller_argv())
        self._wait(self.controller, lambda: listens(self.controller_admin), "answers")

    def start_worker(self, name):
        self.nodes[name].proc = self.procs.start(f"worker-{name}", self.worker_argv(name))

    def _wait(self, proc, condition, what):
        def check():
            if proc.poll() is not None:
                raise BenchError(f"{proc.name} ended with {proc.returncode}: "
                                 f"{self.procs.log_tail(proc.name)}")
            return condition()
        wait_until(check, START_S, f"{proc.name} {what}")

    # ---- looking ----

    def status(self):
        """What the client says of itself, or None."""
        done = subprocess.run(self.client_argv("status", "--json"), check=False,
                              capture_output=True, stdin=subprocess.DEVNULL)
        return None if done.returncode else json.loads(done.stdout)

    def in_use(self):
        """What the client says of the exit it uses, or {}."""
        exits = (self.status() or {}).get("exits", [])
        return next((e for e in exits if e["in_use"]), {})

    def health(self):
        """{node's name: what the controller judges}"""
        return {n["name"].partition("/")[0]: n
                for n in self.operator.get("/v1/health")["nodes"]}

    def all_healthy(self):
        health = self.health()
        return (len(health) == len(self.nodes)
                and all(n["health"] == "healthy" for n in health.values()))

    def applied(self):
        """{node's name: (epoch, sequence) that its worker acknowledged last}"""
        return {n["name"].partition("/")[0]:
                (n["applied"]["epoch"], n["applied"]["sequence"])
                for n in self.operator.get("/v1/nodes")["nodes"] if "applied" in n}

    def sessions(self):
        """[{"id", "node", "user", ...}], from Redis"""
        return self.operator.json("get", "sessions")["sessions"]

    def events(self, kind, about=""):
        return [e for e in self.operator.get(f"/v1/events?limit=1000&kind={kind}")["events"]
                if not about or e["about"] == about]

    def worker_metrics(self, name):
        return parse_metrics(http_get(self.nodes[name].agent_admin, "/metrics")[1])

    def exit_metrics(self, name):
        """Those of the exit process itself; worker_metrics() has the agent's."""
        return parse_metrics(http_get(self.nodes[name].admin, "/metrics")[1])

    # ---- hurting ----

    def kill(self, name):
        """SIGKILL to all processes of a worker; their pids."""
        return self.kill_proc(self.nodes[name].proc)

    def kill_proc(self, proc):
        pids = self.procs.tree(proc)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        proc.wait()
        return pids

    def exit_pid(self, name):
        """The exit process of a worker; None: there is none."""
        for pid in self.procs.tree(self.nodes[name].proc):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read() == "sallyport-exit\n":
                    return pid
        return None

    def kill_exit(self, name):
        """SIGKILL to the exit process alone; its pid, or None: there is none."""
        pid = self.exit_pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid

    def upgrade(self, name):
        """sallyport-worker --upgrade, to its end: (exit status, what it said)."""
        done = subprocess.run([self.program("sallyport-worker"), "--upgrade",
                               *self.worker_argv(name)[1:]], check=False, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=START_S)
        return done.returncode, (done.stdout + done.stderr).strip()

    def exit_of_client(self, name):
        """What the client says of one exit, or {}."""
        exits = (self.status() or {}).get("exits", [])
        return next((e for e in exits if e["name"] == name), {})

    def stop_worker(self, name):
        """SIGSTOP to all processes of a worker: its port stays open."""
        node = self.nodes[name]
        node.stopped = True
        for pid in self.procs.tree(node.proc):
            os.kill(pid, signal.SIGSTOP)

    def continue_worker(self, name):
        node = self.nodes[name]
        for pid in reversed(self.procs.tree(node.proc)):  # the keeper last
            os.kill(pid, signal.SIGCONT)
        node.stopped = False

    def end(self):
        """The client first, so that no worker has to wait for streams when it drains."""
        for node in self.nodes.values():
            if node.stopped and node.proc.poll() is None:
                self.continue_worker(node.name)
        workers = [n.proc for n in self.nodes.values() if n.proc]
        for group in ([self.client], [*self.vantages.values(), *workers],
                      [self.controller, self.redis]):
            group = [p for p in group if p and p.poll() is None]
            for proc in group:
                self.procs.tree(proc)
                proc.terminate()
            for proc in group:
                self.procs.end(proc)
