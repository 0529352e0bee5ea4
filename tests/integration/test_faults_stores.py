"""While a store or the controller is broken, each in turn: what stands goes on, sessions
resume, all of them, and new ones are made. Under load and for long: make chaos, stores."""

import contextlib

import pytest
from faults import FaultyFleet, Stream, disks, module_place  # noqa: F401
from harness import SLOW
from servers import wait_until

GARBAGE = """for i, k in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', k)
  if i % 2 == 0 then redis.call('SET', k, 'x') else redis.call('RPUSH', k, 'y') end end"""


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    def make(place):
        f = FaultyFleet(place)
        f.newcomer = f.client("newcomer")  # has a config and a pass on its disk
        f.newcomer.stop()
        return f

    yield from module_place(request, servers, dns, origin, make)


def rises(fleet, before):
    """It was filled anew."""
    wait_until(lambda: fleet.position()["epoch"] > before["epoch"], 15 * SLOW, "a new epoch")


@contextlib.contextmanager
def killed(fleet, disks):
    fleet.redis.kill()
    yield
    fleet.redis.start()


@contextlib.contextmanager
def emptied(fleet, disks):
    before = fleet.position()
    fleet.redis.cli("FLUSHALL")
    yield
    rises(fleet, before)


@contextlib.contextmanager
def frozen(fleet, disks):
    fleet.redis.signal(19)
    yield
    fleet.redis.signal(18)


@contextlib.contextmanager
def garbage(fleet, disks):
    before = fleet.position()
    fleet.redis.cli("EVAL", GARBAGE, 0)
    yield
    fleet.redis.cli("FLUSHALL")  # the remedy
    rises(fleet, before)


@contextlib.contextmanager
def out_of_memory(fleet, disks):
    fleet.redis.cli("CONFIG", "SET", "maxmemory", "1")
    yield
    fleet.redis.cli("CONFIG", "SET", "maxmemory", "0")


@contextlib.contextmanager
def full_disk(fleet, disks):
    """The controller's state folder, as it stands, on a disk without room."""
    state = fleet.controller.dir / "state"
    fleet.controller.kill()
    held = {p.name: p.read_bytes() for p in state.iterdir() if p.is_file()}
    disk = disks(state, kb=1024)
    for name, data in held.items():
        (state / name).write_bytes(data)
    fleet.controller.start()
    fleet.at_one()
    disk.fill()
    yield
    disk.empty()


@contextlib.contextmanager
def controller_away(fleet, disks):
    fleet.controller.kill()
    yield
    fleet.controller.start()


@contextlib.contextmanager
def all_away(fleet, disks):
    before = fleet.position()
    fleet.controller.kill()
    fleet.redis.kill()
    yield
    fleet.redis.start()
    fleet.controller.start()
    rises(fleet, before)


@pytest.mark.parametrize("fault", [killed, emptied, frozen, garbage, out_of_memory,
                                   controller_away, all_away, full_disk],
                         ids=lambda f: f.__name__)
def test_sessions_go_on_resume_and_begin(fleet, disks, fault):
    fleet.well()
    user = fleet.user
    with fault(fleet, disks):
        assert fleet.stream.holds()
        for _ in range(3):
            before = user.exit(user.in_use())["resumes"]
            fleet[user.in_use()].kill_exit()
            assert fleet.stream.holds()
            wait_until(lambda n=before: user.exit(user.in_use())["resumes"] > n, 10 * SLOW,
                       "it resumed")
        fleet.newcomer.start()
        new = Stream(fleet.newcomer, fleet.lab.servers)
        assert new.holds()
        new.sock.close()
        fleet.newcomer.stop()
        assert fleet.stream.holds()
    assert all(x["homes_lost"] == 0 for x in user.status()["exits"])
    fleet.well()
