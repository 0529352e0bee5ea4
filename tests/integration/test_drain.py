"""Nodes are drained: what stands ends in its own time, new flows are elsewhere at once, the
node says when it is empty, and a lease ends by itself whoever is away."""

import re
import subprocess
import time

import pytest
from faults import Stream
from fleetlab import FleetLab
from harness import BUILD, SLOW, Lab, curl, http_get
from servers import wait_until

SHORT = int(4 + 4 * SLOW)  # seconds of a lease whose end is waited for


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    place, failed = Lab(servers, dns, origin.port), True
    try:
        fleet = FleetLab(place, workers=(("a", "eu"), ("b", "eu"))).start()
        fleet.user = fleet.client()
        fleet.origin = origin
        yield fleet
        failed = any(request.node.nodeid in x
                     for x in getattr(request.session, "stash_failed", ()))
    finally:
        place.close(failed)


@pytest.fixture(autouse=True)
def nobody_is_out(fleet):
    yield
    for lease in fleet.json("get", "leases")["leases"]:
        fleet.run("undrain", lease["node"])
    wait_until(lambda: all(fleet[n].ready() for n in "ab"), 10 * SLOW, "both serve")
    wait_until(lambda: len(fleet.user.status()["exits"]) == 2, 10 * SLOW, "both are offered")


def node(fleet, name):
    return next(n for n in fleet.json("get", "nodes")["nodes"] if n["name"] == f"{name}/0")


def used_and_other(fleet):
    used = fleet.user.in_use()
    return used, {"a": "b", "b": "a"}[used]


def works(fleet):
    return curl(fleet.user.socks, f"http://127.0.0.1:{fleet.origin.port}/204")[0] == 0


