"""cut: the path between client and worker, 50 ms long, is reset, swallowed and frozen."""

import time

from frame import scenario
from harness import SLOW
from history import percentile
from linklab import Net, NetClient, NetWorker
from scene_crash import CLIENT, ROOMY, mix
from servers import wait_until
from traffic import Traffic

RTT_MS = 50.0


class Path:
    """client - 25 ms each way, 50 Mbit/s - exit; the destination is at the exit's end."""

    def __init__(self, run, name, carrier="tcp"):
        self.net = run.keep(Net({"client": "10.77.0.1", "exit": "10.77.0.2"}, seed=run.seed))
        self.net("link client exit delay=25ms rate=50mbit queue=256k")
        self.worker = NetWorker(run.lab, f"{name}-worker", self.net, "exit", carrier=carrier,
                                **ROOMY)
        self.client = NetClient(run.lab, f"{name}-client", self.net, "client", [self.worker],
                                **CLIENT)
        self.traffic = run.keep(Traffic(run.lab, run.seed, self.net, "exit", name=name))

    def start(self, *kinds):
        return self.traffic.start(self.client, *kinds, at="client")

    def newest_carrier(self):
        """The client's port of it."""
        port = f":{self.worker.port}"
        return next(f[0].rpartition(":")[2] for f in self.net.flows() if f[1].endswith(port))

    def state(self):
        return self.client.exit(self.worker.name)

    def stop(self):
        self.client.stop()
        self.worker.stop()


def told(run, traffic, what):
    run.progress(f"{what}, {traffic.total('rx') / 1e9:.2f} GB checked, "
                 f"{traffic.total('failed')} failed, {traffic.total('bad')} bad")


def measure_cuts(run, path, bulk, what, command, target_ms, times):
    """The longest pause of a stream that has bytes to come each 10 ms, 1.5 s from each
    event."""
    samples = len(path_samples(bulk))
    for i in range(times):
        time.sleep(0.6 + run.rng.random())
        bulk.mark(path.net(command.format(port=path.newest_carrier())).at)
        time.sleep(1.5 * SLOW)
        bulk.calm()
        told(run, path.traffic, f"{what}: {i + 1} of {times}")
    dist = sorted((ms, 1) for ms in path_samples(bulk)[samples:])
    if not dist:
        raise AssertionError(f"{what}: no pause was measured")
    p99 = run.distribution(what, dist)
    run.measure(f"{what}, median", percentile(dist, 50), "ms")
    run.measure(f"{what}, p99", p99, "ms", target_ms, timing=True)


def measure_calm(run, bulk):
    """The same where nothing is cut: what the machine and the other streams cost."""
    before = len(path_samples(bulk))
    for _ in range(run.size(5, 1)):
        bulk.mark(time.monotonic())
        time.sleep(1.5)
        bulk.calm()
    dist = sorted((ms, 1) for ms in path_samples(bulk)[before:])
    run.measure("longest pause in 1.5 s without a cut", run.distribution(
        "longest pause without a cut", dist), "ms")


def path_samples(bulk):
    """Every pause of the stream so far, in the order of their events."""
    seen = bulk.__dict__.setdefault("samples", [])
    known = {}
    for ms in seen:
        known[ms] = known.get(ms, 0) + 1
    for ms, n in bulk.report()["pause"]:
        seen += [ms] * (n - known.get(ms, 0))
    return seen


def many_cuts(run, path, seconds):
    """100 a minute, of every carrier that stands."""
    began, cuts = time.monotonic(), 0
    for i in range(round(seconds / 0.6)):
        wait_until(lambda at=began + i * 0.6: time.monotonic() >= at, 5, "the next cut")
        cuts += path.net(f"rst client exit proto=tcp dst=:{path.worker.port}").flows > 0
        told(run, path.traffic, f"{cuts} cuts")
    run.measure("carriers cut at 100 a minute", cuts, "", seconds * 1.2, ">=")


@scenario("cut", seconds=60, short=3)
def cut(run):
    """resets, blackholes and freezes of the path, RTT 50 ms"""
    path = Path(run, "path")
    bulk = path.start("load=1:1500000")  # a queue of its own would be part of each pause
    rates = dict.fromkeys(("down", "up", "both"), 5000)
    path.start(*mix(run.size(0.2, 0.05), **rates))
    path.traffic.wait_live(run.size(30, 5))
    times = run.size(20, 1)
    measure_calm(run, bulk)
    measure_cuts(run, path, bulk, "RST to new bytes", "rst client exit src=:{port}",
                 2 * RTT_MS + 50, times)
    measure_cuts(run, path, bulk, "blackhole to new bytes",
                 "cut client exit proto=tcp src=:{port}", 1000.0, times)
    many_cuts(run, path, run.seconds)
    run.progress("streams come to their ends", now=True)
    lost = path.state()["homes_lost"]
    path.traffic.stop(90)
    run.verdict(path.traffic.finish())
    run.measure("sessions that had to begin anew", lost, "", 0, "==")
    path.stop()
    frozen(run)


def frozen(run):
    """Each connection is frozen after 16 KB towards the client."""
    path = Path(run, "frozen")
    path.net(f"freeze exit client bytes=16k proto=tcp src=:{path.worker.port}")
    bulk = path.start("load=1")
    path.traffic.wait_live(1)
    wait_until(lambda: bulk.stat.get("rx", 0) > 20000, 30 * SLOW, "the second connection")
    rx, at = bulk.stat["rx"], bulk.stat["t"]
    end = time.monotonic() + run.size(20, 3)
    while time.monotonic() < end:
        told(run, path.traffic, "frozen after 16 KB")
        time.sleep(0.2)
    kbit = (bulk.stat["rx"] - rx) * 8 / (bulk.stat["t"] - at) / 1000
    run.measure("freeze after 16 KB: throughput", round(kbit), "kbit/s", 200, ">=", timing=True)
    path.net("unfreeze all")
    path.traffic.stop(30)
    v = path.traffic.finish()
    run.claim("bytes over frozen connections are right", not v.faults, str(v.told(5)))
    path.stop()
