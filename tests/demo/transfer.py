"""A download by stock curl, read through a pipe: when bytes came, and are they right. An upload
by stock curl, whose bytes the origin checks."""
import bisect
import contextlib
import fcntl
import os
import subprocess
import threading
import time

from content import Checker

READ_BYTES, PIPE_BYTES, PIECE_BYTES = 262144, 1 << 20, 32768
F_SETPIPE_SZ = 1031
QUIET_S = 5  # curl itself gives up (exit 28) when nothing has come for so long

# what curl's exit statuses mean here
CURL_SAYS = {0: "whole", 18: "ended early", 28: "gave up waiting", 52: "empty reply",
             56: "reset by peer", 97: "refused by the proxy", 7: "cannot connect"}


def curl_argv(socks_port, url):
    """socks_port None: without a proxy"""
    proxy = (["--socks5-hostname", f"127.0.0.1:{socks_port}"] if socks_port
             else ["--noproxy", "*"])
    return ["curl", "--silent", "--show-error", "--disable", "--no-buffer",
            "--speed-limit", "1", "--speed-time", str(QUIET_S), *proxy, url]


class Transfer:
    """One run of curl. Its thread notes the time of each read, and checks what was read."""

    def __init__(self, procs, name, socks_port, url, content):
        self.procs, self.name = procs, name
        self.checker = Checker(content)
        self.lock = threading.Lock()
        self.times, self.totals = [], []  # time of a read, bytes that had come then
        self.began, self.ended, self.status = time.monotonic(), None, None
        self.proc = procs.start(name, curl_argv(socks_port, url), pipes=True)
        fcntl.fcntl(self.proc.stdout, F_SETPIPE_SZ, PIPE_BYTES)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        fd = self.proc.stdout.fileno()
        while data := os.read(fd, READ_BYTES):
            now = time.monotonic()
            with self.lock:
                self.checker.feed(data)
                self.times.append(now)
                self.totals.append(self.checker.received)
        status = self.proc.wait()
        with self.lock:
            self.ended, self.status = time.monotonic(), status

    @property
    def over(self):
        return self.ended is not None

    @property
    def received(self):
        return self.checker.received

    def says(self):
        return CURL_SAYS.get(self.status, "failed")

    def stop(self):
        """Ends curl if it still runs; what it had received stays known."""
        if not self.over:
            self.proc.terminate()
        self.thread.join(10)
        self.procs.end(self.proc)

    def longest_gap(self, begin, end):
        """The longest time without a byte that touches [begin, end], in ms. A gap counts in
        whole, also what of it lies outside; one that nothing ended goes on to `end`."""
        with self.lock:
            i = bisect.bisect_right(self.times, begin)
            j = bisect.bisect_left(self.times, end)
            marks = self.times[max(0, i - 1):j + 1]
            if not marks or j == len(self.times):
                marks.append(min(end, self.ended or end))
        return max([b - a for a, b in zip(marks, marks[1:])] + [0.0]) * 1000

    def steady(self, moment, seconds=0.3, pause_ms=150):
        """Whether the pause that `moment` caused is over: bytes have come for so long."""
        now = time.monotonic()
        return (now - moment > seconds + pause_ms / 1000
                and self.longest_gap(now - seconds, now) < pause_ms)

    def snapshot(self):
        """Counts of faults and whether the SHA-256 of what came is that of the content."""
        with self.lock:
            got, want = self.checker.prefix()
            return {"received": self.received, "sha256": got, "sha256_want": want,
                    **self.checker.faults()}


class Upload:
    """curl -T, fed from the content's beginning at a pace until finish()."""

    def __init__(self, procs, name, socks_port, url, content, rate):
        self.procs, self.content, self.rate = procs, content, rate
        self.sent, self.full = 0, threading.Event()
        self.began = time.monotonic()
        self.proc = procs.start(name, [*curl_argv(socks_port, url), "--upload-file", "-"],
                                pipes=True)
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def _write(self):
        with contextlib.suppress(OSError):  # curl has ended: its status says why
            while not self.full.wait(max(0.0, self.began + self.sent / self.rate
                                         - time.monotonic())):
                piece = self.content.map[self.sent:self.sent + PIECE_BYTES]
                self.sent += os.write(self.proc.stdin.fileno(), piece)
                if self.sent == self.content.size:
                    break
        with contextlib.suppress(OSError):
            self.proc.stdin.close()

    def finish(self, seconds):
        """Sends no more; curl's status, and its answer from the origin. None: it did not end."""
        self.full.set()
        self.thread.join(seconds)
        try:
            return self.proc.wait(seconds), self.proc.stdout.read().decode()
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            self.stop()

    def stop(self):
        self.full.set()
        if self.proc.poll() is None:
            self.proc.terminate()
        self.thread.join(10)
        self.procs.end(self.proc)