def waiting(fleet, *argv):
    return subprocess.Popen(
        [BUILD / "bin" / "sallyportctl", "drain", *argv, "--wait", "--socket",
         fleet.controller.socket], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(fleet, kind, about, since):
    return [e for e in fleet.json("get", "events", "--kind", kind)["events"]
            if e["about"] == about and e["time_ms"] >= since]


def test_a_drained_node_serves_what_stands_and_says_when_it_is_empty(fleet):
    used, other = used_and_other(fleet)
    stream, began = Stream(fleet.user, fleet.lab.servers), time.time() * 1000
    assert stream.holds()
    done = fleet.run("drain", used, "--deadline", "5m", "--reason", "a new kernel")
    assert re.match(rf"{used} drains until ", done.stdout)
    started = time.monotonic()
    wait_until(lambda: fleet.user.in_use() == other, 5 * SLOW, "new flows go elsewhere")
    assert time.monotonic() - started < 3 * SLOW
    assert works(fleet) and stream.holds()
    wait_until(lambda: node(fleet, used)["draining"] and node(fleet, used)["streams"] == 1,
               5 * SLOW, "it drains and has the stream")
    assert node(fleet, used)["empty"] is False and "empty" not in node(fleet, other)
    for words in (("get", "nodes"), ("get", "leases")):
        assert "draining, 1 stream left" in fleet.run(*words).stdout, words
    assert not events(fleet, "node-empty", used, began)
    assert fleet.controller.metrics()[
        'sallyport_controller_draining_nodes{state="busy"}'] == 1

    p = waiting(fleet, used, "--deadline", "6m")  # waits, and begins anew
    assert p.stdout.readline().startswith(f"{used} drains until ")
    while "1 stream left" not in (line := p.stderr.readline()):
        assert line
    assert stream.holds() and p.poll() is None
    stream.sock.close()
    out, err = p.communicate(timeout=20 * SLOW)
    assert p.returncode == 0 and f"{used} is empty" in out and f"{used}: empty" in err
    wait_until(lambda: events(fleet, "node-empty", used, began), 5 * SLOW, "the event")
    assert re.search(r"\bempty\b", fleet.run("get", "nodes").stdout)
    assert fleet.json("get", "leases")["leases"][0]["empty"] is True
    assert fleet.run("drain", used, "--wait").returncode == 0  # at once
    assert works(fleet)


def test_a_wait_ends_at_the_deadline_and_the_lease_with_it(fleet):
    used, _ = used_and_other(fleet)
    stream = Stream(fleet.user, fleet.lab.servers)
    assert stream.holds()
    p = waiting(fleet, used, "--deadline", "3s")
    _, err = p.communicate(timeout=30 * SLOW)
    assert p.returncode == 75 and "was not empty at its deadline" in err, err
    wait_until(lambda: fleet[used].ready(), 5 * SLOW, "it serves again by itself")
    wait_until(lambda: not fleet.json("get", "leases")["leases"], 5 * SLOW, "no lease")
    assert stream.holds()


def test_a_wait_ends_when_somebody_ends_the_lease(fleet):
    used, _ = used_and_other(fleet)
    stream = Stream(fleet.user, fleet.lab.servers)
    p = waiting(fleet, used)
    while "1 stream left" not in (line := p.stderr.readline()):
        assert line
    fleet.run("undrain", used)
    _, err = p.communicate(timeout=20 * SLOW)
    assert p.returncode == 66 and "its lease was ended" in err, err
    assert stream.holds()


def test_a_node_whose_worker_is_not_heard_is_not_empty(fleet):
    used, other = used_and_other(fleet)
    fleet.run("drain", other)
    fleet[other].kill()
    wait_until(lambda: "not heard" in fleet.run("get", "nodes").stdout, 15 * SLOW, "it is told")
    (lease,) = fleet.json("get", "leases")["leases"]
    assert lease["empty"] is False and lease["unheard"] == 1
    fleet[other].spawn()  # with its lease, from what it has on its disk
    wait_until(lambda: fleet.json("get", "leases")["leases"][0]["empty"], 20 * SLOW,
               "it came back, drains on and is empty")
    assert fleet.user.in_use() == used


def test_a_lease_ends_by_itself_with_controller_and_redis_gone(fleet):
    used, other = used_and_other(fleet)
    stream = Stream(fleet.user, fleet.lab.servers)
    fleet.run("drain", used, "--deadline", f"{SHORT}s")
    until = time.monotonic() + SHORT
    wait_until(lambda: not fleet[used].ready(), 5 * SLOW, "it drains")
    wait_until(lambda: fleet.user.in_use() == other, 5 * SLOW, "new flows go elsewhere")
    fleet.controller.kill()
    fleet.redis.kill()
    try:
        assert "draining" in http_get(fleet[used].admin, "/readyz")[1]
        assert works(fleet) and stream.holds()
        wait_until(lambda: fleet[used].ready(), SHORT + 10 * SLOW, "it serves again by itself")
        assert time.monotonic() >= until - 1.5
        assert works(fleet) and stream.holds()
    finally:
        fleet.redis.start()
        fleet.controller.start()
    wait_until(lambda: not fleet.json("get", "leases")["leases"], 15 * SLOW,
               "the controller that came back took it out")
    wait_until(lambda: fleet.json("status")["synced"], 15 * SLOW, "Redis is filled anew")
    assert fleet[used].ready() and stream.holds()


def test_a_worker_cut_off_from_the_controller_ends_its_lease_in_time(fleet):
    """Its link stands still: it hears neither that the lease was taken out nor a digest."""
    used, _ = used_and_other(fleet)
    fleet.run("drain", used, "--deadline", f"{SHORT}s")
    wait_until(lambda: not fleet[used].ready(), 5 * SLOW, "it drains")
    fleet.controller.signal(19)  # STOP
    try:
        wait_until(lambda: fleet[used].ready(), SHORT + 10 * SLOW, "it serves again by itself")
        assert works(fleet)
    finally:
        fleet.controller.signal(18)  # CONT
    wait_until(lambda: not fleet.json("get", "leases")["leases"], 15 * SLOW, "no lease")
