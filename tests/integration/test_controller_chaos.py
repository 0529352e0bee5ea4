"""No change is lost after its acknowledgement, none is doubled: the controller is killed at
random instants while it changes the fleet, and Redis is killed, frozen, emptied and
restored from old copies. Real workers hear of it all, end at one hash, and a stream through
one of them does not break. CHECK_LONG=1: 10 rounds; CHECK_SEED: another seed than 1."""

import collections
import http.client
import os
import random
import signal
import socket
import threading
import time

import pytest
from controlplane import ApiError, Controller, Redis, fleet_file, sign_like
from faults import Stream
from harness import SLOW
from minictl import EnrolledWorker
from servers import wait_until

CHANGES = 300
ROUNDS = 10 if os.environ.get("CHECK_LONG") else 1
NODES, WORKERS = 8, 3
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)
# What the API calls unknown; every other problem promises that nothing changed.
UNKNOWN = {"unknown-outcome", "ending"}


class Trouble:
    """Harms one or both, one thing at a time, in the middle of a change or about it. In the
    main thread: what a thread starts ends with it."""

    def __init__(self, rng, controller, redis):
        self.rng, self.controller, self.redis = rng, controller, redis
        self.copies, self.done = [], collections.Counter()

    def make(self):
        kind = self.rng.choice([
            self.kill_controller, self.kill_controller, self.kill_redis, self.freeze_redis,
            self.empty_redis, self.copy_redis, self.restore_redis, self.kill_both])
        time.sleep(self.rng.uniform(0, 0.004))  # the random instant: a change takes 1 ms
        kind()
        self.done[kind.__name__] += 1

    def kill_controller(self):
        self.controller.kill()
        self.controller.start()

    def kill_redis(self):
        self.redis.kill()
        time.sleep(self.rng.uniform(0, 0.3))
        self.redis.start()

    def freeze_redis(self):
        self.redis.signal(signal.SIGSTOP)
        time.sleep(self.rng.choice([0.05, 0.2, 0.4, 3]))
        self.redis.signal(signal.SIGCONT)

    def empty_redis(self):
        self.redis("FLUSHALL")

    def copy_redis(self):
        self.copies.append(self.redis.save())

    def restore_redis(self):
        if self.copies:
            self.redis.restore(self.rng.choice(self.copies))

    def kill_both(self):
        self.controller.kill()
        self.redis.kill()
        self.redis.start()
        self.controller.start()


class Changes(threading.Thread):
    """Makes changes that can be told apart, and remembers what was said of each."""

    def __init__(self, controller):
        super().__init__(daemon=True)
        self.controller = controller
        self.acked, self.refused, self.unknown, self.failed = {}, {}, set(), None
        self.permits, self.began = threading.Semaphore(0), threading.Event()

    def run(self):
        try:
            for i in range(CHANGES):
                self.permits.acquire()
                wait_until(self._is_there, 30 * SLOW, "a controller to ask")
                self.began.set()
                self.make(i)
        except BaseException as e:
            self.failed = e

    def make(self, i):
        c = self.controller
        try:
            if i % 3 == 2:  # a private one
                r = c.ask("POST", "/v1/tokens", {"user": f"u{i}"})
            else:
                r = c.ask("PUT", f"/v1/leases/n{i % NODES}?force=1",
                          {"kind": "cordon", "for_s": 86400, "reason": f"change {i}"})
            self.acked[i] = r["position"]
        except ApiError as e:
            if e.code in UNKNOWN:
                self.unknown.add(i)
            else:
                self.refused[i] = e.code
        except NO_ANSWER:
            self.unknown.add(i)


    def _is_there(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(self.controller.socket))
            return True
        except OSError:
            return False


