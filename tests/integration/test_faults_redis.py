"""Redis is killed, frozen, emptied, replaced by an old copy, full of garbage and without a
disk: the controller lives, no worker is told anything that was not decided, traffic flows,
and afterwards the fleet is at one place again."""

import shutil
import time

import pytest
from faults import FaultyFleet, disks, module_place  # noqa: F401
from harness import SLOW, curl, http_get
from servers import wait_until



@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    yield from module_place(request, servers, dns, origin, FaultyFleet)


@pytest.fixture(autouse=True)
def good_before_and_after(fleet):
    fleet.well()
    yield
    fleet.redis.signal(18)  # CONT
    assert "reason=protocol" not in fleet.user.log


def save(redis):
    assert redis.cli("SAVE") == "OK"
    path = redis.dir / "dump.rdb"
    dump = path.read_bytes()
    path.unlink()
    return dump


def restore(redis, dump):
    redis.kill()
    (redis.dir / "dump.rdb").write_bytes(dump)
    redis.start()
    (redis.dir / "dump.rdb").unlink()


def rose(fleet, before, by=1):
    """Redis was filled anew: a higher epoch, and nothing else changed."""
    state = fleet.json("status")["state"]
    wait_until(lambda: fleet.position()["epoch"] == before["epoch"] + by, 15 * SLOW,
               "a higher epoch")
    assert fleet.json("status")["state"] == state
    return fleet.well()


def kinds(fleet, after):
    return {e["kind"]: e["text"] for e in fleet.json("get", "events")["events"]
            if e["time_ms"] >= after}


def test_killed(fleet):
    before = fleet.position()
    fleet.redis.kill()
    fleet.untouched()
    fleet.redis.start()
    rose(fleet, before)


def test_killed_with_the_controller(fleet):
    before = fleet.position()
    fleet.redis.kill()
    fleet.controller.kill()
    assert fleet.stream.holds()
    fleet.redis.start()
    fleet.controller.start()
    rose(fleet, before)


def test_frozen_for_seconds(fleet):
    before = fleet.position()
    fleet.redis.signal(19)  # STOP
    until = time.monotonic() + 3
    slowest = 0
    while time.monotonic() < until:
        began = time.monotonic()
        fleet.untouched()
        slowest = max(slowest, time.monotonic() - began)
    fleet.redis.signal(18)
    assert slowest < 1 * SLOW
    assert fleet.at_one() == before  # nothing was lost, so nothing is new
    fleet.well()


def test_emptied(fleet):
    before = fleet.position()
    assert fleet.redis.cli("FLUSHALL") == "OK"
    fleet.untouched()
    rose(fleet, before)


def test_replaced_by_an_old_copy(fleet):
    dump = save(fleet.redis)
    for _ in range(3):
        fleet.change()
    before = fleet.at_one()
    restore(fleet.redis, dump)
    fleet.untouched()
    rose(fleet, before)


def test_replaced_by_a_copy_of_an_older_epoch_while_no_controller_runs(fleet):
    dump = save(fleet.redis)
    fleet.redis.cli("FLUSHALL")
    before = fleet.position()
    wait_until(lambda: fleet.position()["epoch"] == before["epoch"] + 1, 15 * SLOW)
    fleet.change()
    before = fleet.at_one()
    fleet.controller.kill()
    restore(fleet.redis, dump)
    assert fleet.stream.holds()
    fleet.controller.start()
    rose(fleet, before)


