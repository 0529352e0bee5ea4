"""A whole fleet in namespaces, joined by the link emulator: the client at one end, each node
at one of its own, and at the end `hub` the controller, Redis, health checkers and the
destinations. Everything a real program."""

import base64
import contextlib
import socket
import threading

import fleetfiles
import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fleetlab import Controller, FleetClient, FleetWorker, Redis, Vantage
from harness import BUILD, SLOW, free_port
from linklab import Net
from servers import wait_until
from signed import raw_public

HUB = "10.77.0.2"
CLIENT = "10.77.0.1"


class Inside:
    """A program of fleetlab at an end of the net."""

    net = end = None

    def spawn(self):
        with self.net.inside(self.end):
            return super().spawn()

    def ready(self):
        with self.net.inside(self.end):
            return super().ready()

    def metrics(self):
        with self.net.inside(self.end):
            return super().metrics()


class NetController(Inside, Controller):
    def answers(self):
        with self.net.inside(self.end):
            return super().answers()


class NetVantage(Inside, Vantage):
    def enrol(self, token=None):
        with self.net.inside(self.end):
            return super().enrol(token)


class NetNode(Inside, FleetWorker):
    """A worker alone on its node."""

    def __init__(self, fleet, name, address, **config):
        self.net, self.end, self.address = fleet.net, name, address
        super().__init__(fleet, name, **config)
        self.config["listen"] = {"tcp": [f"{address}:{self.port}"]}
        self.config_path.write_text(yaml.safe_dump(self.config))

    def entry(self, region="eu", **more):
        entry = super().entry(region)
        carrier = entry["carriers"][0]
        carrier["address"] = carrier["listen"] = f"{self.address}:{self.port}"
        return {**entry, **more}

    def enrol(self, token=None):
        with self.net.inside(self.end):
            return super().enrol(token)

    def public_key(self):
        """The worker's static key, 32 bytes."""
        text = (self.dir / "state" / "static.key").read_text().strip()
        secret = X25519PrivateKey.from_private_bytes(base64.b64decode(text.partition(":")[2]))
        return raw_public(secret)


class NetClient(Inside, FleetClient):
    def listening(self):
        with self.net.inside(self.end):
            return super().listening()

    def run(self, *argv):
        with self.net.inside(self.end):
            return super().run(*argv)


def class_at(kind, net, end):
    """The program's class with its place: constructors start before they know it."""
    return type(kind.__name__, (kind,), {"net": net, "end": end})


class NetFleet:
    """nodes: names. The link client - node has the delay of `delay` each way. Health checkers
    are at the end `eyes`; `more`: further ends with their addresses."""

    def __init__(self, run, nodes=("a", "b"), vantages=2, eyes="hub", delay="10ms", rate="100mbit",
                 worker=None, refresh="1s", name="fleet", more=None, **controller):
        lab = run.lab
        self.lab, self.dir, self.dns, self.ctl = lab, lab.dir / name, lab.dns, lab.ctl
        self.dir.mkdir(exist_ok=True)
        self.processes, self.signer, self.servers = lab.processes, lab.signer, lab.servers
        addresses = {n: f"10.77.0.{10 + i}" for i, n in enumerate(nodes)}
        self.net = run.keep(Net({"client": CLIENT, "hub": HUB, **addresses,
                                 **(more or {})}, seed=run.seed))
        for n in nodes:
            self.net(f"link client {n} delay={delay} rate={rate} queue=512k")
        self.redis = Redis(self).start()
        ports = [free_port() for _ in range(4)]
        bus = {k: f"{HUB}:{p}" for k, p in zip(("router", "publisher", "enrol"), ports,
                                               strict=False)}
        self.controller = class_at(NetController, self.net, "hub")(
            self, bus=bus, endpoint={"listen": f"{HUB}:{ports[3]}", "plain": True}, **controller).start()
        self.endpoint = f"http://{HUB}:{ports[3]}/v1/config"
        self.operator = fleetfiles.Operator(BUILD / "bin" / "sallyportctl",
                                            self.controller.socket, 30 * SLOW)
        self.enrol_token, self.vantage_token, self.token = (
            self.operator.enrol_token, self.operator.vantage_token, self.operator.user_token)
        self.nodes = {n: NetNode(self, n, a, **(worker or {})) for n, a in addresses.items()}
        self.fleet = {
            "fleet": "test", "endpoints": [self.endpoint], "refresh": refresh,
            "regions": [{"name": "eu"}], "tiers": [{"name": "standard"}],
            "exit_policy": ["allow 10.77.0.0/24"],
            "nodes": [w.entry() for w in self.nodes.values()],
            "users": [{"name": "alice", "tier": "standard", "max_devices": 100}],
        }
        self.apply()
        for w in self.nodes.values():
            self._enrolled(w)
        self.vantages = [self._enrolled(class_at(NetVantage, self.net, eyes)(self, f"v{i}"))
                         for i in range(vantages)]

    def _enrolled(self, program):
        done = program.enrol()
        assert done.returncode == 0, done.stdout + done.stderr
        return program.start()

    def __getitem__(self, name):
        return self.nodes[name]

    def apply(self, **change):
        self.fleet.update(change)
        path = self.dir / "fleet.yaml"
        path.write_text(yaml.safe_dump(self.fleet))
        return self.operator.apply(path)

    def client(self, name="client", **config):
        c = class_at(NetClient, self.net, "client")(
            self, name, "alice", endpoints=[self.endpoint], **config)
        return c.start()

    def all_healthy(self):
        def states():
            return [n["health"] for n in self.operator.json("get", "nodes")["nodes"]]
        wait_until(lambda: all(s == "healthy" for s in states()), 30 * SLOW, "healthy nodes")


class Answerer:
    """A UDP server at an end, as a name server: answers each question with its own bytes."""

    def __init__(self, net, end, address):
        with net.inside(end):
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind((address, 53))
        self.address, self.seen = (address, 53), set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                data, source = self.sock.recvfrom(2048)
                if not source:
                    return
                self.seen.add(source[0])
                self.sock.sendto(data, source)

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