def history(controller):
    """Sequences at which each change was made, from the whole chain of revisions."""
    revisions = controller.get("revisions?limit=1024&changes=1")["revisions"][::-1]
    assert [r["sequence"] for r in revisions] == list(range(1, len(revisions) + 1))
    epochs = [r["epoch"] for r in revisions]
    assert epochs == sorted(epochs)
    found = collections.defaultdict(list)
    for r in revisions:
        for change in r["changes"]:
            reason = (change["value"] or {}).get("reason", "")
            if reason.startswith("change "):
                found[int(reason.split()[1])].append(r["sequence"])
    return found, revisions


@pytest.fixture
def place(lab):
    redis = Redis(lab)
    controller = Controller(lab, redis=redis).synced()
    controller.apply(fleet_file(nodes=NODES, users=CHANGES, exit_policy=["127.0.0.0/8"]))
    sign_like(lab, controller)
    workers = [EnrolledWorker(lab, None, name=f"n{i}", start=False, enrol=False)
               for i in range(WORKERS)]
    for w in workers:
        r = w.enrol(controller.ctl("enroll", "--node", w.name).stdout.strip())
        assert r.returncode == 0, r.stderr
        w.start().wait_ready(20)
    client = lab.client("client", workers[:1], passport={"user": "u0", "tier": "free"})
    return controller, redis, workers, Stream(client, lab.servers)


def converge(controller, workers):
    """All workers come to stand where the controller does: one position, one hash."""
    def same():
        at = controller.get("status")["position"]
        nodes = {n["name"]: n for n in controller.get("nodes")["nodes"]}
        return all(nodes[f"{w.name}/0"]["link"] == "up" and nodes[f"{w.name}/0"]["applied"] == at
                   for w in workers)

    wait_until(same, 30 * SLOW, "all workers at one hash")


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_no_acknowledged_change_is_lost_and_none_is_doubled(place, turn):
    controller, redis, workers, stream = place
    seed = int(os.environ.get("CHECK_SEED", 1)) + turn
    print(f"CHECK_SEED={seed}")
    rng = random.Random(seed)
    trouble, changes = Trouble(rng, controller, redis), Changes(controller)
    changes.start()
    while changes.is_alive():
        changes.began.clear()
        changes.permits.release(rng.randint(1, 5))
        changes.began.wait(1)
        trouble.make()
        assert stream.holds()
    if changes.failed:
        raise changes.failed
    print(f"acknowledged {len(changes.acked)}, refused {len(changes.refused)} "
          f"{collections.Counter(changes.refused.values())}, unknown {len(changes.unknown)}, "
          f"trouble {dict(trouble.done)}")
    controller.synced(30)
    controller.kill()  # what counts is what is on the disk
    controller.start().synced(30)
    converge(controller, workers)
    assert stream.holds()

    found, revisions = history(controller)
    tokens = collections.Counter(t["user"] for t in controller.get("tokens")["tokens"])
    for i in range(CHANGES):
        times = tokens[f"u{i}"] if i % 3 == 2 else len(found[i])
        assert times <= 1, f"change {i} was made {times} times"
        if i in changes.acked:
            assert times == 1, f"change {i} was acknowledged and is lost"
            at = revisions[changes.acked[i]["sequence"] - 1]
            assert at["hash"] == changes.acked[i]["hash"], f"change {i} was acknowledged elsewhere"
        if i in changes.refused:
            assert times == 0, f"change {i} was refused ({changes.refused[i]}) and was made"
    # One change is under way at a time: each trouble costs at most that one its answer. Who
    # is refused is told that Redis is away, and nothing else.
    assert len(changes.acked) + len(changes.refused) + len(changes.unknown) == CHANGES
    harm = sum(trouble.done.values()) - trouble.done["copy_redis"]
    assert harm >= CHANGES / 10
    assert len(changes.refused) + len(changes.unknown) <= harm
    assert set(changes.refused.values()) <= {"no-redis"}

    # Redis has the same end of the chain.
    at = controller.get("status")["position"]
    head = redis("GET", "sp:{lab}:head")
    assert head == f"{at['epoch']}:{at['sequence']}:{at['hash']}"
    assert at["sequence"] == len(revisions)
