"""Every part of a fleet file, and every verb, changes under live traffic: a stream, a
datagram flow and a download go on, and each worker acknowledges each change."""

import time

import pytest
from faults import FaultyFleet, module_place
from harness import SLOW, SocksUdp, http_get
from servers import TcpServer, UdpServer, tcp_echo, wait_until
from test_agent import Download

USERS = [{"name": "alice", "tier": "standard"}, {"name": "bob", "tier": "standard"}]


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    yield from module_place(request, servers, dns, origin, FaultyFleet)


def changed_nodes(fleet, **changes):
    """The standby's node with changes; "carrier_…" of its carrier."""
    nodes = [dict(n) for n in fleet.base["nodes"]]
    node = next(n for n in nodes if n["name"] == fleet.standby)
    node.update({k: v for k, v in changes.items() if not k.startswith("carrier_")})
    node["carriers"] = [{**node["carriers"][0],
                         **{k[8:]: v for k, v in changes.items() if k.startswith("carrier_")}}]
    return nodes


def changes(fleet, site):
    """What is changed, one after the other, as (words, change of the fleet file)."""
    tier = {"name": "standard"}
    port = fleet[fleet.standby].port
    yield "endpoints", {"endpoints": [*fleet.base["endpoints"], "http://127.0.0.1:9/v1/config"]}
    yield "refresh", {"refresh": "2s"}
    yield "cover site", {"cover": f"127.0.0.1:{site.port}"}
    yield "probe", {"probe": {"interval": "3s", "deadline": "400ms", "url": "none"}}
    yield "health", {"health": {"fall": 2, "rise": 1, "cap_percent": 20, "hold_down": "1s"}}
    yield "regions", {"regions": [{"name": "eu"}, {"name": "us"}]}
    yield "region of a node", {"regions": [{"name": "eu"}, {"name": "us"}],
                               "nodes": changed_nodes(fleet, region="us")}
    yield "weight", {"nodes": changed_nodes(fleet, weight=3)}
    yield "egress addresses", {"nodes": changed_nodes(fleet, egress=["192.0.2.7"])}
    yield "advertised address", {"nodes": changed_nodes(
        fleet, carrier_address=f"127.0.0.2:{port}", carrier_listen=f"127.0.0.1:{port}")}
    yield "bound address", {"nodes": changed_nodes(fleet, carrier_listen=f"127.0.0.3:{port}")}
    yield "kind of carrier", {"nodes": changed_nodes(fleet, carrier_kind="tls",
                                                     carrier_server_name="exit.example")}
    yield "group of a node", {"nodes": changed_nodes(fleet, group="best")}
    yield "another node", {"nodes": [*fleet.base["nodes"], {
        "name": "c", "region": "eu", "carriers": [{"kind": "tcp", "address": "192.0.2.9:7000"}]}]}
    for key, value in (("max_sessions", 3), ("max_streams", 50), ("max_flows", 60),
                       ("rate", "200M"), ("quota", "100G"), ("quota_period", "1d")):
        yield f"{key} of a tier", {"tiers": [{**tier, key: value,
                                              **({"quota": "100G"} if "period" in key else {})}]}
    yield "groups of a tier", {"tiers": [tier, {"name": "other", "groups": ["best"]}],
                               "nodes": changed_nodes(fleet, group="best")}
    yield "exit policy", {"exit_policy": ["deny 192.0.2.0/24", *fleet.base["exit_policy"]]}
    for key, value in (("expires", "2099-01-01"), ("quota", "90G"), ("max_devices", 9)):
        yield f"{key} of a user", {"users": [{**USERS[0], key: value}, USERS[1]]}
    yield "another user", {"users": USERS}
    yield "tier of a user", {"tiers": [tier, {"name": "best", "rate": "300M"}],
                             "users": [{**USERS[0], "tier": "best"}]}
    yield "a user disabled", {"users": [USERS[0], {**USERS[1], "disabled": True}]}
    yield "back to the beginning", {}


def test_every_part_changes_and_nothing_live_breaks(fleet, servers, origin):
    site = TcpServer(servers, tcp_echo)
    fleet.base = dict(fleet.fleet)
    fleet.standby = {"a": "b", "b": "a"}[fleet.user.in_use()]
    udp, flow = UdpServer(servers), SocksUdp(fleet.user.socks)
    download = Download(servers, fleet.user, origin, n=64 << 20, limit="6M")
    took = {}
    for words, change in changes(fleet, site):
        was = fleet.position()["sequence"]
        fleet.fleet = dict(fleet.base)
        began = time.monotonic()
        fleet.apply(**change)
        assert fleet.position()["sequence"] > was or not change, words
        head = fleet.position()
        wait_until(lambda: [a for a in fleet.applied() if a == head] == [head] * 2, 10 * SLOW,
                   f"{words}: acknowledged by both workers: {fleet.applied()}")
        took[words] = time.monotonic() - began
        assert fleet.stream.holds(), words
        assert flow.ask("127.0.0.1", udp.port, words.encode()) == words.encode(), words
    print("slowest:", max(took, key=took.get), f"{max(took.values()) * 1000:.0f} ms")
    assert download.good(), download.result
    for w, _ in fleet.workers.values():
        assert not [v for name, v in w.metrics().items() if v and
                    name.startswith("sallyport_agent_configs_total") and "refused" in name]
        assert w.ready()


def test_verbs_change_the_fleet_and_nothing_live_breaks(fleet, servers, origin):
    bob = fleet.apply(users=USERS) and fleet.token("bob")
    device = "sallyport-device-public:" + "QUJD" * 10 + "QUI="
    other = {"a": "b", "b": "a"}[fleet.user.in_use()]
    verbs = [("token", "make", "bob"), ("revoke", "--user", "bob"), ("revoke", "--device", device),
             ("revoke", "--serial", "00" * 16), ("cordon", other), ("undrain", other),
             ("drain", other, "--for", "10m"), ("undrain", other),
             ("enroll", "--vantage", "v1", "--region", "eu")]
    for verb in verbs:
        fleet.run(*verb)
        fleet.at_one()
        assert fleet.stream.holds(), verb
    assert bob
    assert http_get(fleet.controller.admin, "/readyz")[0] == 200
