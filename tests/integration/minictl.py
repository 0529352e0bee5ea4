"""A controller in memory (tests/tools/minictl.c) and workers that are enrolled with it."""

import base64
import json
import re
import subprocess
import threading
import time

import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from harness import ALLOW_LOOPBACK, BUILD, SLOW, KeptProcess, deep_merge, free_port, http_get, parse_metrics
from servers import wait_until
from signed import key_text, raw_public

WORKER = BUILD / "bin" / "sallyport-worker"


class MiniController:
    """Commands go in as JSON lines, messages of workers come out as events."""

    def __init__(self, lab):
        self.lab = lab
        self.process = subprocess.Popen(
            [str(BUILD / "tools" / "minictl")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name, self.log = "minictl", ""
        self.events, self._answers = [], []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        lab.processes.append(self)
        self.signing = self._answer()["signing"]

    def _read(self):
        for line in self.process.stdout:
            o = json.loads(line)
            o["at"] = time.monotonic()
            with self._changed:
                (self.events if "event" in o else self._answers).append(o)
                self._changed.notify_all()

    def _answer(self):
        with self._changed:
            assert self._changed.wait_for(lambda: self._answers, 20 * SLOW), "no answer"
            return self._answers.pop(0)

    def __call__(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def put(self, **entries):
        """A revision; `__` in a name stands for `/`. Its sequence."""
        return self(put={k.replace("__", "/"): v for k, v in entries.items()})["sequence"]

    def wait(self, event, timeout=10, after=0, **want):
        """The first such event behind the `after` first ones."""

        def find():
            for e in self.events[after:]:
                if e["event"] == event and all(e.get(k) == v for k, v in want.items()):
                    return e
            return None

        with self._changed:
            found = self._changed.wait_for(find, timeout * SLOW)
            assert found, f"no {event} {want} in {self.events[after:][-8:]}"
            return find()

    def mark(self):
        with self._changed:
            return len(self.events)

    def last(self, event):
        with self._changed:
            return next((e for e in reversed(self.events) if e["event"] == event), None)

    def used(self, user):
        """Bytes up and down of a user, all boots."""
        totals = (self.last("usage") or {"totals": {}})["totals"].get(user, {})
        return sum(t["up"] for t in totals.values()), sum(t["down"] for t in totals.values())

    def found(self, **more):
        """A fleet with one tier and whatever else."""
        return self.put(
            **{
                "keys": {"pass": [self.lab.signer.text]},
                "tier__standard": {},
                "policy": {"rules": ALLOW_LOOPBACK},
                "region__eu": {},
                **more,
            }
        )

    # as a Process
    def alive(self):
        return self.process.poll() is None

    def stop(self, timeout=5):
        if self.alive():
            self.process.stdin.close()
            self.process.wait(timeout * SLOW)

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def crashed(self):
        return self.process.returncode not in (None, 0, -9)


class EnrolledWorker(KeptProcess):
    """sallyport-worker whose config comes from a controller."""

    carrier = "tcp"

    def __init__(self, lab, ctl, name="fra1", start=True, enrol=True, **config):
        self.dir, self.ctl = lab.dir / name, ctl
        self.dir.mkdir()
        self.port, self.admin, self.agent_admin = free_port(), free_port(), free_port()
        self.config_path, self.state = self.dir / "worker.yaml", self.dir / "state"
        base = {
            "node": name,
            "listen": {"tcp": [f"127.0.0.1:{self.port}"]},
            "control": {"folder": "state"},
            "agent": {"listen": f"127.0.0.1:{self.agent_admin}"},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "dns": {"servers": [f"127.0.0.1:{lab.dns.port}"]},
            "log": {"level": "debug"},
        }
        self.config = deep_merge(base, config)
        self.config_path.write_text(yaml.safe_dump(self.config))
        super().__init__(lab, name, [WORKER, "-c", self.config_path])
        if enrol:
            r = self.enrol(ctl(token=f"{name}/0")["token"])
            assert r.returncode == 0, r.stderr
        if start:
            self.start()

    def enrol(self, token):
        return self.run("enroll", "--token", token)

    def run(self, *argv, stdin=None):
        return subprocess.run(
            [WORKER, "-c", self.config_path, *map(str, argv)],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=40 * SLOW,
        )

    def start(self):
        mark = len(self.log)
        self.spawn()
        self.wait_log(r"msg=ready", after=mark)
        return self

    def public_text(self):
        text = (self.state / "static.key").read_text().strip()
        secret = base64.b64decode(text.partition(":")[2])
        key = X25519PrivateKey.from_private_bytes(secret)
        return key_text("worker", False, raw_public(key))

    def exit_entry(self, path=None):
        address = f"127.0.0.1:{path.port if path else self.port}"
        return {
            "name": self.name,
            "public_key": self.public_text(),
            "carriers": [{"kind": "tcp", "address": address}],
        }

    def ready(self):
        return http_get(self.admin, "/readyz")[0] == 200

    def wait_ready(self, timeout=10):
        wait_until(self.ready, timeout * SLOW, f"{self.name}: ready")
        return self

    def _get(self, port, name):
        status, body = http_get(port, "/metrics")
        family = name.partition("{")[0]
        assert status == 200 and f"# TYPE {family} " in body, f"no {family}"
        return parse_metrics(body).get(name, 0)

    def metric(self, name):
        return self._get(self.admin, name)

    def agent_metric(self, name):
        return self._get(self.agent_admin, name)

    def agent_pid(self):
        pids = re.findall(r"comp=agent msg=started pid=(\d+)", self.log)
        return int(pids[-1]) if pids else 0
