"""tests/tools/hostile.c, a peer that means harm to a controller's bus."""

import json
import subprocess

from harness import BUILD, SLOW


class Hostile:
    """Has the control key of an enrolled worker, and speaks as it likes."""

    def __init__(self, worker, folder=None):
        enrol = worker.lab.controller.config["bus"]["enrol"]
        self.name, self.log_path = "hostile", worker.lab.dir / "hostile.log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [BUILD / "tools" / "hostile", folder or worker.dir / "state", f"tcp://{enrol}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        worker.lab.processes.append(self)

    def __call__(self, do, **what):
        self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def link(self, **how):
        return self("link", **how)["link"]

    def say(self, kind, **what):
        return self("say", kind=kind, **what)["sent"]

    def bytes(self, n, times=1, frames=1, of=""):
        return self("bytes", len=n, times=times, frames=frames, **({"of": of} if of else {}))

    def hear(self, wait_for=10):
        """What came next, or None."""
        heard = self("hear", ms=int(wait_for * SLOW * 1000))["heard"]
        return heard[0] if heard else None

    def ask(self, kind, **what):
        """Says it as a call, and hears its answer."""
        self.say(kind, call=7, **what)
        return self.hear()

    def join(self, **how):
        """A link with a hello, welcomed."""
        assert self.link(**how) == "up"
        self.say("hello")
        assert self.hear()["kind"] == WELCOME
        return self

    # ---- as the lab ends its processes ----

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def stop(self, timeout=5):
        if self.alive():
            self.process.stdin.close()
            self.process.wait(timeout * SLOW)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def crashed(self):
        return (self.process.returncode or 0) < -10 or "Sanitizer" in self.log


WELCOME, SNAPSHOT, REVISIONS, SESSION, REFUSED = 3, 4, 5, 7, 10
UNAVAILABLE, STORED, ADOPTED, FRESH, NOT_YOURS = 0, 1, 2, 3, 4  # of a SESSION
