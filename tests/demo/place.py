"""Everything that runs in a demo, in one folder, on loopback, on free ports:

    curl ── client ──┬─ cutter a … e ── workers a … e ──┬── HTTP origin
     dig ── bridge ──┘  health checkers v1 … v3         └── DNS server (dnsmasq)
                        controller ── redis-server
    curl ── ss-local ── cutter ss ── ss-server ─── HTTP origin
    curl ────────────── cutter bare ────────────── HTTP origin

All processes are started here and ended here, by pid."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading

import content
import peers
from fleet import REGION_OF, Fleet
from origin import CONTROL
from procs import (BenchError, Procs, free_ports, listens, start_time,
                   wait_until)

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
ZONE, ADDRESS = "demo.test", "192.0.2.7"  # RFC 2606, RFC 5737
LAST_WORDS_S = 5
NEEDED = {"curl": "curl", "dig": "bind9-dnsutils", "dnsmasq": "dnsmasq-base",
          "openssl": "openssl", "redis-server": "redis-server", "ss-server": "shadowsocks-libev",
          "ss-local": "shadowsocks-libev"}


def missing():
    """{program: Debian package} of what has to be installed first."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {p: deb for p, deb in NEEDED.items() if not shutil.which(p, path=path)}


class Cutter:
    """tests/tools/cutter.c: one path a peer, each with connections that can be hurt."""

    def __init__(self, procs, program, paths):
        self.lock = threading.Lock()
        argv = [program] + [f"{n}={near}:{far}" for n, (near, far) in paths.items()]
        self.proc = procs.start("cutter", argv, pipes=True)
        if self.proc.stdout.readline() != b"ready\n":
            raise BenchError(f"cutter: {procs.log_tail('cutter')}")

    def __call__(self, command):
        """Gives a command; returns the numbers of the answer."""
        answer = self.raw(command).split()
        if answer[:1] != ["ok"]:
            raise BenchError(f"cutter: {command}: {' '.join(answer)}")
        return [int(n) for n in answer[3:]]

    def raw(self, command):
        with self.lock:
            self.proc.stdin.write(command.encode() + b"\n")
            self.proc.stdin.flush()
            return self.proc.stdout.readline().decode().strip()

    def carried(self, name):
        return self(f"count {name}")[1]


class CutShadowsocks(peers.Shadowsocks):
    """As in the bench, with the cutter between client and server."""

    def __init__(self, ctx, server, dial, socks):
        super().__init__(ctx)
        self.given = server, dial, socks

    def ports(self):
        return self.given

    def wait_ready(self):
        wait_until(lambda: fetches(self.socks_port, self.ctx.origin["http"]), 15,
                   f"{self.name} carries a byte")

    def kill_server(self):
        """kill -9; its pid."""
        pid = self.server.pid
        os.kill(pid, signal.SIGKILL)
        self.ctx.procs.end(self.server)
        return pid

    def start_server(self):
        self.server = self.run("server", ["ss-server", "-c", self.ctx.path("ss-server.json")])
        wait_until(lambda: listens(self.given[0]), 15, f"{self.name} listens")


