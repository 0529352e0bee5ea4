"""Networks for tests: ends in network namespaces of their own, joined by the project's link
emulator (tests/tools/linkemu), and programs and sockets inside them.

    with Net({"client": "10.77.0.1", "exit": "10.77.0.2"}) as net:
        net("link client exit delay=25ms rate=20mbit queue=64k")
        with net.inside("exit"):
            server = socket.create_server(("10.77.0.2", 0))
        net("cut client exit")

A namespace has no name and belongs to the emulator's process: when that and what runs
inside are gone, also after a SIGKILL of the test, nothing is left. A worker and a client
at such ends are harness.py's with another place to live."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from harness import BUILD, Client, Worker, socks_connect

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


def why_not():
    """Why there can be no namespaces and devices here; empty: there can."""
    if os.geteuid() != 0:
        return "the link emulator needs root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as e:
        return f"the link emulator needs /dev/net/tun: {e.strerror}"
    return ""


needs_net = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


def _setns(fd):
    if LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Answer(dict):
    """An answer of the emulator: `at` (time.monotonic() of it) and counters."""

    def __getattr__(self, name):
        return self[name]


class Net:
    """Ends by name with their addresses, all in one network. Call it with a command."""

    def __init__(self, ends, seed=1, bits=24):
        self.address = dict(ends)
        self._lock = threading.Lock()
        self.process = subprocess.Popen(
            [BUILD / "tools" / "linkemu", "--seed", str(seed)]
            + [f"{name}={address}/{bits}" for name, address in ends.items()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        word, *rest = self.process.stdout.readline().split() or [""]
        if word != "ready":
            self.process.wait(10)
            raise RuntimeError("linkemu did not start; its words are above")
        self._ns = {}
        for part in rest:
            name, _, path = part.partition("=")
            self._ns[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self, command):
        """Carries out a command; raises if the emulator refuses it."""
        with self._lock:
            self.process.stdin.write(command + "\n")
            line = self.process.stdout.readline().rstrip("\n")
        verdict, _, rest = line.partition(" ")
        if verdict != "ok":
            raise ValueError(f"{command}: {line or 'linkemu ended'}")
        answer = Answer()
        answer["line"] = rest
        for part in rest.split(" "):
            key, equals, value = part.partition("=")
            if equals:
                answer[key] = float(value) if "." in value else int(value)
        return answer

    def flows(self):
        """[(source, destination, bytes there, bytes back, frozen)], newest first."""
        ret = []
        for part in self("flows").line.split(" ")[1:]:
            ends, there, back, *frozen = part.split("/")
            ret.append((*ends.split(">"), int(there), int(back), bool(frozen)))
        return ret

    @contextlib.contextmanager
    def inside(self, end):
        """This thread is in the end's namespace meanwhile: sockets made and programs started
        are there and stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._ns[end])
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def cpu_s(self):
        """CPU time that the emulator has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        for fd in self._ns.values():
            os.close(fd)
        self._ns = {}
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- the programs under test in it ----


class NetWorker(Worker):
    """A worker at an end."""

    def __init__(self, lab, name, net, end, **config):
        self.net, self.end = net, end
        super().__init__(lab, name, start=False, **config)
        self.config["listen"] = {self.carrier: [f"{net.address[end]}:{self.port}"]}
        self.write_config()
        self.start()

    def exit_entry(self, path=None):
        entry = super().exit_entry(path)
        entry["carriers"][0]["address"] = f"{self.net.address[self.end]}:{self.port}"
        return entry

    def spawn(self):
        with self.net.inside(self.end):
            return super().spawn()

    def metrics(self):
        with self.net.inside(self.end):
            return super().metrics()

    def metric(self, name):
        with self.net.inside(self.end):
            return super().metric(name)


class NetClient(Client):
    """A client at an end."""

    def __init__(self, lab, name, net, end, workers, **config):
        self.net, self.end = net, end
        super().__init__(lab, name, workers, **config)

    def spawn(self):
        with self.net.inside(self.end):
            return super().spawn()

    def listening(self):
        with self.net.inside(self.end):
            return super().listening()

    def run(self, *argv):
        with self.net.inside(self.end):
            return super().run(*argv)

    def connect(self, host, port, timeout=10):
        """A stream through the client, as an application at this end opens it."""
        with self.net.inside(self.end):
            return socks_connect(self.socks, host, port, timeout)
