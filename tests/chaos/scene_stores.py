"""stores: what keeps the fleet's state is killed, emptied, frozen, filled up and lied to, and
the controller goes away; sessions are cut and begun meanwhile."""

import contextlib
import signal
import time

from faults import SmallDisk, own_mounts
from frame import scenario
from harness import SLOW
from netfleet import HUB, NetFleet
from scene_crash import CLIENT, mix
from scene_cut import told
from servers import wait_until
from traffic import Traffic

# What anybody with Redis' socket could write over every key.
GARBAGE = """
for _, k in ipairs(redis.call('KEYS', '*')) do
  redis.call('DEL', k)
  redis.call(unpack(({{'SET', k, 'x'}, {'HSET', k, 'h', 'y'}, {'RPUSH', k, 'z'}})[
    1 + #k % 3]))
end"""


class Stores:
    """The fleet, a user with streams, and another user's program that is started again and
    again."""

    def __init__(self, run):
        self.run = run
        own_mounts()
        folder = run.lab.dir / "fleet" / "controller"
        folder.mkdir(parents=True)
        self.disk = run.keep(SmallDisk(folder / "state", kb=4096))
        self.fleet = NetFleet(run, vantages=1, delay="5ms")
        self.client = self.fleet.client(**CLIENT)
        self.newcomer = self.fleet.client("newcomer", log={"level": "info"})
        self.traffic = run.keep(Traffic(run.lab, run.seed, self.fleet.net, "hub", HUB))
        self.cuts = self.resumed = self.starts = self.started = 0
        rates = dict.fromkeys(("down", "up", "both"), 20000)
        self.traffic.start(self.client, *mix(run.size(0.3, 0.05), **rates), at="client")

    def resumes(self):
        return sum(self.client.status()["resumes"].values())

    def cut(self):
        """RST of the user's carriers; each has to be resumed."""
        home = self.client.in_use()
        port = self.fleet[home.partition("/")[0]].port
        before = self.resumes()
        if not self.fleet.net(f"rst client {home.partition('/')[0]} dst=:{port}").flows:
            return
        self.cuts += 1
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.resumes() > before, 5 * SLOW, "a resume")
            self.resumed += 1

    def begin(self):
        """A program that begins a session with what it has on its disk."""
        self.newcomer.stop()
        self.starts += 1
        with contextlib.suppress(AssertionError):
            self.newcomer.start()
            self.started += 1

    def live_through(self, what, seconds):
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end or n < 1:
            self.cut()
            if n % 4 == 0:
                self.begin()
            n += 1
            told(self.run, self.traffic, f"{what}: {self.cuts} cuts, {self.starts} starts")
            time.sleep(0.2 + 0.3 * self.run.rng.random())


@contextlib.contextmanager
def redis_killed(s):
    s.fleet.redis.kill()
    yield
    s.fleet.redis.start()


@contextlib.contextmanager
def redis_emptied(s):
    s.fleet.redis.cli("FLUSHALL")
    yield


@contextlib.contextmanager
def redis_frozen(s):
    s.fleet.redis.signal(signal.SIGSTOP)
    yield
    s.fleet.redis.signal(signal.SIGCONT)


@contextlib.contextmanager
def garbage(s):
    s.fleet.redis.cli("EVAL", GARBAGE, 0)
    yield
    s.fleet.redis.cli("FLUSHALL")


@contextlib.contextmanager
def disk_full(s):
    s.disk.fill()
    yield
    s.disk.empty()


@contextlib.contextmanager
def controller_away(s):
    s.fleet.controller.kill()
    yield
    s.fleet.controller.start()


@contextlib.contextmanager
def all_away(s):
    s.fleet.controller.kill()
    s.fleet.redis.kill()
    yield
    s.fleet.redis.start()
    s.fleet.controller.start()


FAULTS = {"Redis killed": redis_killed, "Redis emptied": redis_emptied,
          "Redis full of garbage": garbage, "the controller's disk full": disk_full,
          "the controller away": controller_away, "all of it away": all_away}


@scenario("stores", seconds=150, short=4)
def stores(run):
    """Redis killed, emptied, frozen, full of garbage; a full disk; controllers away"""
    s = Stores(run)
    s.traffic.wait_live(run.size(40, 5))
    frozen_s = run.size(60.0, 2.0)
    faults = dict(FAULTS) if not run.small else dict(run.rng.sample(sorted(FAULTS.items()), 2))
    each = max(1.0, (run.seconds - frozen_s) / len(faults))
    for what, fault in [*faults.items(), ("Redis frozen", redis_frozen)]:
        cuts, resumed, failed = s.cuts, s.resumed, s.traffic.total("failed")
        with fault(s):
            s.live_through(what, frozen_s if fault is redis_frozen else each)
        run.facts.setdefault("by fault", {})[what] = {
            "cuts": s.cuts - cuts, "resumed": s.resumed - resumed,
            "streams_failed": s.traffic.total("failed") - failed}
    run.measure("carriers cut", s.cuts, "")
    run.measure("of which resumed", round(100 * s.resumed / max(1, s.cuts), 1), "%", 100, "==")
    run.measure("programs started", s.starts, "")
    run.measure("of which have a session", round(100 * s.started / max(1, s.starts), 1), "%",
                100, "==")
    at_one(run, s.fleet)
    s.traffic.stop()
    run.verdict(s.traffic.finish())
    s.client.stop()
    s.newcomer.stop()


def at_one(run, fleet):
    """After it all the fleet is at one place and takes changes."""
    def same():
        status = fleet.operator.json("status")
        nodes = fleet.operator.json("get", "nodes")["nodes"]
        return status["synced"] and all(
            n["link"] == "up" and n["applied"] == status["position"] for n in nodes)

    began = time.monotonic()
    try:
        wait_until(same, 60 * SLOW, "the fleet at one place")
        fleet.apply(refresh="2s")
        wait_until(same, 30 * SLOW, "a change everywhere")
        run.measure("the fleet at one place again", round(time.monotonic() - began, 1), "s")
    except AssertionError as e:
        run.claim("the fleet is at one place again and takes changes", False, str(e))
