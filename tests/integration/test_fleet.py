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
    nodes = fleet.json("get", "nodes")["nodes"]
    assert [(x["name"], x["link"], x["applied"]["sequence"]) for x in nodes] == [
        (name, "up", fleet.head()[1]) for name in ("a/0", "b/0")]


def test_an_enrolment_is_opened_once_and_then_done(lab):
    fleet = FleetLab(lab, workers=("a",)).start()
    kinds = [e["kind"] for e in fleet.json("get", "events")["events"]
             if e["about"] in ("worker/a/0", "a/0")]
    assert [k for k in kinds if k.startswith("enrol")] == ["enrolment-open", "enrolled"]


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


def test_a_cordoned_node_is_left_by_clients_at_once(lab, origin):
    fleet = FleetLab(lab).start()
    client = fleet.client()
    used = client.in_use()
    other = {"a": "b", "b": "a"}[used]
    wait_until(lambda: client.status()["poll"]["polls"] >= 2, 5 * SLOW, "a long poll waits")
    began = time.monotonic()
    fleet.run("cordon", used)
    wait_until(lambda: client.in_use() == other, 3 * SLOW, "it moved")
    assert time.monotonic() - began < 2 * SLOW
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    fleet.run("undrain", used)
    wait_until(lambda: len(client.status()["exits"]) == 2, 3 * SLOW, "it is offered again")


def test_a_revoked_user_is_cut_in_mid_download(lab, origin):
    fleet = FleetLab(lab).start()
    client = fleet.client()
    from harness import socks_connect

    s = socks_connect(client.socks, "127.0.0.1", origin.port)
    s.sendall(b"GET /bytes/10 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert s.recv(1)
    s.settimeout(5 * SLOW)
    began = time.monotonic()
    fleet.run("revoke", "--user", "alice")
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    assert time.monotonic() - began < 1.5 * SLOW
    assert client.run("status").returncode == 0


def test_without_controller_and_redis_everything_goes_on(lab, origin):
    fleet = FleetLab(lab).start()
    client = fleet.client()
    fleet.controller.kill()
    fleet.redis.kill()
    for _ in range(3):
        assert curl(client.socks, f"http://127.0.0.1:{origin.port}/bytes/100000")[0] == 0
    fleet["a"].stop()
    fleet["a"].start()  # from its last known good config
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0


def test_usage_is_counted_once_over_a_restart_of_the_worker(lab, origin):
    fleet = FleetLab(lab, workers=("a",)).start()
    client = fleet.client()
    n = 1_000_000
    url = f"http://127.0.0.1:{origin.port}/close/{n}"
    assert curl_sha256(client.socks, url)[1] == body_sha256(n)

    def used():
        (user,) = fleet.json("get", "users")["users"]
        return user["used_down"]

    wait_until(lambda: used() > n, 5 * SLOW, "the first download is counted")
    first = used()
    fleet["a"].kill()
    fleet["a"].start()
    wait_until(lambda: curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0,
               15 * SLOW, "it serves again")
    assert curl_sha256(client.socks, url)[1] == body_sha256(n)
    wait_until(lambda: used() > 2 * n, 5 * SLOW, "the second as well")
    assert first < used() < 2 * n + 20_000
