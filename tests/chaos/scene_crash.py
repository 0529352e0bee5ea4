"""crash: SIGKILL of the exit, again and again, under streams of all kinds. hang: SIGSTOP of
the exit; SIGKILL of the keeper."""

import json
import os
import signal
import subprocess
import time

from frame import Takeovers, scenario
from harness import BUILD, SLOW, children
from history import check_epochs, read
from servers import wait_until
from signed import NodeKey, pass_body
from traffic import Traffic

LOG = os.environ.get("CHAOS_LOG", "info")
ROOMY = {"limits": {"opens_per_second": 100000, "streams_per_session": 16384},
         "log": {"level": LOG}}
CLIENT = {"limits": {"connections": 16384, "streams": 16384}, "log": {"level": LOG}}
MIX = {"down": 40, "up": 40, "both": 30, "half": 30, "zero": 20, "tiny": 40, "dial": 10,
       "idle": 20}


def mix(scale=1.0, **rates):
    """Counts for the application, at least one of each kind."""
    return [f"{k}={max(1, round(n * scale))}" + (f":{rates[k]}" if k in rates else "")
            for k, n in MIX.items()]


class Killer:
    """Kills a worker's exit at moments that the seed chose, waits for the next exit."""

    def __init__(self, run, worker):
        self.run, self.worker, self.takeovers = run, worker, Takeovers(worker)
        self.kills = self.early = 0

    def exit(self, timeout=10):
        end = time.monotonic() + timeout * SLOW
        while not (pids := children(self.worker.pid)):
            if time.monotonic() > end or not self.worker.alive():
                raise AssertionError(f"no exit:\n{self.worker.log[-2000:]}")
            time.sleep(0.0005)
        return pids[0]

    def kill(self):
        """One; or two, where the second comes while the first's successor is starting."""
        os.kill(self.exit(), signal.SIGKILL)
        self.kills += 1

    def kill_and_wait(self, early=0.0):
        """early: the chance that the successor is killed before it has told anything. time
        of the last kill."""
        n = len(self.takeovers.read())
        at = time.monotonic()
        old = self.exit()
        self.kill()
        while self.run.rng.random() < early:
            wait = self.run.rng.random() * 0.03
            while self.exit() == old:
                time.sleep(0.0005)
            time.sleep(wait)
            old, at = self.exit(), time.monotonic()
            n = len(self.takeovers.read())
            self.kill()
            self.early += 1
        self.takeovers.wait(n + 1)
        return at


def ms_of(rows, key="us"):
    return sorted((r[key] / 1000, 1) for r in rows)


def losses(run, killer):
    rows = killer.takeovers.read()
    run.measure("records lost at adoption", sum(r["lost"] for r in rows), "", 0, "==")
    run.facts["adoptions"] = len(rows)
    run.facts["repaired_bytes"] = sum(r["repaired_bytes"] for r in rows)
    run.facts["orphan_descriptors"] = sum(r["orphans"] for r in rows)


