"""Full disks: traffic goes on, what could not be written is counted and told, nothing that
was acknowledged is lost, and all heals when there is room. CHECK_LONG=1: a worker heals by
itself, within a minute."""

import os
import re
import signal

import pytest
from faults import FaultyFleet, Stream, disks, own_mounts  # noqa: F401
from fleetlab import FleetLab, Vantage
from harness import SLOW, curl_sha256
from servers import body_sha256, wait_until

LONG = bool(os.environ.get("CHECK_LONG"))
NO_SPACE = "No space left"
PROBES = "sallyport_healthcheck_probes_total"


def used_down(fleet, user="alice"):
    return next(u["used_down"] for u in fleet.json("get", "users")["users"]
                if u["name"] == user)


def prepared(lab, disks, where):
    """A fleet with a small disk in one place, before anything is written there."""
    made = {}

    class Prepared(FaultyFleet):
        def start(self, *names):
            if where == "worker":
                made["disk"] = disks(self["a"].dir / "state")
            return super().start(*names)

    own_mounts()
    if where == "controller":
        (lab.dir / "controller").mkdir()
        made["disk"] = disks(lab.dir / "controller" / "state")
    fleet = Prepared(lab)
    return fleet, made["disk"]


def test_a_worker_with_a_full_disk_serves_takes_configs_and_catches_up(lab, disks, origin):
    fleet, disk = prepared(lab, disks, "worker")
    fleet.well()
    disk.fill()
    a = fleet["a"]
    errors = "sallyport_agent_disk_errors_total"
    assert a.metrics()[errors] == 0
    for _ in range(200):  # until the last page of the file is full
        fleet.change()
        if a.metrics()[errors]:
            break
    assert a.metrics()[errors] > 0
    assert re.search(rf"comp=store.*file=.*error=.*{NO_SPACE}", a.log)
    head = fleet.at_one()  # all the same it has the newest config
    fleet.untouched()
    url = f"http://127.0.0.1:{origin.port}/bytes/1000000"
    before = used_down(fleet)
    assert curl_sha256(fleet.user.socks, url) == (1000000, body_sha256(1000000))
    wait_until(lambda: used_down(fleet) >= before + 1000000, 10 * SLOW, "its usage is told")
    # its agent dies and comes back, on the same full disk
    first = a.agent_pid()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: a.agent_pid() not in (None, first), 10 * SLOW, "another agent")
    assert fleet.at_one() == head
    fleet.untouched()
    # it starts anew on the full disk, as of an older config, and catches up
    a.kill()
    a.start()
    assert fleet.at_one() == head
    disk.empty()
    fleet.stream = Stream(fleet.user, lab.servers)
    fleet.change()
    head = fleet.at_one()
    if not LONG:  # it would ask once a minute: a new one asks at once
        os.kill(a.agent_pid(), signal.SIGKILL)
    kept = a.dir / "state" / "agent"
    want = f'"sequence":{head["sequence"]},'.encode()
    wait_until(lambda: any(want in p.read_bytes() for p in kept.iterdir()), 70 * SLOW,
               "the disk has all again")
    fleet.controller.kill()
    fleet.redis.kill()
    a.kill()
    mark = len(a.log)
    a.start()  # from the disk alone
    last = re.search(r'msg="the last known good config" epoch=(\d+) sequence=(\d+)', a.log[mark:])
    assert last and [int(x) for x in last.groups()] == [head["epoch"], head["sequence"]]


def test_a_controller_with_a_full_disk_refuses_changes_and_loses_nothing(lab, disks, origin):
    fleet, disk = prepared(lab, disks, "controller")
    fleet.well()
    disk.fill()
    done = None
    for _ in range(200):
        before = fleet.at_one()
        done = fleet.change(check=False)
        if done.returncode:
            break
    assert NO_SPACE in done.stderr and "nothing was changed" in done.stderr, done
    assert fleet.controller.metrics()["sallyport_controller_journal_errors_total"] > 0
    assert any(e["kind"] == "journal-error" and NO_SPACE in e["text"]
               for e in fleet.json("get", "events")["events"])
    assert fleet.at_one() == before
    fleet.untouched()
    url = f"http://127.0.0.1:{origin.port}/bytes/3000000"
    for _ in range(3):
        assert curl_sha256(fleet.user.socks, url) == (3000000, body_sha256(3000000))
    wait_until(lambda: used_down(fleet) >= 9000000, 10 * SLOW, "the usage is known")
    # Redis is emptied as well: it cannot be filled anew yet, and nothing is published
    fleet.redis.cli("FLUSHALL")
    assert fleet.change(check=False).returncode
    fleet.untouched()
    assert all(a == before for a in fleet.applied())
    # killed and back on the full disk
    fleet.controller.kill()
    fleet.controller.start()
    assert fleet.position() == before
    disk.empty()
    wait_until(lambda: fleet.position()["epoch"] == before["epoch"] + 1, 15 * SLOW,
               "Redis is filled anew")
    fleet.well()
    wait_until(lambda: used_down(fleet) >= 9000000, 10 * SLOW, "the usage is known")
    sent = used_down(fleet)
    fleet.controller.kill()
    fleet.controller.start()
    # what the stream's last words cost may have come meanwhile
    wait_until(lambda: sent <= used_down(fleet) < sent + 1000, 10 * SLOW,
               "the usage is on the disk")


