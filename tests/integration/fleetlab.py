"""A whole fleet on loopback: a redis-server of its own, a controller, workers that enrolled,
health checkers, clients that poll. Everything real; only the addresses are loopback's."""

import contextlib
import shutil
import signal
import subprocess

import fleetfiles
import yaml
from harness import BUILD, SLOW, Client, KeptProcess, Process, free_port, http_get, parse_metrics
from servers import wait_until
from signed import write_secret


class Redis(Process):
    def __init__(self, lab):
        self.dir = lab.dir / "redis"
        self.dir.mkdir()
        self.socket = self.dir / "s"
        super().__init__(lab, "redis", fleetfiles.redis_argv(self.dir, self.socket))

    def start(self):
        self.spawn()
        wait_until(lambda: self.answers() or self._died(), 10 * SLOW, "redis-server answers")
        return self

    def answers(self):
        return self.cli("PING") == "PONG"

    def cli(self, *argv):
        done = subprocess.run(["redis-cli", "-s", self.socket, *map(str, argv)],
                              capture_output=True, text=True, timeout=10)
        return done.stdout.strip()


class Controller(Process):
    def __init__(self, lab, **config):
        self.dir = lab.dir / "controller"
        self.dir.mkdir(exist_ok=True)
        self.socket, self.config_path = self.dir / "api.sock", self.dir / "controller.yaml"
        ports = [free_port() for _ in range(5)]
        self.admin, self.endpoint = ports[3], ports[4]
        for kind in fleetfiles.KEYS:
            lab.ctl("keys", kind, "-o", self.dir / f"{kind}.key")
        self.config = {
            **fleetfiles.controller_config("test", lab.redis.socket, ports[:3], self.endpoint,
                                           self.admin),
            "log": {"level": "debug"}, **config}
        self.config_path.write_text(yaml.safe_dump(self.config))
        self.signing_key = (self.dir / "signing.pub").read_text().strip()
        super().__init__(lab, "controller",
                         [BUILD / "bin" / "sallyport-controller", "-c", self.config_path])

    def start(self):
        self.spawn()
        wait_until(lambda: self.answers() or self._died(), 10 * SLOW, "the controller answers")
        return self

    def answers(self):
        with contextlib.suppress(OSError):
            return http_get(self.admin, "/livez")[0] == 200

    def metrics(self):
        return parse_metrics(http_get(self.admin, "/metrics")[1])


class FleetWorker(KeptProcess):
    """A worker that joined with a one-time token and gets its config from the controller."""

    def __init__(self, lab, name, number=0, folder=None, **config):
        self.node, self.number, self.full = name, number, f"{name}/{number}"
        self.dir = lab.dir / (folder or f"{name}-{number}")
        self.dir.mkdir()
        self.port, self.admin, self.agent_admin = free_port(), free_port(), free_port()
        self.config_path = self.dir / "worker.yaml"
        self.config = {
            **fleetfiles.worker_config(name, number, "tcp", self.port, lab.dns.port,
                                       self.admin, self.agent_admin),
            "log": {"level": "debug"}, **config}
        self.config_path.write_text(yaml.safe_dump(self.config))
        super().__init__(lab, self.dir.name,
                         [BUILD / "bin" / "sallyport-worker", "-c", self.config_path])

    def entry(self, region="eu", **more):
        return {**fleetfiles.node_entry(self.node, self.number, region, "tcp", self.port,
                                        self.port), **more}

    def enrol(self, token=None):
        token = token or self.lab.enrol_token(self.full)
        return subprocess.run([*self.argv, "enroll", "--token", token], capture_output=True,
                              text=True, timeout=30 * SLOW)

    def start(self):
        self.spawn()
        wait_until(lambda: self.ready() or self._died(), 15 * SLOW, f"{self.full} is ready")
        return self

    def ready(self):
        with contextlib.suppress(OSError):
            return http_get(self.admin, "/readyz")[0] == 200

    def metrics(self):
        return parse_metrics(http_get(self.agent_admin, "/metrics")[1])


