"""partition: the home is cut off from Redis, the controller and the other workers, with the
client on its side and on the other in turn; sessions are adopted elsewhere meanwhile, and
nothing may be served twice."""

import time

from controlplane import sign_like
from frame import scenario
from netfleet import NetFleet
from scene_crash import CLIENT, Epochs, epochs_verdict
from scene_cut import told
from scene_death import judge
from traffic import Traffic

SITE = "10.77.0.3"  # destinations, which both sides reach


class Divided:
    def __init__(self, run):
        self.run = run
        self.fleet = NetFleet(run, nodes=("a", "b", "c"), vantages=2, delay="5ms",
                              more={"site": SITE})
        self.client = self.fleet.client(**CLIENT)
        self.fleet.all_healthy()
        self.traffic = run.keep(Traffic(run.lab, run.seed, self.fleet.net, "site", SITE))
        sign_like(run.lab, self.fleet.controller)
        self.epochs = {}

    def home(self):
        return self.client.in_use().partition("/")[0]

    def replayer(self, node):
        """A device that attaches at this node from inside it."""
        if node not in self.epochs:
            worker = self.fleet[node]
            public = worker.public_key()
            with self.fleet.net.inside(node):
                self.epochs[node] = self.run.keep(Epochs(
                    self.run, worker.address, worker.port, public, f"epochs-{node}",
                    passport={"user": "alice"}))
        return self.epochs[node]

    def divide(self, home, with_home):
        """Only the destinations are on both sides."""
        others = [n for n in (*self.fleet.nodes, "hub") if n != home]
        far = others if with_home else [home]
        for other in others:
            self.fleet.net(f"cut {home} {other}")
        for end in far:
            self.fleet.net(f"cut client {end}")

    def heal(self):
        self.fleet.net("unblock all")


@scenario("partition", seconds=120, short=6)
def partition(run):
    """the home is alone, with the client or without it, in turn"""
    d = Divided(run)
    d.traffic.start(d.client, f"echo={run.size(50, 10)}", f"tiny={run.size(30, 8)}",
                    f"idle={run.size(20, 4)}", "paced=20:10000", "half=5", at="client")
    d.traffic.wait_live(run.size(60, 15))
    rounds, sides, moved, failed_with = 0, 0, 0, 0
    while run.left() > 0 or rounds < 2:
        home, with_home = d.home(), rounds % 2 == 0
        replayer = d.replayer(home)
        replayer.rise()
        before = d.traffic.total("failed")
        d.divide(home, with_home)
        side = "with it" if with_home else "on the other side"
        wait(run, d, f"{home} is cut off, the client {side}",
             run.size(1.0, 1.0) + run.rng.random() * run.size(7.0, 1.0))
        replayer.replay()
        d.heal()
        wait(run, d, "healed", run.size(3.0, 1.0))
        replayer.replay()
        if with_home:  # now or because of it
            failed_with += d.traffic.total("failed") - before
        rounds, sides = rounds + 1, sides + with_home
        moved += d.home() != home
    run.measure("partitions", rounds, "")
    run.measure("of which with the client at the home's side", sides, "")
    run.measure("the session moved to another node", moved, "")
    run.measure("streams that failed while the client was with its home", failed_with, "", 0,
                "==")
    epochs_verdict(run, d.epochs.values())
    run.progress("streams come to their ends", now=True)
    d.traffic.stop(60)
    v = d.traffic.finish(may_redo=True)
    run.measure("streams checked", v.streams, "")
    judge(run, v, resets=False)
    run.measure("streams reset, their home being out of reach", v.count("reset"), "")
    d.client.stop()


def wait(run, d, text, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told(run, d.traffic, text)
        time.sleep(0.1)
