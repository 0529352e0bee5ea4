"""Processes of a bench run: started with a raised descriptor limit, ended by pid, always.

Nothing here ever signals a process that this run did not start: descendants are noted
with their start time while their parent lives, and both have to match.
"""
import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that could not be made, with the reason."""


def wait_until(condition, seconds, what):
    """Polls condition until it is true; returns its value, or raises after seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def free_ports(count):
    """Ports of 127.0.0.1, free now and outside the range the kernel hands out."""
    found = []
    while len(found) < count:
        port = random.randrange(12000, 32000)
        with contextlib.closing(socket.socket()) as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def listens(port):
    """Whether a TCP port of 127.0.0.1 is listened on; nothing is sent to it."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        want = f"0100007F:{port:04X}"
        return any(fields[1] == want and fields[3] == "0A"
                   for fields in map(str.split, f))


def _in_child():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_time(pid):
    """Start time of a process in ticks since boot, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return int(f.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return None


def descendants(pid):
    """Pids below pid, from the kernel's lists of children."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as f:
                    kids = [int(k) for k in f.read().split()]
                found += kids
                queue += kids
        except OSError:
            continue
    return found


class Procs:
    """Starts processes and remembers them; a context that ends them all."""

    def __init__(self, folder):
        self.folder = folder
        self.live = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for proc in reversed(list(self.live)):
            self.end(proc)

    def start(self, name, argv, pipes=False, env=None):
        """Starts argv with output to <folder>/<name>.log, or with pipes for both ends."""
        with open(os.path.join(self.folder, name + ".log"), "ab") as log:
            proc = subprocess.Popen(
                argv, cwd=self.folder, env=env, preexec_fn=_in_child,
                start_new_session=True, stderr=log,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log)
        proc.name = name
        proc.seen = {}
        self.live.append(proc)
        return proc

    def tree(self, proc):
        """Pids of proc and all its descendants, now."""
        pids = [proc.pid] + descendants(proc.pid)
        for pid in pids[1:]:
            proc.seen.setdefault(pid, start_time(pid))
        return pids

    def end(self, proc):
        """SIGTERM, then SIGKILL, to proc and to what is left of its descendants."""
        if proc not in self.live:
            return
        self.tree(proc)
        if proc.poll() is None:
            proc.terminate()
            try:
                proc.wait(5)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
        for pid, began in proc.seen.items():
            if began is not None and start_time(pid) == began:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for pipe in (proc.stdin, proc.stdout):
            if pipe:
                pipe.close()
        self.live.remove(proc)

    def log_tail(self, name, lines=3):
        """The last lines that the process of this name wrote, on one line."""
        try:
            with open(os.path.join(self.folder, name + ".log"), errors="replace",
                      encoding="utf-8") as f:
                return " | ".join(f.read().strip().splitlines()[-lines:])
        except OSError:
            return ""

    def run_json(self, name, argv, seconds):
        """Runs argv to its end; (exit status, the JSON on the last line of its output)."""
        proc = self.start(name, argv, pipes=True)
        try:
            out, _ = proc.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as e:
            raise BenchError(f"{name}: no end within {seconds} s") from e
        finally:
            self.end(proc)
        text = out.decode().strip().splitlines()
        if not text:
            raise BenchError(f"{name}: {self.log_tail(name) or 'said nothing'}")
        return proc.returncode, json.loads(text[-1])