class Vantage(Process):
    """A health checker that joined with a one-time token."""

    def __init__(self, lab, name, region="eu", **config):
        self.vantage, self.region = name, region
        self.dir = lab.dir / f"vantage-{name}"
        self.dir.mkdir()
        self.admin = free_port()
        self.config_path = self.dir / "healthcheck.yaml"
        self.config = {**fleetfiles.vantage_config(self.admin), "log": {"level": "debug"},
                       **config}
        self.write_config()
        super().__init__(lab, f"vantage-{name}",
                         [BUILD / "bin" / "sallyport-healthcheck", "-c", self.config_path])

    def write_config(self):
        self.config_path.write_text(yaml.safe_dump(self.config))

    def enrol(self, token=None):
        token = token or self.lab.vantage_token(self.vantage, self.region)
        return subprocess.run([*self.argv, "enroll", token], capture_output=True, text=True,
                              timeout=30 * SLOW)

    def start(self):
        self.spawn()
        wait_until(lambda: self.ready() or self._died(), 15 * SLOW, f"{self.name} is ready")
        return self

    def ready(self):
        with contextlib.suppress(OSError):
            return http_get(self.admin, "/readyz")[0] == 200

    def metrics(self):
        return parse_metrics(http_get(self.admin, "/metrics")[1])


class FleetClient(Client):
    """A client that asks the controller's endpoint."""

    def __init__(self, lab, name, user, **config):
        super().__init__(lab, name, [], start=False)
        del self.config["pass"], self.config["exits"]
        self.config.update({
            "endpoints": [fleetfiles.endpoint_url(lab.controller.endpoint)],
            "token": "token", **config})
        self.config["keys"]["fleet"] = [lab.controller.signing_key]
        self.config_path.write_text(yaml.safe_dump(self.config))
        self.token = lab.token(user)
        write_secret(self.dir / "token", self.token)

    def start(self):
        self.spawn()
        wait_until(self.listening, 15 * SLOW, f"{self.name}: its SOCKS port")
        wait_until(lambda: self.ready() or self._died(), 15 * SLOW, f"{self.name}: a session")
        return self

    def ready(self):
        with contextlib.suppress(OSError):
            return http_get(self.admin, "/readyz")[0] == 200


class FleetLab:
    """`workers`: names of nodes, or (name, region)."""

    def __init__(self, lab, workers=("a", "b"), tiers=None, users=("alice",), **controller):
        self.lab, self.dir, self.dns, self.ctl = lab, lab.dir, lab.dns, lab.ctl
        self.processes, self.signer, self.servers = lab.processes, lab.signer, lab.servers
        self.certificate = lab.certificate
        self.redis = Redis(self).start()
        self.controller = Controller(self, **controller).start()
        self.operator = fleetfiles.Operator(BUILD / "bin" / "sallyportctl",
                                            self.controller.socket, 30 * SLOW)
        self.run, self.json, self.head = (self.operator.run, self.operator.json,
                                          self.operator.head)
        self.enrol_token, self.vantage_token, self.token = (
            self.operator.enrol_token, self.operator.vantage_token, self.operator.user_token)
        self.workers = {}
        for w in workers:
            name, region = w if isinstance(w, tuple) else (w, "eu")
            self.workers[name] = (FleetWorker(self, name), region)
        self.fleet = {
            "fleet": "test",
            "endpoints": [fleetfiles.endpoint_url(self.controller.endpoint)],
            "refresh": "1s",
            "regions": [{"name": r} for r in sorted({r for _, r in self.workers.values()})],
            "tiers": tiers or [{"name": "standard"}],
            "exit_policy": ["127.0.0.0/8", "[::1]"],
            "nodes": [w.entry(region) for w, region in self.workers.values()],
            "users": [{"name": u, "tier": "standard"} for u in users],
        }
        self.apply()

    def __getitem__(self, name):
        return self.workers[name][0]

    # ---- the operator ----

    def apply(self, *options, check=True, **change):
        self.fleet.update(change)
        path = self.dir / "fleet.yaml"
        path.write_text(yaml.safe_dump(self.fleet))
        return self.operator.apply(path, *options, check=check)

    # ---- starting ----

    def start(self, *names):
        for name in names or self.workers:
            done = self[name].enrol()
            assert done.returncode == 0, done.stdout + done.stderr
            self[name].start()
        return self

    def vantages(self, *names, **config):
        """`names`: of vantages, or (name, region)."""
        started = []
        for n in names:
            v = Vantage(self, *(n if isinstance(n, tuple) else (n,)), **config)
            done = v.enrol()
            assert done.returncode == 0, done.stdout + done.stderr
            started.append(v.start())
        return started

    def client(self, name="client", user="alice", **config):
        return FleetClient(self, name, user, **config).start()

    def restart_controller(self, number=signal.SIGKILL):
        self.controller.signal(number)
        self.controller.wait()
        self.controller.start()

    def forget(self, *names):
        """A worker's state folder is lost."""
        for name in names:
            shutil.rmtree(self[name].dir / "state", ignore_errors=True)
