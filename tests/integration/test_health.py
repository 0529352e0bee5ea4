"""The fleet's health with real programs: what probes look at beside the protocol, whom a
verdict concerns, what clients and operators are told of it, and what vantages do without a
controller. How fast: test_detect.py."""

import signal

import pytest
from fleetlab import Vantage
from harness import SLOW, Lab, curl, http_get, lint_metrics
from healthlab import HealthFleet, Watch
from servers import wait_until

WORKERS = [("a", "eu"), ("b", "eu"), ("c", "eu"), ("d", "us"), ("e", "us")]
RUNGS = ["resolve", "connect", "carrier", "handshake", "session", "stream", "http", "egress",
         "external"]


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    place = Lab(servers, dns, origin.port)
    try:
        made = HealthFleet(place, WORKERS, (("v1", "eu"), ("v2", "us"), ("v3", "eu")),
                           ways="abcde")
        made.watch = Watch(made)
        yield made
        made.watch.stop()
    finally:
        place.close(bool(getattr(request.session, "stash_failed", None)))


def all_well(fleet):
    wait_until(lambda: fleet.count("healthy") == 5, 60 * SLOW, "all are healthy", step=0.05)
    fleet.watch.until(lambda names: len(names) == 5, 5 * SLOW, "all are offered")


def of_vantages(fate):
    """For what vantages do with a node; a client passes."""
    return lambda vantage: fate if vantage else ""


def test_a_probe_climbs_the_whole_ladder_and_times_each_rung(fleet):
    all_well(fleet)

    def views():
        return fleet.api("/v1/health/a")["nodes"][0]["views"]

    wait_until(lambda: {v["vantage"] for v in views()} == {"v1", "v2", "v3"}, 10 * SLOW,
               "all vantages have seen it")
    for v in views():
        assert v["rung"] == "top" and list(v["rungs_ms"]) == RUNGS, v
        assert v["rungs_ms"]["http"] > 0 and v["rungs_ms"]["external"] > 0, v
    m = fleet.controller.metrics()
    assert m["sallyport_controller_endpoint_probes_total"] >= 3
    assert fleet.site.served >= 3


def test_probes_leave_one_session_a_carrier_at_a_worker(fleet):
    all_well(fleet)
    way = fleet.ways["d"]
    v = fleet.seen_from[0]
    key = ('sallyport_healthcheck_probes_total{node="d/0",region="us",'
           f'carrier="tcp 127.0.0.1:{way.port}"}}')
    before = v.metrics()[key]
    wait_until(lambda: v.metrics()[key] >= before + 3, 15 * SLOW, "more probes")
    telemetry = next(n for n in fleet.api("/v1/nodes")["nodes"] if n["name"] == "d/0")
    assert telemetry["sessions"] <= len(fleet.seen_from)


def test_a_node_that_leaves_by_another_address_is_demoted_until_it_is_expected(fleet):
    all_well(fleet)
    fleet.entry("b")["egress"] = ["127.0.0.9"]
    fleet.apply()
    fleet.watch.until_out("b")
    assert any("rung egress, reason policy" in t for t in fleet.events("node-down", "b/0"))
    fleet.entry("b")["egress"] = ["127.0.0.9", "127.0.0.1"]
    fleet.apply()
    fleet.watch.until_in("b")
    fleet.until_back("b")


def test_a_204_that_is_not_the_controllers_is_a_fall_of_all_so_nobody_goes(fleet, origin):
    all_well(fleet)
    before = len(fleet.watch.told)
    probe = dict(fleet.fleet["probe"])
    fleet.apply(probe={**probe, "url": f"http://127.0.0.1:{origin.port}/204"})

    def seen():
        views = fleet.api("/v1/health/a")["nodes"][0]["views"]
        return all(v["rung"] == "http" and "not the controller's" in v["detail"] and
                   v["row"] >= 3 for v in views)

    wait_until(seen, 20 * SLOW, "all vantages fall from http")
    wait_until(lambda: fleet.health()["panic"] and fleet.health()["blind"], 20 * SLOW,
               "panic, and nobody to vote")
    assert all(n["offered"] for n in fleet.health()["nodes"])
    assert fleet.events("panic") and fleet.events("blind")
    assert fleet.controller.metrics()["sallyport_controller_panic"] == 1
    fleet.apply(probe=probe)
    all_well(fleet)
    wait_until(lambda: not fleet.health()["panic"], 20 * SLOW, "panic is over")
    assert all(len(names) == 5 for _, names in fleet.watch.told[before:])


