"""The fleet as its operator and its users see it: one controller, workers that enrolled."""

import time

from fleetlab import FleetLab
from harness import SLOW, curl, curl_sha256, lint_metrics, http_get
from servers import body_sha256, wait_until


def test_a_fleet_comes_up_from_a_file_and_serves(lab, origin):
    fleet = FleetLab(lab).start()
    client = fleet.client()
    n = 3_000_000
    url = f"http://127.0.0.1:{origin.port}/close/{n}"
    assert curl_sha256(client.socks, url)[1] == body_sha256(n)
    for port in (fleet.controller.admin, fleet["a"].agent_admin):
        lint_metrics(http_get(port, "/metrics")[1])
    nodes = fleet.json("get", "nodes")
    assert {x["name"] for x in nodes} >= {"a/0", "b/0"} or len(nodes) == 2


def test_a_change_reaches_every_worker_and_cuts_nothing(lab, origin):
    fleet = FleetLab(lab).start()
    client = fleet.client()
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    began = time.monotonic()
    fleet.apply(exit_policy=["deny 127.0.0.0/8"])
    wait_until(lambda: curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] != 0,
               5 * SLOW, "the new policy holds")
    assert time.monotonic() - began < 5 * SLOW
    fleet.apply(exit_policy=["127.0.0.0/8"])
    wait_until(lambda: curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0,
               5 * SLOW, "the old policy is back")
