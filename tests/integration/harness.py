"""The programs under test, a class per program, and a stock SOCKS5 client. A `Lab` is one
test's place: a folder, keys, free ports, and processes that are all gone when it is closed;
when a test fails their logs are printed. Servers behind the exit are in servers.py."""

import asyncio
import contextlib
import ctypes
import hashlib
import http.client
import ipaddress
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from pathlib import Path as FilePath

import yaml
from servers import wait_until
from signed import NodeKey, SigningKey, pass_body, save_route_key

ROOT = FilePath(__file__).resolve().parents[2]
BUILD = FilePath(os.environ.get("SP_BUILD", ROOT / "build" / "release")).resolve()
SLOW = 4 if "address" in BUILD.name or "thread" in BUILD.name else 1  # sanitizers are slow

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1

# Ports are given below those that the kernel gives to outgoing connections, and each of
# the test runners that work side by side has a range of its own.
_RUNNER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_PORTS = range(10000 + 2800 * _RUNNER, 10000 + 2800 * (_RUNNER + 1))
_ports = itertools.cycle(random.sample(_PORTS, len(_PORTS)))


def free_port(kind=socket.SOCK_STREAM, host="127.0.0.1"):
    """A port that nobody uses and that this run has not given for long."""
    for port in itertools.islice(_ports, len(_PORTS)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
            with contextlib.suppress(OSError):
                s.bind((host, port))
                return port
    raise RuntimeError("no port is free")


class Process:
    """One program: started, watched through its log, ended by its own pid."""

    def __init__(self, lab, name, argv, nofile=0, env=None):
        self.lab, self.name, self.argv, self.nofile = lab, name, [str(a) for a in argv], nofile
        self.env = dict(os.environ, **(env or {}))
        self.log_path = lab.dir / f"{name}.log"
        self.process = None
        self.may_crash = False  # the test makes it
        lab.processes.append(self)

    def spawn(self):
        def limit():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives a killed test run
            if self.nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                preexec_fn=limit,
            )
        return self

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.alive():
            os.kill(self.process.pid, number)

    def wait(self, timeout=10):
        return self.process.wait(timeout * SLOW)

    def wait_log(self, pattern, timeout=10, after=0):
        return wait_until(
            lambda: re.search(pattern, self.log[after:]) or self._died(),
            timeout * SLOW,
            f"{self.name}: {pattern!r} in the log",
        )

    def _died(self):
        if not self.alive():
            tail = "\n".join(self.log.splitlines()[-20:])
            raise AssertionError(f"{self.name} ended with {self.process.returncode}\n{tail}")

    def stop(self, timeout=5):
        """TERM, then KILL; returns the exit status."""
        if self.process is None:
            return None
        if self.alive():
            self.signal(signal.SIGTERM)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGTERM)  # at once
                try:
                    self.wait(2)
                except subprocess.TimeoutExpired:
                    self.kill()
        return self.process.returncode

    def kill(self):
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)

    def crashed(self):
        """Ended by a fault or by a sanitizer's word; not by the test's own kill."""
        faults = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
        return not self.may_crash and (
            self.process is not None
            and -(self.process.returncode or 0) in faults
            or bool(re.search(r"runtime error:|ERROR: \w+Sanitizer", self.log))
            or bool(re.search(r"comp=keeper .* signal=(4|6|7|8|11|31) ", self.log))
        )

    def rss_kb(self):
        return rss_kb(self.pid)

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def alone():
    """Whether workers run without a keeper, as the thread sanitizer wants."""
    return "thread" in BUILD.name


def children(pid):
    """Pids of the processes that `pid` made."""
    with contextlib.suppress(FileNotFoundError):
        text = FilePath(f"/proc/{pid}/task/{pid}/children").read_text()
        return list(map(int, text.split()))
    return []


def descendants(pid):
    """Pids of those, of those that they made, and so on; parents first."""
    pids = children(pid)
    for p in pids:
        pids.extend(children(p))
    return pids


