"""The programs under test, a class per program, and a stock SOCKS5 client. A `Lab` is one
test's place: a folder, keys, free ports, and processes that are all gone when it is closed;
when a test fails their logs are printed. Servers behind the exit are in servers.py."""

import asyncio
import contextlib
import hashlib
import http.client
import ipaddress
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path as FilePath

import yaml
from servers import LoopThread, wait_until

ROOT = FilePath(__file__).resolve().parents[2]
BUILD = FilePath(os.environ.get("SP_BUILD", ROOT / "build" / "release")).resolve()
SLOW = 4 if "address" in BUILD.name or "thread" in BUILD.name else 1  # sanitizers are slow

_given = set()


def free_port(kind=socket.SOCK_STREAM, host="127.0.0.1"):
    """A port that nobody uses and that this run has not given before."""
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
            s.bind((host, 0))
            port = s.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Process:
    """One program: started, watched through its log, ended by its own pid."""

    def __init__(self, lab, name, argv, nofile=0, env=None):
        self.lab, self.name, self.argv, self.nofile = lab, name, [str(a) for a in argv], nofile
        self.env = dict(os.environ, **(env or {}))
        self.log_path = lab.dir / f"{name}.log"
        self.process = None
        lab.processes.append(self)

    def spawn(self):
        def limit():
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
            raise AssertionError(f"{self.name} ended with {self.process.returncode}")

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

    def rss_kb(self):
        text = FilePath(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


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