def is_zombie(pid):
    """Whether it has ended, and only waits for its parent to hear of it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii",
                                            errors="replace") as f:
        return f.read().rpartition(")")[2].split()[0] == "Z"
    return False


def fetches(socks_port, origin_port):
    """Whether one byte comes through a proxy."""
    return subprocess.run(
        ["curl", "--silent", "--disable", "--max-time", "5", "--output", os.devnull,
         "--fail", "--socks5-hostname", f"127.0.0.1:{socks_port}",
         f"http://127.0.0.1:{origin_port}/quick?1"], check=False,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def socket_of(port, peer_port):
    """{"established", "inode"} of the TCP socket of loopback that has these two ports."""
    want = f"0100007F:{port:04X}", f"0100007F:{peer_port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as f:
        for fields in map(str.split, f):
            if tuple(fields[1:3]) == want:
                return {"established": fields[3] == "01", "inode": int(fields[9])}
    return {"established": False, "inode": None}


class Place:
    """A context: on entry everything is up, on exit nothing of it runs any more."""

    def __init__(self, folder, build, size, rate, seed):
        self.folder, self.build = folder, build
        self.size, self.rate, self.seed = size, rate, seed
        self.pids = {}  # pid -> start time, of all that were ever started

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        with self.stack:
            self.procs = self.stack.enter_context(Procs(self.folder))
            self._start()
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *exc):
        self.note_pids()
        self.stack.close()

    def _start(self):
        (origin, dns, self.bridge_port, near_ss, far_ss, ss_socks, self.bare_port,
         *of_nodes) = free_ports(7 + 2 * len(REGION_OF))
        paths = {name: tuple(of_nodes[2 * i:2 * i + 2]) for i, name in enumerate(REGION_OF)}
        self.origin_port = origin
        self.sha256 = self._origin(origin)
        self._dns(dns)
        self.cutter = Cutter(self.procs, os.path.join(self.build, "tools", "cutter"),
                             {**paths, "ss": (near_ss, far_ss),
                              "bare": (self.bare_port, origin)})
        ctx = peers.Context(self.procs, self.folder, self.build, None, {"http": origin})
        self.shadowsocks = CutShadowsocks(ctx, far_ss, near_ss, ss_socks)
        self.shadowsocks.start()
        self.fleet = Fleet(self.procs, self.folder, self.build, paths)
        self.stack.callback(self.fleet.end)
        self.fleet.make(dns, origin)
        self.fleet.start()
        wait_until(lambda: fetches(self.fleet.socks_port, origin), 15,
                   "sallyport carries a byte")
        self._bridge(dns)
        self.note_pids()

    def _origin(self, port):
        path = os.path.join(self.folder, "content")
        sha256 = content.make(path, self.size, self.seed)
        self.content = content.Content(path)
        self.procs.start("origin", [PYTHON, os.path.join(HERE, "origin.py"), str(port), path,
                                    str(self.rate)])
        wait_until(lambda: listens(port), 10, "the origin listens")
        return sha256

    def _dns(self, port):
        program = shutil.which("dnsmasq", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.procs.start("dnsmasq", [
            program, "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces",
            "--log-queries", "--log-facility=-", f"--address=/{ZONE}/{ADDRESS}"])
        wait_until(lambda: listens(port), 10, "dnsmasq listens")

    def _bridge(self, dns):
        proc = self.procs.start("dnsbridge", [
            PYTHON, os.path.join(HERE, "dnsbridge.py"), str(self.bridge_port),
            str(self.fleet.socks_port), str(dns)], pipes=True)
        if proc.stdout.readline() != b"ready\n":
            raise BenchError(f"dnsbridge: {self.procs.log_tail('dnsbridge')}")

    def url(self, what, port=0):
        return f"http://127.0.0.1:{port or self.origin_port}/{what}"

    def requests(self):
        """The origin's log: an object for each request that ended, but for the many by which
        health checkers look whether they are cut off."""
        return [r for r in self._origin_log() if r.get("path", CONTROL) != CONTROL]

    def _origin_log(self):
        with open(os.path.join(self.folder, "origin.log"), encoding="utf-8") as f:
            return [json.loads(line) for line in f
                    if line.startswith("{") and line.endswith("\n")]

    def at_origin(self, path):
        """How the origin sees the requests for `path` until now: their number, the source port
        of each, and of the last one what the kernel says of the socket at the other end."""
        ports = [r["from"] for r in self._origin_log() if r.get("begun") == path]
        return {"requests": len(ports), "ports": sorted(set(ports)),
                **(socket_of(ports[-1], self.origin_port) if ports else {})}

    def hurry(self, name):
        """The rest of /file?NAME comes as fast as it can."""
        subprocess.run(["curl", "--silent", "--disable", "--noproxy", "*", "--max-time", "5",
                        self.url(f"hurry?{name}")], check=True, stdin=subprocess.DEVNULL)

    def path_in_use(self, since):
        """Name of the path that carried most since the counts of busy()."""
        now = self.busy()
        return max(now, key=lambda n: now[n] - since[n])

    def busy(self):
        return {n: self.cutter.carried(n) for n in self.fleet.paths}

    def note_pids(self):
        for proc in self.procs.live:
            for pid in self.procs.tree(proc):
                self.pids.setdefault(pid, start_time(pid))

    def left_behind(self):
        """Pids of this run that still live; to be asked after the exit. An agent whose worker
        ended has its last counts to report, and a moment for that."""
        def living():
            return [p for p, began in self.pids.items()
                    if began is not None and start_time(p) == began and not is_zombie(p)]
        with contextlib.suppress(BenchError):
            wait_until(lambda: not living(), LAST_WORDS_S, "their ends")
        return living()
