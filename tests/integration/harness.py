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