HEAD, JOURNAL = "sp:{test}:head", "sp:{test}:journal"
GARBAGE = {  # scripts, so that nobody sees them half done
    "no position": "call('SET', h, 'garbage')",
    "a head that nobody wrote": "call('SET', h, '99:99999:' .. hash)",
    "a head of another type": "call('DEL', h) call('RPUSH', h, 'x')",
    "a revision that nobody signed":
        "call('XADD', j, '99999-0', 'r', 'sallyport-signed 1 revision 00 00\\n{}', 'p', '') "
        "call('SET', h, '99:99999:' .. hash)",
    "a base that nobody signed":
        "call('DEL', j) call('XADD', j, '88888-0', 'b', '{}', 'q', '{}') "
        "call('SET', h, '99:88888:' .. hash)",
    "a stream of another type": "call('DEL', j) call('SET', j, 'x')",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_not_believed_and_told(fleet, what):
    before, began = fleet.position(), time.time() * 1000
    fleet.redis.cli("EVAL", "local call, h, j, hash = redis.call, KEYS[1], KEYS[2], "
                    "string.rep('ab', 32) " + GARBAGE[what], 2, HEAD, JOURNAL)
    done = fleet.change(check=False)
    assert done.returncode != 0
    told = kinds(fleet, began)
    assert "redis-distrusted" in told or "redis-away" in told, told
    text = told.get("redis-distrusted") or told["redis-away"]
    assert any(w in text for w in ("position", "beyond", "revision after", "WRONGTYPE")), text
    fleet.untouched()
    assert all(a == before for a in fleet.applied())
    fleet.redis.cli("FLUSHALL")  # the remedy
    wait_until(lambda: fleet.position()["epoch"] > before["epoch"], 15 * SLOW,
               "Redis is filled anew")
    fleet.well()


def test_garbage_about_sessions_and_usage_ends_nobodys_session(fleet, origin):
    def ours():
        return [k for kind in ("s:*", "l:*", "u:*") for k in
                fleet.redis.cli("KEYS", "sp:{test}:" + kind).split()]

    fleet.user.stop()
    fleet.user.start()  # a session that is put at once
    fleet.stream.__init__(fleet.user, fleet.lab.servers)
    wait_until(lambda: {k.split(":")[2] for k in ours()} >= {"s", "l"}, 10 * SLOW,
               "the session's record")
    keys = ours()
    for how in (("SET", "x"), ("HSET", "d", "x"), ("HSET", "h", "y"), ("RPUSH", "x")):
        for k in keys:
            fleet.redis.cli("DEL", k)
            fleet.redis.cli(how[0], k, *how[1:])
        fleet.untouched()
        fleet.run("get", "sessions")
        fleet.run("get", "users")
        # a client that comes anew
        fleet.user.stop()
        fleet.user.start()
        fleet.stream.__init__(fleet.user, fleet.lab.servers)
        assert fleet.stream.holds()
    for k in ours():
        fleet.redis.cli("DEL", k)
    fleet.user.stop()
    fleet.user.start()
    fleet.stream.__init__(fleet.user, fleet.lab.servers)
    wait_until(lambda: any(k.split(":")[2] == "s" for k in ours()), 10 * SLOW,
               "the next one is put")


@pytest.mark.parametrize("how", ["disk", "memory"])
def test_full(fleet, disks, how):
    """MISCONF, since it cannot save; OOM, since it may take no more."""
    redis = fleet.redis
    if how == "disk":
        disk = disks(redis.dir / "small", kb=256)
        redis.kill()
        redis.argv[redis.argv.index("--dir") + 1] = str(disk.folder)
        redis.start()
        fleet.well()
    before, began = fleet.position(), time.time() * 1000
    if how == "disk":
        disk.fill()
        redis.cli("CONFIG", "SET", "save", "3600 1")
        redis.cli("BGSAVE")
        wait_until(lambda: "rdb_last_bgsave_status:err" in redis.cli("INFO", "persistence"),
                   15 * SLOW, "Redis cannot save")
    else:
        redis.cli("CONFIG", "SET", "maxmemory", "1")
    done = fleet.change(check=False)
    assert done.returncode != 0
    fleet.untouched()
    assert all(a == before for a in fleet.applied())
    text = kinds(fleet, began)["redis-away"]
    assert ("MISCONF" if how == "disk" else "OOM") in text, text
    assert http_get(fleet.controller.admin, "/metrics")[0] == 200
    if how == "disk":
        disk.empty()
        redis.cli("BGSAVE")
    else:
        redis.cli("CONFIG", "SET", "maxmemory", "0")
    now = fleet.at_one()
    assert now["epoch"] == before["epoch"]
    fleet.well()


def lose_disk(fleet):
    """The controller comes back without its state folder: Redis is all it has."""
    fleet.controller.kill()
    shutil.rmtree(fleet.controller.dir / "state")
    fleet.controller.start()


def test_a_controller_that_lost_its_disk_has_everything_from_redis(lab, origin):
    fleet = FaultyFleet(lab)
    before = fleet.well()
    url = f"http://127.0.0.1:{origin.port}/bytes/1000000"
    assert curl(fleet.user.socks, url)[0] == 0

    def used():
        (user,) = fleet.json("get", "users")["users"]
        return user["used_down"]

    wait_until(lambda: used() >= 1000000, 10 * SLOW, "the usage is known")
    wait_until(lambda: fleet.redis.cli("HVALS", "sp:{test}:u:alice"), 10 * SLOW, "and copied")
    lose_disk(fleet)
    assert fleet.at_one() == before
    wait_until(lambda: used() >= 1000000, 10 * SLOW, "the usage is known again")
    assert used() < 1100000
    fleet.well()
    other = fleet.client("other")  # users and tokens as well
    other.stop()


def test_without_its_disk_and_with_an_old_copy_no_worker_is_set_back(lab):
    fleet = FaultyFleet(lab)
    fleet.well()
    dump = save(fleet.redis)
    for _ in range(3):
        fleet.change()
    before, began = fleet.at_one(), time.time() * 1000
    fleet.controller.kill()
    shutil.rmtree(fleet.controller.dir / "state")
    restore(fleet.redis, dump)
    fleet.controller.start()
    wait_until(lambda: fleet.json("status")["synced"], 10 * SLOW, "what Redis has")
    assert fleet.position()["sequence"] == before["sequence"] - 3
    wait_until(lambda: len([a for a in fleet.applied() if a == before]) == 2, 15 * SLOW,
               "the workers stay where they are")
    wait_until(lambda: "peer-ahead" in kinds(fleet, began) or
               any("ahead" in k or "history" in k for k in kinds(fleet, began)), 10 * SLOW,
               f"it is told: {kinds(fleet, began)}")
    fleet.untouched()
    # the remedy: a higher epoch is newer than whatever they have
    fleet.redis.cli("FLUSHALL")
    wait_until(lambda: fleet.position()["epoch"] == before["epoch"] + 1, 15 * SLOW)
    fleet.well()
