"""What is done to the worker in use while a download goes on through it: its exit process killed
again and again, under an upload beside; a broken program and a new one installed; its address
blocked for the client. It only does and measures; survivalclaims.py judges. What is done to
carriers: scenario.py."""
import contextlib
import os
import subprocess
import time

from operations import ms_since
from procs import BenchError, wait_until
from timeline import GREEN, RED, grouped
from transfer import Upload

FILE = "/file?sallyport"
LOOK_EACH_S = 0.05   # a look at the client's status is a process
RELAYED_S = 1.5      # of the download, to be seen
VIA_S, DIRECT_S = 5, 10
BACK_S = 5           # another exit process is there long before, or never
UPLOAD_RATE = 2_000_000
UPLOAD_ENDS_S = 10
UPLOAD = "/upload?sallyport"


class Survival:
    def __init__(self, place, timeline):
        self.place, self.fleet, self.timeline = place, place.fleet, timeline
        self.upload = None

    # ---- an upload beside ----

    def begin_upload(self):
        place = self.place
        self.upload = Upload(place.procs, "curl-upload", self.fleet.socks_port,
                             place.url(UPLOAD.lstrip("/")), place.content, UPLOAD_RATE)
        place.note_pids()
        wait_until(lambda: self.upload.sent > UPLOAD_RATE / 10, BACK_S, "the upload runs")

    def end_upload(self):
        """Its last byte is sent; what the origin had of it."""
        status, answer = self.upload.finish(UPLOAD_ENDS_S)
        wanted = self.place.content.prefix_sha256(self.upload.sent)
        seen = [r for r in self.place.requests() if r["path"] == UPLOAD]
        report = {"curl_exit": status, "sent": self.upload.sent, "sha256": wanted,
                  "sha256_of_origin": answer, "at_origin": seen,
                  "requests": self.place.at_origin(UPLOAD)["requests"]}
        good = status == 0 and answer == wanted
        self.timeline.say(f"curl upload beside: exit {status}, {grouped(self.upload.sent)} "
                          f"bytes, SHA-256 at the origin {'equal' if good else 'WRONG'}",
                          GREEN if good else RED)
        return report

    def stop(self):
        if self.upload:
            self.upload.stop()

    # ---- the exit process is killed ----

    def crash(self, path):
        """kill -9 of the exit process of that worker, and of shadowsocks' server, which is
        started again."""
        fleet, peer = self.fleet, self.place.shadowsocks
        began, before = self.timeline.now(), fleet.kill_exit(path)
        report = {"pid": before, "pid_after": None}
        if before is None:
            return {"exit_process": report}
        report["peer_pid"] = peer.kill_server()
        with contextlib.suppress(BenchError):  # that there is none is judged
            report["pid_after"] = wait_until(lambda: self._other_exit(path, before), BACK_S,
                                             "another exit process")
            report["back_ms"] = ms_since(began)
        peer.start_server()
        self.place.note_pids()
        return {"exit_process": report}

    def _other_exit(self, path, pid):
        now = self.fleet.exit_pid(path)
        return now if now != pid and self.fleet.nodes[path].proc.poll() is None else None

    # ---- another program is installed ----

    def rollback(self, path):
        """A program that passes its own check and crashes when it runs is installed."""
        with open(os.path.join(self.place.build, "tools", "worker-crash"), "rb") as f:
            return self._upgrade(path, f.read())

    def upgrade(self, path):
        """The same program is installed as a version that differs in one digit."""
        old, _, commit = self._version(self.fleet.program("sallyport-worker")).partition("+")
        new = old[:-1] + str((int(old[-1]) + 1) % 10)
        with open(self.fleet.program("sallyport-worker"), "rb") as f:
            data = f.read().replace(f"{old}+{commit}".encode(), f"{new}+{commit}".encode())
        return self._upgrade(path, data)

    @staticmethod
    def _version(program):
        return subprocess.run([program, "--version"], check=True, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL).stdout.split()[1]

    def _running(self, path):
        """(pid of the exit process, version that it says)"""
        name = next((n for n in self.fleet.exit_metrics(path) if "build_info{" in n), "")
        return self.fleet.exit_pid(path), name.partition('version="')[2].partition('"')[0]

    def _upgrade(self, path, program):
        (pid, version), began = self._running(path), self.timeline.now()
        self.fleet.install(path, program)
        status, said = self.fleet.upgrade(path)
        ms = ms_since(began)
        self.place.note_pids()
        pid_after, version_after = self._running(path)
        return {"installed": {"pid": pid, "pid_after": pid_after, "version": version,
                              "version_after": version_after, "status": status, "said": said,
                              "ms": ms}}

    # ---- the address is blocked ----

    def block(self, path):
        """Whatever the client has with or sends to that worker's address vanishes, and only the
        client's; until the download was seen to go on through another worker."""
        fleet, cutter = self.fleet, self.place.cutter
        report = {"home": path, "session": fleet.exit_of_client(path).get("session")}
        began, before = self.timeline.now(), self.place.busy()
        report["carriers"] = cutter(f"hole {path} {fleet.client.pid}")[0]
        try:
            with contextlib.suppress(BenchError):  # what is missing is judged
                report["via"] = self._until(path, lambda e: e.get("via"), VIA_S)["via"]
                report["via_ms"] = ms_since(began)
                time.sleep(RELAYED_S)
                report["at_origin"] = self.place.at_origin(FILE)
                report["session_via"] = fleet.exit_of_client(path).get("session")
                report["relay_bytes"] = cutter.carried(report["via"]) - before[report["via"]]
            report["health"] = fleet.health()[path]["health"]
        finally:
            cutter(f"thaw {path}")
        thawed = self.timeline.now()
        with contextlib.suppress(BenchError):
            self._until(path, lambda e: e.get("session") and not e.get("via")
                        and e.get("state") != "relayed", DIRECT_S)
            report["direct_ms"] = ms_since(thawed)
        return {"carriers": report["carriers"], "blocked": report}

    def _until(self, path, condition, seconds):
        """What the client says of that exit, as soon as it is so."""
        def look():
            seen = self.fleet.exit_of_client(path)
            if condition(seen):
                return seen
            time.sleep(LOOK_EACH_S)
            return None
        return wait_until(look, seconds, f"the client's word of {path}")