def comm(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return FilePath(f"/proc/{pid}/comm").read_text().strip()
    return None


def runs(pid):
    """Whether it is a process that has not ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def rss_kb(pid):
    text = FilePath(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))


def http_get(port, path, headers=None, timeout=10):
    """(status, text) of an admin listener on loopback."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout * SLOW)
    try:
        c.request("GET", path, headers=headers or {})
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


def parse_metrics(text):
    """{'name{label="x"}': value} of the Prometheus text format; fails on a malformed line."""
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            m = re.fullmatch(r'([a-z_0-9]+(?:\{[^{}]*\})?) ([-+0-9.eEinfNa]+)( \d+)?', line)
            assert m, f"malformed metric line: {line!r}"
            assert m.group(1) not in values, f"twice: {line!r}"
            values[m.group(1)] = float(m.group(2))
    return values


def lint_metrics(text):
    """Holds the text against the rules of Prometheus itself: what promtool says of it."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                          capture_output=True, timeout=20)
    assert done.returncode == 0 and not done.stderr, done.stderr + done.stdout


class Ctl:
    """sallyportctl, run to its end."""

    def __init__(self, lab):
        self.lab = lab

    def __call__(self, *argv, check=True, stdin=None):
        r = subprocess.run(
            [str(BUILD / "bin" / "sallyportctl"), *map(str, argv)],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=20 * SLOW,
            cwd=self.lab.dir,
        )
        if check and r.returncode:
            raise AssertionError(f"sallyportctl {argv}: {r.returncode}\n{r.stdout}{r.stderr}")
        return r


def deep_merge(base, extra):
    for k, v in extra.items():
        if isinstance(v, dict) and isinstance(base.get(k), dict):
            deep_merge(base[k], v)
        elif v is None:
            base.pop(k, None)
        else:
            base[k] = v
    return base


# ---- a stock SOCKS5 client (RFC 1928), blocking and asyncio ----

ATYP = {1: 4, 4: 16}


def socks_address(host):
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return bytes([3, len(host)]) + host.encode()
    return bytes([1 if ip.version == 4 else 4]) + ip.packed


class SocksError(OSError):
    """A reply other than 0; `code` is RFC 1928's."""

    def __init__(self, code):
        super().__init__(f"SOCKS reply {code}")
        self.code = code


def recv_exact(sock, n):
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise EOFError(f"{len(data)} of {n} bytes, then the end")
        data += part
    return data


def _socks_request(sock, command, host, port):
    sock.sendall(b"\x05\x01\x00")
    assert recv_exact(sock, 2) == b"\x05\x00"
    sock.sendall(bytes([5, command, 0]) + socks_address(host) + struct.pack(">H", port))
    head = recv_exact(sock, 4)
    n = recv_exact(sock, 1)[0] if head[3] == 3 else ATYP[head[3]]
    raw = recv_exact(sock, n)
    bound_port = struct.unpack(">H", recv_exact(sock, 2))[0]
    if head[1]:
        raise SocksError(head[1])
    return (str(ipaddress.ip_address(raw)) if head[3] != 3 else raw.decode()), bound_port


def socks_connect(proxy_port, host, port, timeout=10):
    sock = socket.create_connection(("127.0.0.1", proxy_port), timeout * SLOW)
    try:
        _socks_request(sock, 1, host, port)
    except BaseException:
        sock.close()
        raise
    return sock


class SocksUdp:
    """A UDP association; `send` and `recv` take care of the header."""

    def __init__(self, proxy_port, timeout=5):
        self.control = socket.create_connection(("127.0.0.1", proxy_port), timeout * SLOW)
        host, port = _socks_request(self.control, 3, "0.0.0.0", 0)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.settimeout(timeout * SLOW)
        self.relay = (host if host != "0.0.0.0" else "127.0.0.1", port)

    def send(self, host, port, data):
        self.sock.sendto(
            b"\0\0\0" + socks_address(host) + struct.pack(">H", port) + data, self.relay
        )

    def recv(self):
        data = self.sock.recv(65536)
        assert data[:3] == b"\0\0\0"
        n = 1 + data[4] if data[3] == 3 else ATYP[data[3]]
        return data[4 + n + 2 :]

    def ask(self, host, port, data):
        self.send(host, port, data)
        return self.recv()

    def close(self):
        self.sock.close()
        self.control.close()


async def socks_open(proxy_port, host, port):
    """asyncio: (reader, writer) of a stream through the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port, limit=1 << 18)
    try:
        request = b"\x05\x01\x00\x05\x01\x00" + socks_address(host) + struct.pack(">H", port)
        writer.write(request)
        head = await reader.readexactly(6)
        n = (await reader.readexactly(1))[0] if head[5] == 3 else ATYP[head[5]]
        await reader.readexactly(n + 2)
        if head[3]:
            raise SocksError(head[3])
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def curl(proxy_port, url, *args, timeout=30, http_proxy=None):
    """Stock curl through the client; (exit status, output bytes)."""
    proxy = (
        ["--proxy", f"http://127.0.0.1:{http_proxy}", "--proxytunnel"]
        if http_proxy
        else ["--proxy", f"socks5h://127.0.0.1:{proxy_port}"]
    )
    r = subprocess.run(
        ["curl", "-sS", *proxy, "--max-time", str(timeout * SLOW), *map(str, args), url],
        capture_output=True,
        timeout=(timeout + 10) * SLOW,
    )
    return r.returncode, r.stdout + r.stderr if r.returncode else r.stdout


def curl_sha256(proxy_port, url, *args, **kw):
    status, out = curl(proxy_port, url, *args, **kw)
    assert status == 0, f"curl {url}: {status} {out[-300:]!r}"
    return len(out), hashlib.sha256(out).hexdigest()


# ---- workers and clients ----


class KeptProcess(Process):
    """A worker: a keeper, its exit, and perhaps the exit's agent."""

    def exit_pid(self):
        """The exit under its keeper; None while there is none."""
        if alone():
            return self.pid
        return next((p for p in descendants(self.pid) if comm(p) == "sallyport-exit"), None)

    def keeper_pid(self):
        """The keeper: after an upgrade it is a child of the process that was started."""
        pids = [self.pid, *descendants(self.pid)]
        exit_pid = self.exit_pid()
        return next((p for p in pids if exit_pid in children(p)), None)

    def ask(self, what):
        """`sallyport-worker --upgrade` or `--reload` to its end: (status, what it printed)."""
        r = subprocess.run([self.argv[0], f"--{what}", *self.argv[1:]], capture_output=True,
                           text=True, timeout=60 * SLOW)
        return r.returncode, r.stdout + r.stderr

    def kill(self):
        """SIGKILL to the process that was started; with it ends the exit."""
        pids = descendants(self.pid) if self.alive() else []
        super().kill()
        wait_until(lambda: not any(map(runs, pids)), 10 * SLOW, "the exit's end")

    def kill_exit(self):
        """SIGKILL to the exit alone: the keeper makes another. Its pid."""
        pid = wait_until(self.exit_pid, 10 * SLOW, "an exit")
        os.kill(pid, signal.SIGKILL)
        return pid

    def signal(self, number):
        """A stop holds the keeper too, which would take the exit for hung."""
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            super().signal(number)
            return
        below = descendants(self.pid) if self.alive() else []
        pids = [self.pid, *(p for p in below if comm(p) in ("sallyport-keep", "sallyport-exit"))]
        if number == signal.SIGCONT:
            pids.reverse()
        for pid in pids if self.alive() else []:
            os.kill(pid, number)

    def rss_kb(self):
        return rss_kb(self.exit_pid())

    def fds(self):
        return len(os.listdir(f"/proc/{self.exit_pid()}/fd"))

    def agent_pid(self):
        for pid in children(self.exit_pid()) if self.exit_pid() else []:
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/cmdline", "rb") as f:
                if b"agent" in f.read().split(b"\0"):
                    return pid
        return None


class Worker(KeptProcess):
    """sallyport-worker with its files in a folder of its own."""

    def __init__(self, lab, name, start=True, nofile=0, carrier="tcp", policy=None, **config):
        self.dir = lab.dir / name
        self.dir.mkdir()
        self.carrier = carrier
        self.port, self.admin = free_port(), free_port()
        self.key = NodeKey("worker")
        self.config_path = self.dir / "worker.yaml"
        self.key.save(self.dir / "node.key")
        shutil.copy(lab.dir / "route.key", self.dir / "route.key")
        base = {
            "node": name,
            "listen": {carrier: [f"127.0.0.1:{self.port}"]},
            "keys": {"static": "node.key", "route": "route.key", "fleet": [lab.signer.text]},
            "config": "worker.signed",
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "dns": {"servers": [f"127.0.0.1:{lab.dns.port}"]},
            "log": {"level": "debug"},
        }
        if carrier == "tls":
            lab.certificate(self.dir)
            base["tls"] = {"certificate": "cert.pem", "key": "key.pem"}
            base["cover"] = f"127.0.0.1:{lab.cover_port}"
        self.config = deep_merge(base, config)
        self.write_config()
        lab.sign_worker_config(self, policy=policy)
        super().__init__(
            lab, name, [BUILD / "bin" / "sallyport-worker", "-c", self.config_path], nofile
        )
        if start:
            self.start()

    def write_config(self):
        self.config_path.write_text(yaml.safe_dump(self.config))

    def start(self):
        mark = len(self.log)
        self.spawn()
        self.wait_log(r"msg=ready", after=mark)
        return self

    def metrics(self):
        status, body = http_get(self.admin, "/metrics")
        assert status == 200
        return parse_metrics(body)

    def metric(self, name):
        """One value; a labelled one that never happened counts as 0."""
        status, body = http_get(self.admin, "/metrics")
        family = name.partition("{")[0]
        assert status == 200 and f"# TYPE {family} " in body, f"no {family}"
        return parse_metrics(body).get(name, 0)

    def exit_entry(self, path=None):
        """How a client config names this worker; `path`: through that relay."""
        carrier = {
            "kind": self.carrier,
            "address": f"127.0.0.1:{path.port if path else self.port}",
        }
        if self.carrier == "tls":
            carrier["server_name"] = "exit.example"
            carrier["ca_file"] = str(self.dir / "cert.pem")
        return {"name": self.name, "public_key": self.key.public_text, "carriers": [carrier]}


class Client(Process):
    """sallyport, with an ordered chain of workers."""

    def __init__(
        self, lab, name, workers, wait=True, start=True, paths=None, passport=None, **config
    ):
        self.dir = lab.dir / name
        self.dir.mkdir()
        self.workers = workers
        self.socks, self.http, self.admin = free_port(), free_port(), free_port()
        self.key = NodeKey("device")
        self.key.save(self.dir / "device.key")
        self.config_path = self.dir / "client.yaml"
        base = {
            "socks": {"listen": [f"127.0.0.1:{self.socks}"]},
            "http": {"listen": [f"127.0.0.1:{self.http}"]},
            "keys": {"device": "device.key", "fleet": [lab.signer.text]},
            "pass": "device.pass",
            "exits": "exits.signed",
            "state_dir": "state",
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "log": {"level": "debug"},
        }
        self.config = deep_merge(base, config)
        self.config_path.write_text(yaml.safe_dump(self.config))
        serial = os.urandom(16)
        self.pass_serial = serial.hex()
        body = pass_body(self.key.public, serial=serial, **(passport or {}))
        (self.dir / "device.pass").write_bytes(lab.signer.blob("pass", body))
        (self.dir / "device.pass").chmod(0o600)
        self.signer = lab.signer
        self.sign_exits(workers, paths=paths)
        super().__init__(
            lab, name, [BUILD / "bin" / "sallyport", "up", "-c", self.config_path]
        )
        if start:
            self.before = self._attached()
            self.spawn()
            wait_until(self.listening, 10 * SLOW, f"{name}: its SOCKS port")
            if wait:
                wait_until(lambda: self.ready() or self._died(), 10 * SLOW, f"{name}: a session")

    def sign_exits(self, workers, paths=None, epoch=1, seq=1, signer=None):
        exits = [w.exit_entry((paths or {}).get(w.name)) for w in workers]
        revision = {"epoch": epoch, "sequence": seq}
        body = {"format": 1, "revision": revision, "exits": exits}
        file = (signer or self.signer).json_file("client-config", body)
        (self.dir / "exits.signed").write_bytes(file)

    def run(self, *argv):
        """sallyport with this client's config, run to its end."""
        return subprocess.run(
            [BUILD / "bin" / "sallyport", "-c", self.config_path, *map(str, argv)],
            capture_output=True,
            text=True,
            timeout=60 * SLOW,
        )

    def status(self):
        r = self.run("status", "--json")
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)

    def exit(self, name):
        """What the status says of one exit."""
        return next(x for x in self.status()["exits"] if x["name"] == name)

    def in_use(self):
        return next(x["name"] for x in self.status()["exits"] if x["in_use"])

    def listening(self):
        self._died()
        with contextlib.suppress(OSError), socket.create_connection(
            ("127.0.0.1", self.socks), 1
        ):
            return True

    def _attached(self):
        name = 'sallyport_worker_sessions{state="attached"}'
        return sum(w.metric(name) for w in self.workers if w.alive())

    def ready(self):
        """A worker has got a session more than before this client."""
        return self._attached() > self.before


