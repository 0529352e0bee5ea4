"""The control plane under test: a redis-server on a unix socket, sallyport-controller, and
its operator API as an operator's program sees it."""

import base64
import http.client
import json
import signal
import socket

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness import BUILD, SLOW, Process, deep_merge, free_port, http_get, parse_metrics
from servers import wait_until
from signed import SigningKey


class Redis(Process):
    """redis-server without a port. What it holds is gone when it is killed, but for `save`."""

    def __init__(self, lab, name="redis", start=True):
        self.dir = lab.dir / name
        self.dir.mkdir()
        self.socket = self.dir / "redis.sock"
        super().__init__(lab, name, [
            "redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", self.dir,
            "--save", "", "--appendonly", "no", "--daemonize", "no"])
        if start:
            self.start()

    def start(self):
        self.socket.unlink(missing_ok=True)
        self.spawn()
        wait_until(self._answers, 10 * SLOW, f"{self.name} answers")
        return self

    def _answers(self):
        self._died()
        try:
            return self("PING") == "PONG"
        except OSError:
            return False

    def kill(self):
        self.signal(signal.SIGCONT)  # one that is frozen
        super().kill()

    def __call__(self, *words):
        """One command; its answer if that is a text, a number or nothing."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10 * SLOW)
            s.connect(str(self.socket))
            words = [str(w).encode() for w in words]
            s.sendall(b"*%d\r\n" % len(words)
                      + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            with s.makefile("rb") as f:
                line = f.readline()
                if not line:
                    raise ConnectionError("no answer")
                if line[:1] == b"$":
                    n = int(line[1:])
                    return None if n < 0 else f.read(n).decode()
                if line[:1] == b"-":
                    raise RuntimeError(line.decode().strip())
                return line[1:].decode().strip()

    def restore(self, dump):
        """Killed, and back with the content of an older `save`."""
        self.kill()
        (self.dir / "dump.rdb").write_bytes(dump)
        self.start()

    def save(self):
        """The bytes of a copy."""
        self("SAVE")
        path = self.dir / "dump.rdb"
        dump = path.read_bytes()
        path.unlink()  # a kill loses everything
        return dump


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status, self.code, self.detail = status, body.get("code"), body.get("detail", "")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("controller", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Controller(Process):
    """sallyport-controller with its keys and state in a folder of its own."""

    def __init__(self, lab, name="controller", redis=None, fleet="lab", start=True, **config):
        self.dir = lab.dir / name
        self.dir.mkdir()
        self.socket, self.admin = self.dir / "api.sock", free_port()
        for kind in ("signing", "control", "route"):
            lab.ctl("keys", kind, "-o", self.dir / f"{kind}.key")
        self.config = deep_merge({
            "fleet": fleet,
            "state_dir": "state",
            "keys": {k: f"{k}.key" for k in ("signing", "control", "route")},
            "redis": {"address": f"unix:{redis.socket if redis else self.dir / 'none.sock'}"},
            "bus": {w: f"127.0.0.1:{free_port()}" for w in ("router", "publisher", "enrol")},
            "api": {"socket": "api.sock"},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
        }, config)
        self.config_path = self.dir / "controller.yaml"
        self.write_config()
        super().__init__(lab, name,
                         [BUILD / "bin" / "sallyport-controller", "-c", self.config_path])
        if start:
            self.start()

    def write_config(self):
        self.config_path.write_text(yaml.safe_dump(self.config))

    def start(self, timeout=10):
        mark = len(self.log)
        self.spawn()
        self.wait_log(r"comp=controller msg=ready", after=mark, timeout=timeout)
        return self

    def ask(self, method, path, body=None, timeout=15):
        """The answer's object; ApiError, or OSError and http.client's if there is none."""
        c = UnixConnection(self.socket, timeout * SLOW)
        if isinstance(body, dict):
            body = json.dumps(body)
        try:
            c.request(method, path, body=body.encode() if isinstance(body, str) else body)
            r = c.getresponse()
            o = json.loads(r.read())
        finally:
            c.close()
        if r.status != 200:
            assert r.getheader("Content-Type") == "application/problem+json", o
            raise ApiError(r.status, o)
        return o

    def get(self, what):
        return self.ask("GET", f"/v1/{what}")

    def apply(self, fleet, **query):
        text = fleet if isinstance(fleet, str) else yaml.safe_dump(fleet, sort_keys=False)
        words = "&".join(f"{k}={v}" for k, v in query.items())
        return self.ask("POST", f"/v1/apply?{words}", text)

    def synced(self, timeout=15):
        """Waits until Redis stands where it does."""
        wait_until(lambda: self._died() or self.get("status")["synced"], timeout * SLOW,
                   "the controller and Redis agree")
        return self

    def ctl(self, *argv, **kw):
        return self.lab.ctl(*argv, "--socket", self.socket, **kw)

    def metrics(self):
        status, body = http_get(self.admin, "/metrics")
        assert status == 200
        return parse_metrics(body)


def sign_like(lab, controller):
    """Passes of this test are signed by the controller's key."""
    text = (controller.dir / "signing.key").read_text().strip()
    secret = base64.b64decode(text.partition(":")[2])
    lab.signer = SigningKey(Ed25519PrivateKey.from_private_bytes(secret[:32]))


def fleet_file(nodes=2, users=1, fleet="lab", **more):
    """A fleet as a dict: nodes n0… in region eu, users u0… of tier free."""
    return deep_merge({
        "fleet": fleet,
        "regions": [{"name": "eu"}],
        "tiers": [{"name": "free"}],
        "nodes": [{"name": f"n{i}", "region": "eu",
                   "carriers": [{"kind": "tcp", "address": f"192.0.2.{i + 1}:7000"}]}
                  for i in range(nodes)],
        "users": [{"name": f"u{i}", "tier": "free"} for i in range(users)],
    }, more)