def test_a_controller_starts_on_a_full_disk_or_says_what_is_missing(lab, disks):
    own_mounts()
    (lab.dir / "controller").mkdir()
    disk = disks(lab.dir / "controller" / "state")
    disk.fill()
    with pytest.raises(AssertionError, match=NO_SPACE):
        FleetLab(lab, workers=("a",))


def test_a_client_with_a_full_disk_leaves_exits_and_takes_passes(lab, disks):
    fleet = FaultyFleet(lab)
    user = fleet.user
    kept = user.dir / "state" / "config.signed"
    before = kept.read_bytes()
    user.stop()
    kept_too = {p.name: p.read_bytes() for p in kept.parent.iterdir() if p.is_file()}
    disk = disks(kept.parent)
    for name, content in kept_too.items():
        (kept.parent / name).write_bytes(content)
    disk.fill()
    user.start()
    stream = Stream(user, lab.servers)
    for turn in range(2):
        used = user.in_use()
        other = {"a": "b", "b": "a"}[used]
        fleet.run("cordon", used)
        wait_until(lambda other=other: user.in_use() == other, 5 * SLOW, "it left the exit")
        fleet.run("undrain", used)
        wait_until(lambda: len(user.status()["exits"]) == 2, 5 * SLOW, "offered again")
        fleet.change()
        assert stream.holds(), turn
    assert re.search(f"held in memory only.*{NO_SPACE}", user.log)
    assert user.log.count("held in memory only") == 1
    user.signal(signal.SIGHUP)
    user.wait_log("config reloaded")
    assert kept.read_bytes() == before
    disk.empty()
    fleet.change()
    user.wait_log("the config is on the disk again", 10)
    wait_until(lambda: kept.read_bytes() != before, 5 * SLOW, "the disk has the newest")
    assert stream.holds()


def test_a_health_checker_with_a_full_disk_probes_on_and_takes_configs(lab, disks):
    own_mounts()
    fleet = FaultyFleet(lab, workers=("a",))
    v = Vantage(fleet, "v", probe={"interval": "1s"})
    disk = disks(v.dir / "state")
    done = v.enrol()
    assert done.returncode == 0, done.stdout + done.stderr
    v.start()

    def vantage():
        (one,) = fleet.json("get", "vantages")["vantages"]
        return one

    def current():
        return fleet.position() == vantage().get("applied")

    wait_until(lambda: vantage()["state"] == "votes", 20 * SLOW, "it has a vote")
    disk.fill()
    errors = "sallyport_healthcheck_disk_errors_total"
    assert v.metrics()[errors] == 0
    for _ in range(200):  # until the last page of the file is full
        fleet.change()
        if v.metrics()[errors]:
            break
    assert v.metrics()[errors] > 0
    assert re.search(rf"comp=store.*error=.*{NO_SPACE}", v.log)
    wait_until(current, 10 * SLOW, "it has the newest all the same")
    probes = sum(n for k, n in v.metrics().items() if k.startswith(PROBES))
    wait_until(lambda: sum(n for k, n in v.metrics().items() if k.startswith(PROBES)) >
               probes + 2, 15 * SLOW, "it probes on")
    v.stop()
    v.start()  # on the full disk, as of an older state
    wait_until(current, 15 * SLOW, "it caught up")
    wait_until(lambda: vantage()["state"] == "votes", 20 * SLOW, "it has a vote again")
    disk.empty()
    v.stop()
    v.start()
    fleet.change()
    wait_until(current, 15 * SLOW, "it goes on")
    want = f'"sequence":{fleet.position()["sequence"]},'.encode()
    wait_until(lambda: any(want in p.read_bytes() for p in (v.dir / "state").rglob("*")
                           if p.is_file()), 70 * SLOW, "the disk has all again")
    assert fleet.json("get", "nodes")["nodes"][0]["health"] == "healthy"