class Epochs:
    """A device beside the others that attaches to a worker with whatever epoch."""

    def __init__(self, run, host, port, public, name="epochs", passport=None):
        """public: the worker's static key, 32 bytes; passport: of the device's pass."""
        self.run, self.top, self.told = run, 0, []
        folder = run.lab.dir / name
        folder.mkdir()
        key = NodeKey("device")
        key.save(folder / "device.key")
        body = pass_body(key.public, serial=os.urandom(16), **(passport or {}))
        (folder / "pass").write_bytes(run.lab.signer.blob("pass", body))
        self.process = subprocess.Popen(
            [BUILD / "chaos/epochs", host, str(port), public.hex(), folder / "device.key",
             folder / "pass"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, verb, epoch):
        self.process.stdin.write(f"{verb} {epoch}\n")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the tool epochs ended")
        answer = json.loads(line)
        self.told.append(answer)
        if answer["accepted"]:
            self.top = max(self.top, epoch)
        return answer["accepted"]

    def rise(self, tries=5):
        """Attaches with a higher one; a kill may fall into it."""
        return any(self.ask("attach", self.top + self.run.rng.randrange(1, 1000))
                   for _ in range(tries))

    def replay(self):
        """Those that were used, both ways."""
        for verb in ("attach", "resume"):
            self.ask(verb, self.run.rng.choice((1, self.top, max(1, self.top - 1))))

    def close(self):
        self.process.stdin.close()
        self.process.wait(10 * SLOW)
        self.process.stdout.close()


def epochs_verdict(run, replayers):
    """What they were told, as measures."""
    faults = [f for e in replayers for f in check_epochs(e.told)]
    stale = [t for e in replayers for t in e.told if t["reason"] == "stale-epoch"]
    run.measure("stale epochs tried again and refused", len(stale), "", 1, ">=")
    run.measure("stale epochs accepted", len(faults), "", 0, "==",
                note=str(faults[:2]) if faults else "")


def bulk_under_kills(run):
    """Two workers, one of which is killed while the streams of both are checked."""
    lab, scale = run.lab, run.size(1.0, 0.15)
    kills_wanted, bytes_wanted = run.size(1000, 5), run.size(20e9, 20e6)
    workers = [lab.worker(f"worker{i}", **ROOMY) for i in range(2)]
    clients = [lab.client(f"client{i}", [w], **CLIENT) for i, w in enumerate(workers)]
    traffic = run.keep(Traffic(lab, run.seed))
    for c in clients:
        traffic.start(c, *mix(scale))
    flows = sum(a.flows for a in traffic.apps)
    traffic.wait_live(flows * 0.8)
    killer, epochs = Killer(run, workers[0]), run.keep(
        Epochs(run, "127.0.0.1", workers[0].port, workers[0].key.public))
    began = time.monotonic()
    while not traffic.dead():
        if killer.kills % run.size(10, 3) == 0:
            epochs.rise()
        killer.kill_and_wait(early=0.2)
        if killer.kills % run.size(10, 3) == 0:
            epochs.replay()
        time.sleep(run.rng.choice((0.0, 0.05, 0.15, 0.3)) * run.rng.random() * 2)
        run.progress(f"{killer.kills} kills, {traffic.total('rx') / 1e9:.2f} GB checked, "
                     f"{traffic.total('failed')} failed, {traffic.total('bad')} bad")
        past = time.monotonic() - began > run.seconds
        if past and (run.small or (killer.kills >= kills_wanted
                                   and traffic.total("rx") >= bytes_wanted)):
            break
        if time.monotonic() - began > 4 * run.seconds * SLOW:
            break
    seconds = time.monotonic() - began
    run.claim("the traffic runs to its end", not traffic.dead())
    in_window(run, workers[0], killer)
    epochs_verdict(run, [epochs])
    run.progress("streams come to their ends", now=True)
    traffic.stop()
    run.measure("SIGKILLs", killer.kills, "", kills_wanted, ">=")
    run.measure("of which during an adoption", killer.early, "")
    run.measure("streams at a time", flows, "", run.size(200, 30), ">=")
    run.distribution("adoption under load", ms_of(killer.takeovers.read()))
    v = traffic.finish()
    run.verdict(v)
    run.measure("checked on both workers", round(v.verified / 1e9, 2), "GB",
                bytes_wanted / 1e9, ">=", note=f"{v.verified / 1e6 / seconds:.0f} MB/s")
    losses(run, killer)
    for p in [*clients, *workers]:
        p.stop()


def in_window(run, worker, killer):
    """SIGKILL between the kernel's copy of received bytes and their record, by ptrace."""
    times, rows = run.size(60, 5), killer.takeovers
    before = len(rows.read())
    tool = subprocess.Popen(
        [BUILD / "tools/crashpoint", "--at", "recv", "--times", str(times), "--every-ms", "30",
         "--seed", str(run.seed), "--seconds", str(100 * SLOW), str(worker.pid)],
        stdout=subprocess.PIPE, text=True)
    while tool.poll() is None:
        run.progress(f"{len(rows.read()) - before} of {times} kills between receiving and "
                     "recording")
        time.sleep(0.1)
    done = len(tool.stdout.readlines()) - 1
    tool.stdout.close()
    found = rows.wait(before + done)[before:]
    run.measure("kills between receiving and recording", done, "", times, ">=")
    run.measure("of which repaired", sum(r["repaired_bytes"] > 0 for r in found), "",
                round(0.9 * times), ">=")
    killer.kills += done


def many_flows(run, flows, kills, clients=1, target_ms=50.0):
    """Kills under so many streams: the takeover's time and, for requests and answers, the
    pause that applications see."""
    lab = run.lab
    worker = lab.worker(f"many{flows}", nofile=20000, **ROOMY)
    cs = [lab.client(f"many{flows}-{i}", [worker], **CLIENT) for i in range(clients)]
    for c in cs:
        c.nofile = 20000
    traffic = run.keep(Traffic(lab, run.seed, name=f"traffic{flows}"))
    kind = "echo" if flows <= 1000 else "idle"
    for c in cs:
        traffic.start(c, f"{kind}={flows // clients}")
    traffic.wait_live(flows, 120)
    killer = Killer(run, worker)
    for i in range(kills):
        time.sleep(0.6 + run.rng.random() * 0.3)
        traffic.mark()
        killer.kill_and_wait()
        run.progress(f"{flows} streams: {i + 1} of {kills} kills")
    time.sleep(0.5)
    traffic.calm()
    rows = killer.takeovers.read()
    run.claim("every stream was there at each adoption",
              min(r["streams"] for r in rows) >= flows * 0.99, str(rows[-1]))
    p99 = run.distribution(f"adoption at {flows} flows", ms_of(rows))
    run.measure(f"adoption at {flows} flows, p99", p99, "ms", target_ms, timing=True)
    if kind == "echo":
        p99 = run.distribution("kill to first new byte", traffic.distribution("first"))
        run.distribution("longest pause after a kill", traffic.distribution("pause"))
        control = run.distribution("longest pause where nothing happened",
                                   traffic.control(run.size(10, 1), 0.8))
        run.measure(f"kill to first new byte at {flows} flows, p99", p99, "ms", 50.0,
                    timing=True, note=f"RTT 0; longest pause without a kill: {control} ms")
    traffic.stop(30)
    v = traffic.finish()
    bad = [f for f in v.faults]
    run.measure(f"faults among {v.streams} streams", len(bad), "", 0, "==")
    run.facts[f"faults at {flows} flows"] = v.told()
    for p in [*cs, worker]:
        p.stop()


@scenario("crash", seconds=240, short=4)
def crash(run):
    """SIGKILL of the exit under streams of all kinds"""
    bulk_under_kills(run)
    many_flows(run, run.size(1000, 100), run.size(100, 3))
    if not run.small:
        many_flows(run, 15000, 20, clients=8, target_ms=150.0)


@scenario("hang", seconds=60, short=3)
def hang(run):
    """SIGSTOP of the exit; SIGKILL of the keeper"""
    lab = run.lab
    workers = [lab.worker(f"worker{i}", **ROOMY) for i in range(2)]
    client = lab.client("client", workers, **CLIENT)
    traffic = run.keep(Traffic(lab, run.seed))
    flows = run.size(200, 40)
    app = traffic.start(client, f"echo={flows}", *mix(0.1))
    traffic.wait_live(app.flows * 0.8)
    takeovers, n, pauses = Takeovers(workers[0]), 0, []
    while run.left() > 0 or n < 2:
        time.sleep(0.5 + run.rng.random())
        at = traffic.mark()
        os.kill(children(workers[0].pid)[0], signal.SIGSTOP)
        n += 1
        takeovers.wait(n, 10 * SLOW)
        run.progress(f"{n} hangs, {traffic.total('rx') / 1e9:.2f} GB checked, "
                     f"{traffic.total('failed')} failed, {traffic.total('bad')} bad")
        pauses.append(time.monotonic() - at)
    time.sleep(1.0)
    traffic.calm()
    run.measure("hangs", n, "")
    run.distribution("SIGSTOP to another exit", sorted((p * 1000, 1) for p in pauses))
    p99 = run.distribution("SIGSTOP to first new byte", traffic.distribution("first"))
    run.measure("SIGSTOP to first new byte, p99", p99, "ms", 1500.0, timing=True)
    traffic.stop()
    run.verdict(traffic.finish())
    keeper_killed(run, workers, client)


def keeper_killed(run, workers, client):
    """New streams on another node after the keeper's end."""
    traffic = run.keep(Traffic(run.lab, run.seed + 1, name="after"))
    first = client.in_use()
    victim = next(w for w in workers if w.name == first)
    other = next(w for w in workers if w is not victim)
    at = time.monotonic()
    victim.kill()
    traffic.start(client, "tiny=20")
    wait_until(lambda: traffic.live() >= 20, 20 * SLOW, "streams on another node")
    app = traffic.apps[0]
    traffic.stop()
    run.claim("clients went to the other node", client.in_use() == other.name)
    began = first_dialled(traffic)
    run.measure("keeper killed: first stream on another node", round((began - at) * 1000, 1),
                "ms", 1000.0, timing=True)
    run.measure("keeper killed: streams refused", app.stat["failed"], "", 0, "==")
    run.claim("after it all is checked", not traffic.finish().faults)


def first_dialled(traffic):
    """time.monotonic() of the first stream that was answered."""
    for a in traffic.apps:
        a.end()
    return min(e["t"] for e in read(traffic.dir / "app0") if e["e"] == "dialled")
