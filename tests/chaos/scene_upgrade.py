"""upgrade: the worker's program is replaced under load, each few seconds; then by programs
that are broken."""

import shutil
import subprocess
import time

from frame import Takeovers, scenario
from harness import BUILD, SLOW
from scene_crash import CLIENT, ROOMY, losses, mix
from traffic import Traffic

PROGRAM = BUILD / "bin/sallyport-worker"


class Installed:
    """A worker whose program is a file of its own, as a package manager would replace it."""

    def __init__(self, run):
        self.path = run.lab.dir / "bin" / "sallyport-worker"
        self.path.parent.mkdir()
        self.install(PROGRAM.read_bytes())
        self.worker = run.lab.worker("worker", start=False, **ROOMY)
        self.worker.argv[0] = str(self.path)
        self.worker.start()

    def install(self, content):
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.chmod(0o755)
        new.rename(self.path)

    def upgrade(self):
        """(whether it was done, what was said); asked by a program that works."""
        done = subprocess.run([PROGRAM, "--upgrade", *self.worker.argv[1:]],
                              capture_output=True, text=True, timeout=60 * SLOW)
        return done.returncode == 0, (done.stdout + done.stderr).strip()


BROKEN = {
    "is cut off": lambda: PROGRAM.read_bytes()[:100_000],
    "is no program": lambda: b"nothing\n",
    "ends at once": lambda: b"#!/bin/sh\nexit 1\n",
    "hangs": lambda: b"#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\nexec sleep 100\n",
    "lacks a library": lambda: PROGRAM.read_bytes().replace(b"libevent_core-", b"libevent_gone-"),
}


@scenario("upgrade", seconds=180, short=4)
def upgrade(run):
    """another program each 5 s at 200 Mbit/s and 2,000 flows; then broken ones"""
    installed = Installed(run)
    client = run.lab.client("client", [installed.worker], **CLIENT)
    traffic = run.keep(Traffic(run.lab, run.seed))
    flows = run.size(1000, 40)
    steady = traffic.start(client, f"paced={flows}:12500", f"echo={flows}")
    traffic.start(client, *mix(run.size(0.2, 0.05), down=20000, up=20000, both=20000))
    traffic.wait_live(2 * flows)
    began, n, done, every = time.monotonic(), 0, 0, run.size(5.0, 1.0)
    moved, at = steady.stat["rx"] + steady.stat["tx"], time.monotonic()
    while run.left() > 0 or n < 2:
        while time.monotonic() < began + n * every:
            time.sleep(0.02)
        installed.install(PROGRAM.read_bytes())
        traffic.mark()
        ok, said = installed.upgrade()
        n, done = n + 1, done + ok
        run.claim("an upgrade is done", ok, said)
        time.sleep(min(1.0, every / 2))
        traffic.calm()
        run.progress(f"{done} of {n} upgrades, {traffic.total('rx') / 1e9:.2f} GB checked, "
                     f"{traffic.total('failed')} failed, {traffic.total('bad')} bad")
    mbit = (steady.stat["rx"] + steady.stat["tx"] - moved) * 8e-6 / (time.monotonic() - at)
    run.measure("upgrades", done, "", n, "==")
    run.measure("streams at a time", sum(a.flows for a in traffic.apps), "")
    run.measure("carried", round(mbit), "Mbit/s", note="offered: 200")
    p99 = run.distribution("longest pause of a stream in the second after an upgrade",
                           traffic.distribution("pause"))
    control = run.distribution("the same where nothing happened",
                               traffic.control(run.size(5, 1)))
    run.measure("longest pause after an upgrade, p99", p99, "ms", 150.0, timing=True,
                note=f"without an upgrade: {control} ms")
    refuse(run, installed, traffic)
    traffic.stop()
    run.verdict(traffic.finish())
    killer = type("Seen", (), {"takeovers": Takeovers(installed.worker)})
    losses(run, killer)
    client.stop()
    installed.worker.stop()


def refuse(run, installed, traffic):
    """Broken programs; the streams go on through each."""
    names = list(BROKEN) if not run.small else run.rng.sample(list(BROKEN), 2)
    for name in names:
        installed.install(BROKEN[name]())
        ok, said = installed.upgrade()
        run.facts.setdefault("broken programs", {})[name] = said
        run.claim(f"a program that {name} is refused", not ok, said)
        before = traffic.total("rx")
        end = time.monotonic() + 5 * SLOW
        while traffic.total("rx") == before and time.monotonic() < end:
            time.sleep(0.05)
        run.claim(f"service goes on after a program that {name}",
                  traffic.total("rx") > before)
        run.progress(f"a program that {name}: refused", now=not run.small)
    run.measure("broken programs refused", len(names) - sum(
        "is refused" in c for c in run.claims), "", len(names), "==")
    installed.install(PROGRAM.read_bytes())
    ok, said = installed.upgrade()
    run.claim("a whole program is accepted after broken ones", ok, said)
