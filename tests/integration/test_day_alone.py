"""A day without controllers and Redis, by a clock that the test moves: sessions, resumes and
new sessions go on, usage is counted once, and what ends after 25 h ends with its reason."""

import os
import signal
import time

import pytest
from clocklab import HOUR, ClockedFleet, Counted
from faults import disks, own_mounts  # noqa: F401
from fleetlab import FleetLab
from harness import BUILD, SLOW, SocksError, http_get, parse_metrics, socks_connect
from servers import wait_until

pytestmark = pytest.mark.skipif("thread" in BUILD.name, reason="nothing is preloaded there")


DAY = 24 * HOUR
OVER = 25 * HOUR + 120  # no pass of before holds: 25 h and the tolerance of clocks


def used(fleet, user="alice"):
    return next((u["used_up"], u["used_down"]) for u in fleet.json("get", "users")["users"]
                if u["name"] == user)


def refused_here(fleet, client, server):
    """What an application is told; and it is told something, soon."""
    with pytest.raises(SocksError) as told:
        socks_connect(client.socks, "127.0.0.1", server.port, timeout=60).close()
    return told.value.code


def reason_said(client):
    return [x["last_down"] for x in client.status()["exits"]]


def test_a_day_without_control_plane_and_its_end(lab):
    fleet = ClockedFleet(lab)
    clock, began = fleet.clock, time.monotonic()
    user = fleet.client()
    late, too_late = fleet.client("late"), fleet.client("toolate")
    late.stop()  # was here once, and comes back
    too_late.stop()  # likewise, when its pass is over
    stream = Counted(user, lab.servers)
    assert stream.holds()
    agent = fleet[user.in_use()].agent_pid()
    if os.geteuid() == 0:  # who may look; the exit gives its agent no such environment
        with open(f"/proc/{agent}/maps") as f:
            assert str(clock.library) in f.read(), "the agent has another clock"
    carried, resumes, fresh = 0, 0, 0
    fleet.controller.kill()
    fleet.redis.kill()
    for hour in range(1, 25):
        clock.set(hour * HOUR if hour < 24 else DAY - 10)
        assert stream.holds(), hour
        if hour % 6 == 0:  # the exit process dies: all sessions there resume
            fleet[user.in_use()].kill_exit()
            assert stream.holds(), hour
            resumes += 1
        if hour % 8 == 0:  # somebody comes who was not here
            late.start()
            other = Counted(late, lab.servers)
            assert other.holds(), hour
            carried += other.carried
            fresh += 1
            late.stop()
        if hour == 12:  # a whole worker starts anew, from what is on its disk
            spare = fleet[{"a": "b", "b": "a"}[user.in_use()]]
            spare.stop()
            spare.start()
    assert "home-lost" not in user.log and (resumes, fresh) == (4, 3)
    print(f"24 h, {resumes} resumes, {fresh} new sessions in {time.monotonic() - began:.1f} s")

    clock.set(OVER)
    assert stream.ends_within(10) < 5 * SLOW
    wait_until(lambda: "pass-expired" in reason_said(user), 10 * SLOW, "the reason is told")
    # A dial that was under way as the clocks jumped told the worker an hour of its own, so
    # nobody answers it, and until it is over there is an exit that has not refused.
    wait_until(lambda: refused_here(fleet, user, stream.server) == 2, 60 * SLOW, "not allowed")
    too_late.spawn()
    wait_until(too_late.listening, 15 * SLOW, "its port")
    wait_until(lambda: "pass-expired" in reason_said(too_late), 20 * SLOW,
               "a new session is refused, with the reason")
    assert refused_here(fleet, too_late, stream.server) == 2
    for client in (user, too_late):
        assert "pass-expired" in client.log
    refusals = 'sallyport_worker_refused_total{reason="pass-expired"}'
    wait_until(lambda: sum(parse_metrics(http_get(fleet[n].admin, "/metrics")[1]).get(refusals, 0)
                           for n in "ab") > 0, 10 * SLOW, "the refusals are counted")

    fleet.redis.start()
    fleet.controller.start()
    clock.pass_(61)  # who was refused for long asks once a minute
    for client in (user, too_late):
        wait_until(client.ready, 30 * SLOW, "it has a new pass and a session")
        again = Counted(client, lab.servers)
        assert again.holds()
        carried += again.carried
    total = stream.carried + carried
    wait_until(lambda: used(fleet) >= (total, total), 15 * SLOW,
               f"the usage of the whole time is told: {used(fleet)} of {total}")
    fleet.restart_controller()
    for n in "ab":
        fleet[n].stop()  # the final totals once more
        fleet[n].start()
    wait_until(lambda: fleet.json("status")["synced"], 15 * SLOW, "in order again")
    assert used(fleet) == (total, total)  # to the byte, each once


def test_usage_of_a_worker_without_a_disk_is_counted_once_when_controllers_are_back(lab, disks):
    """No room for its counters: they are in memory, and outlive the agent, not the exit."""
    own_mounts()
    fleet = FleetLab(lab, workers=("a",))
    a = fleet["a"]
    disk = disks(a.dir / "state")
    fleet.start()
    user = fleet.client()
    user.stop()
    disk.fill()
    a.kill()
    fleet.controller.kill()
    fleet.redis.kill()
    a.start()  # from the last good config; there is room for nothing
    user.start()
    stream = Counted(user, lab.servers)
    for _ in range(50):
        assert stream.holds()
    first = wait_until(a.agent_pid, 10 * SLOW, "an agent")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: a.agent_pid() not in (None, first), 10 * SLOW, "another agent")
    assert stream.holds()
    fleet.redis.start()
    fleet.controller.start()
    total = stream.carried
    wait_until(lambda: used(fleet) >= (total, total), 20 * SLOW, "the usage is told")
    fleet.restart_controller()
    disk.empty()
    assert stream.holds()
    total = stream.carried
    wait_until(lambda: used(fleet) >= (total, total), 20 * SLOW, "and goes on")
    a.stop()
    a.start()
    assert used(fleet) == (total, total)
