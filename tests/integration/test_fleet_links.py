"""Who may be on the controller's bus: enrolment with good and bad tokens, and what becomes
of a node that the fleet has no more."""

import base64
import json
import time

from fleetlab import FleetLab, FleetWorker
from harness import SLOW
from servers import wait_until


def enrolments(fleet):
    prefix = "sallyport_controller_enrolments_total{result="
    return {name[len(prefix):].strip('"}'): n
            for name, n in fleet.controller.metrics().items() if name.startswith(prefix)}


def another_secret(token):
    kind, text = token.split(":")
    o = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    o["secret"] = ("B" if o["secret"][0] == "A" else "A") + o["secret"][1:]
    return kind + ":" + base64.urlsafe_b64encode(json.dumps(o).encode()).decode().rstrip("=")


def test_wrong_used_and_expired_tokens_are_refused_and_told(lab):
    fleet = FleetLab(lab, workers=("a", "b"))
    token = fleet.enrol_token("a/0")
    r = fleet["a"].enrol(another_secret(token))
    assert r.returncode != 0 and "not known here" in r.stdout + r.stderr
    assert fleet["a"].enrol(token).returncode == 0
    thief = FleetWorker(fleet, "a", folder="thief")
    r = thief.enrol(token)
    assert r.returncode != 0 and "used already" in r.stdout + r.stderr
    short = fleet.run("enroll", "--node", "b/0", "--valid", "1s").stdout.split()[-1]
    until = time.time() + 1.1
    wait_until(lambda: time.time() > until, 5, "the token's end")
    r = fleet["b"].enrol(short)
    assert r.returncode != 0 and "expired" in r.stdout + r.stderr
    told = [e["text"].split(",")[0] for e in fleet.json("get", "events")["events"]
            if e["kind"] == "enrolment-refused"]
    assert sorted(told) == ["expired", "unknown", "used"]
    counted = enrolments(fleet)
    assert [counted[w] for w in ("ok", "unknown", "used", "expired")] == [1, 1, 1, 1]


def test_a_node_that_the_fleet_has_no_more_is_cut_off_and_no_other(lab):
    fleet = FleetLab(lab, workers=("a", "b")).start()
    assert fleet.controller.metrics()[
        'sallyport_controller_peers{kind="worker",state="connected"}'] == 2
    fleet.apply(nodes=[n for n in fleet.fleet["nodes"] if n["name"] != "a"])
    refused = 'sallyport_controller_bus_handshakes_total{domain="fleet",result="refused"}'
    wait_until(lambda: fleet.controller.metrics()[refused] > 0, 15 * SLOW,
               "the removed node is refused")
    wait_until(lambda: [(n["name"], n["link"]) for n in fleet.json("get", "nodes")["nodes"]]
               == [("b/0", "up")], 15 * SLOW, "the other is back")
    fleet.apply(refresh="2s")
    wait_until(lambda: fleet.json("get", "nodes")["nodes"][0]["applied"]["sequence"]
               == fleet.head()[1], 10 * SLOW, "and goes on")