class Pair:
    """One worker and one client in front of it."""

    def __init__(self, lab, worker, client):
        self.lab, self.worker, self.client, self.dns = lab, worker, client, lab.dns
        self.socks = client.socks


ALLOW_LOOPBACK = ["allow 127.0.0.0/8", "allow [::1]"]


class Lab:
    """Where one test, or all tests of a file, happen."""

    def __init__(self, servers, dns, cover_port=0):
        self.dir = FilePath(tempfile.mkdtemp(prefix="sallyport-lab-"))
        self.servers, self.dns, self.cover_port = servers, dns, cover_port
        self.processes = []
        self.signer = SigningKey()
        save_route_key(self.dir / "route.key")
        self.ctl = Ctl(self)

    def certificate(self, folder):
        """A self-signed certificate for exit.example: cert.pem and key.pem in `folder`."""
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
            "-subj /CN=exit.example -addext subjectAltName=DNS:exit.example "
            "-keyout key.pem -out cert.pem".split(),
            cwd=folder,
            check=True,
            capture_output=True,
        )
        (folder / "key.pem").chmod(0o600)

    def sign_worker_config(
        self, worker, seq=1, policy=None, revoked=(), tiers=None, members=()
    ):
        config = {
            "format": 1,
            "revision": {"epoch": 1, "sequence": seq},
            "tiers": tiers or {"standard": {}},
            "exit_policy": ALLOW_LOOPBACK if policy is None else policy,
            "pass_keys": [self.signer.text],
            "revoked": list(revoked),
        }
        if members:
            config["members"] = [m.exit_entry() for m in members]
        path = worker.dir / "worker.signed"
        path.write_bytes(self.signer.json_file("worker-config", config))

    def worker(self, name="worker", **kw):
        return Worker(self, name, **kw)

    def client(self, name, workers, **kw):
        return Client(self, name, workers, **kw)

    def pair(self, worker=None, client=None, worker_nofile=0, passport=None, carrier="tcp"):
        w = self.worker(nofile=worker_nofile, carrier=carrier, **(worker or {}))
        c = self.client("client", [w], passport=passport, **(client or {}))
        return Pair(self, w, c)

    def close(self, failed=False):
        for p in reversed(self.processes):
            p.stop(2)
        crashed = [p.name for p in self.processes if p.crashed()]
        if failed or crashed:
            for p in self.processes:
                lines = p.log.splitlines()
                print(f"---- {p.name}, its last lines of {len(lines)}:")
                print("\n".join(lines[-60:]))
        shutil.rmtree(self.dir, ignore_errors=True)
        assert not crashed, f"crashed: {crashed}"
