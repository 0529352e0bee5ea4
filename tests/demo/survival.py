"""What is done to the worker in use while a download goes on through it, and an upload beside:
its exit process killed, again and again. It only does and measures; survivalclaims.py judges.
What is done to carriers: scenario.py."""
import contextlib
import os
import signal

from operations import ms_since
from procs import BenchError, wait_until
from timeline import GREEN, RED, grouped
from transfer import Upload

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
        keeper, before = fleet.nodes[path].proc.pid, fleet.exit_pid(path)
        report = {"keeper": keeper, "pid": before, "pid_after": None}
        if before is None:
            return report
        began = self.timeline.now()
        os.kill(before, signal.SIGKILL)
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