def test_blocked_from_one_region_is_not_offered_there_and_everywhere_else(fleet):
    all_well(fleet)
    demotions = fleet.node("a")["demotions"]
    there = Watch(fleet, region="us")
    fleet.ways["a"].fate = lambda vantage: "cut" if vantage == "v2" else ""
    try:
        there.until_out("a")
        assert "a" in fleet.watch.names and fleet.node("a")["cause"] == "blocked"
        assert fleet.node("a")["blocked_from"] == ["v2"]
        assert fleet.node("a")["demotions"] == demotions
        assert any("cause blocked" in t and "seen from v2" in t
                   for t in fleet.events("node-degraded", "a/0"))
    finally:
        fleet.ways["a"].fate = lambda vantage: ""
    there.until_in("a", 120)  # it is not heard for a while after it was refuted
    there.stop()
    all_well(fleet)


def test_of_a_region_whose_nodes_all_die_the_last_stays(fleet):
    all_well(fleet)
    try:
        for name, cause in (("d", "dead"), ("e", "capped")):  # at once, both would be capped
            fleet.ways[name].fate = of_vantages("cut")
            wait_until(lambda name=name, cause=cause: fleet.node(name)["cause"] == cause,
                       60 * SLOW, f"{name} is {cause}")
        fleet.watch.until(lambda names: set(names) == set("abce"), 5 * SLOW,
                          "the capped one is offered")
        assert fleet.events("node-degraded", "e/0")
    finally:
        for name in "de":
            fleet.ways[name].fate = lambda vantage: ""
    all_well(fleet)


def test_a_client_leaves_a_demoted_exit_though_its_own_carrier_lives(fleet, origin):
    all_well(fleet)
    client = fleet.client()
    used = client.in_use()
    wait_until(lambda: client.status()["poll"]["polls"] >= 2, 10 * SLOW, "a long poll waits")
    woken = 'sallyport_controller_endpoint_woken_total'
    before = fleet.controller.metrics()[woken]
    fleet.ways[used].fate = of_vantages("cut")
    try:
        wait_until(lambda: client.in_use() != used, 20 * SLOW, "the client moved")
        assert curl(client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
        assert fleet.controller.metrics()[woken] > before
    finally:
        fleet.ways[used].fate = lambda vantage: ""
        client.stop()
    all_well(fleet)


def test_demotions_are_counted_by_rung_and_metrics_hold(fleet):
    all_well(fleet)
    lint_metrics(http_get(fleet.controller.admin, "/metrics")[1])
    m = fleet.controller.metrics()
    assert m['sallyport_controller_node_state{node="d/0",region="us",state="healthy"}'] == 1
    total = sum(v for k, v in m.items() if "demotions_total{" in k)
    assert total == sum(n["demotions"] for n in fleet.health()["nodes"])
    for v in fleet.seen_from:
        lint_metrics(http_get(v.admin, "/metrics")[1])
        assert v.metrics()["sallyport_healthcheck_controls_ok"] == 1


def test_a_vantage_that_is_cut_off_has_no_vote_and_says_so(fleet):
    v = fleet.seen_from[2]
    v.config["controls"] = ["http://127.0.0.1:9/"]  # nobody answers there
    v.write_config()
    v.signal(signal.SIGHUP)
    wait_until(lambda: fleet.vantage("v3")["state"] == "cut-off", 15 * SLOW, "it has no vote")
    assert http_get(v.admin, "/readyz")[0] == 503
    assert fleet.events("vantage-cut-off", "v3")
    del v.config["controls"]
    v.write_config()
    v.signal(signal.SIGHUP)
    wait_until(lambda: fleet.vantage("v3")["state"] == "votes", 15 * SLOW, "it votes again")


def test_without_a_controller_results_are_kept_and_told_afterwards(fleet):
    fleet.controller.kill()
    v = fleet.seen_from[0]
    wait_until(lambda: v.metrics()["sallyport_healthcheck_linked"] == 0, 20 * SLOW, "no link")
    wait_until(lambda: v.metrics()["sallyport_healthcheck_results_waiting"] >= 5, 15 * SLOW,
               "results wait")
    fleet.controller.start()
    wait_until(lambda: fleet.count("healthy") == 5, 30 * SLOW, "all are healthy again")


def test_a_second_use_of_an_enrolment_is_refused(fleet):
    token = fleet.vantage_token("v9", "eu")
    first = Vantage(fleet, "v9")
    assert first.enrol(token).returncode == 0
    again = Vantage(fleet, "v9b")
    done = again.enrol(token)
    assert done.returncode == 69, done.stdout + done.stderr
    assert "refused" in done.stderr
