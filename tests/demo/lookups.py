"""Look-ups by stock dig, one each 200 ms, each of another name so that nobody can cache."""
import concurrent.futures
import re
import subprocess
import threading
import time

EVERY_S = 0.2
TRIES, TRY_S = 3, 1  # dig asks again after one second, three times in all
LATE_MS = 1000


def ask(port, name):
    """Runs dig once; (answer or None, tries, ms from its start to its end)."""
    began = time.monotonic()
    argv = ["dig", "@127.0.0.1", "-p", str(port), name, "A", f"+tries={TRIES}",
            f"+time={TRY_S}", "+noedns", "+nocookie", "+comments", "+answer"]
    try:
        out = subprocess.run(argv, capture_output=True, text=True, check=False,
                             stdin=subprocess.DEVNULL, timeout=TRIES * TRY_S + 5).stdout
    except subprocess.TimeoutExpired:
        out = ""
    answer = re.search(r"^\S+\s+\d+\s+IN\s+A\s+(\S+)$", out, re.M)
    tries = 1 + len(re.findall(r"timed out", out))
    return answer and answer.group(1), tries, (time.monotonic() - began) * 1000


class Lookups:
    """Asks from start() to stop(); each result is kept."""

    def __init__(self, port, zone, expect):
        self.port, self.zone, self.expect = port, zone, expect
        self.results = []  # (when asked, answer, tries, ms), in the order of the ends
        self.pool = concurrent.futures.ThreadPoolExecutor(2 * TRIES * round(TRY_S / EVERY_S))
        self.over = threading.Event()
        self.clock = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.clock.start()

    def _run(self):
        began, count = time.monotonic(), 0
        while not self.over.wait(max(0.0, began + count * EVERY_S - time.monotonic())):
            self.pool.submit(self._one, count)
            count += 1

    def _one(self, number):
        when = time.monotonic()
        answer, tries, ms = ask(self.port, f"q{number:04}.{self.zone}")
        self.results.append((when, answer, tries, ms))

    def stop(self):
        """Asks no more, and waits for what has been asked."""
        self.over.set()
        if self.clock.is_alive():
            self.clock.join()
        self.pool.shutdown(wait=True)

    def summary(self, since=0.0):
        rows = [r for r in list(self.results) if r[0] >= since]
        good = [r for r in rows if r[1] == self.expect]
        times = sorted(r[3] for r in good) or [0.0]
        return {"asked": len(rows), "answered": len(good),
                "asked_again_by_dig": sum(r[2] > 1 for r in good),
                "later_than_1_s": sum(r[3] > LATE_MS for r in good),
                "unanswered": len(rows) - len(good),
                "ms_median": round(times[len(times) // 2], 1), "ms_max": round(times[-1], 1)}
