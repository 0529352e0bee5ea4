"""sallyport-controller and sallyportctl as an operator uses them, with a real Redis."""

import copy
import json
import signal
import socket
import time

import pytest
import yaml
from controlplane import ApiError, Controller, Redis, fleet_file
from harness import SLOW, Lab, deep_merge, http_get, lint_metrics
from servers import wait_until


@pytest.fixture(scope="module")
def shared(request, servers, dns, origin):
    place = Lab(servers, dns, origin.port)
    try:
        yield Controller(place, redis=Redis(place)).synced()
    finally:
        place.close()


@pytest.fixture
def controller(shared):
    """With two nodes and two users, whatever tests did before."""
    shared.apply(fleet_file(nodes=2, users=2))
    for lease in shared.get("leases")["leases"]:
        shared.ask("DELETE", f"/v1/leases/{lease['node']}")
    return shared


def refused(controller, *a, **kw):
    with pytest.raises(ApiError) as e:
        controller.ask(*a, **kw)
    return e.value


def test_apply_shows_the_difference_and_a_dry_run_changes_nothing(controller, tmp_path):
    path = tmp_path / "fleet.yaml"
    fleet = fleet_file(nodes=3, users=1)
    fleet["nodes"][0]["weight"] = 7
    path.write_text(yaml.safe_dump(fleet))
    before = controller.get("status")
    dry = controller.ctl("apply", "-f", path, "--dry-run").stdout
    assert controller.get("status") == before
    assert "+ node/n2/0" in dry and "~ node/n0/0" in dry and "- user/u1" in dry
    assert "    - weight: 100\n    + weight: 7" in dry
    done = controller.ctl("apply", "-f", path).stdout
    assert done.splitlines()[:-1] == dry.splitlines()[:-1]
    assert controller.get("status")["position"]["sequence"] == before["position"]["sequence"] + 1
    assert "nothing to change" in controller.ctl("apply", "-f", path).stdout
    # u1 had passes for up to a day
    assert [e["key"] for e in controller.get("state?prefix=revoked/")["entries"]] == ["revoked/user/u1"]


@pytest.mark.parametrize("mistake,words", [
    ({"nodes": [{"name": "a", "region": "eu", "carriers": [{"kind": "tcp", "address": f"192.0.2.{i}:1"}]}
                for i in (1, 2)]},
     ["fleet.yaml:", "stands above already"]),
    ({"nodes": [{"name": "a", "region": "ue", "carriers": [{"kind": "tcp", "address": "192.0.2.1:1"}]}]},
     ["no region", 'is it "eu"?']),
    ({"users": [{"name": "u", "tier": "fee"}]}, ["no tier", 'is it "free"?']),
    ({"colour": "red"}, ["colour"]),
    ({"exit_policy": ["deny everything"]}, ["exit_policy[0]"]),
])
def test_a_file_with_a_mistake_changes_nothing_and_is_told_with_its_place(controller, mistake, words):
    before = controller.get("status")
    with pytest.raises(ApiError) as e:
        controller.apply(deep_merge(fleet_file(), copy.deepcopy(mistake)))
    assert e.value.status == 422 and e.value.code == "invalid"
    assert all(w in e.value.detail for w in words), e.value.detail
    assert controller.get("status")["position"] == before["position"]


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "[]", "null", "\0", "fleet: lab"])
def test_an_empty_or_cut_off_file_never_empties_the_fleet(controller, text):
    with pytest.raises(ApiError):
        controller.apply(text)
    assert len(controller.get("nodes")["nodes"]) == 2


def test_a_fleet_without_nodes_needs_force(controller, tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet_file(nodes=0)))
    r = controller.ctl("apply", "-f", path, check=False)
    assert r.returncode == 2 and "--force" in r.stderr
    assert len(controller.get("nodes")["nodes"]) == 2
    controller.ctl("apply", "-f", path, "--force")
    assert controller.get("nodes")["nodes"] == []


def test_a_file_of_another_fleet_is_refused(controller):
    with pytest.raises(ApiError) as e:
        controller.apply(fleet_file(fleet="other"))
    assert e.value.code == "other-fleet"


def test_rollback_declares_again_and_leaves_what_verbs_did(controller):
    old = controller.get("status")["position"]["sequence"]
    controller.apply(fleet_file(nodes=5, users=2))
    controller.ask("PUT", "/v1/leases/n0", {"kind": "drain"})
    token = controller.ask("POST", "/v1/tokens", {"user": "u0"})
    assert "- node/n4/0" in controller.ctl("rollback", old, "--dry-run").stdout
    controller.ctl("rollback", old)
    assert [n["name"] for n in controller.get("nodes")["nodes"]] == ["n0/0", "n1/0"]
    assert [x["node"] for x in controller.get("leases")["leases"]] == ["n0"]
    assert token["id"] in [t["id"] for t in controller.get("tokens")["tokens"]]
    assert controller.ctl("rollback", "999999", check=False).returncode == 66
    for nothing in ("0", "abc", "-1"):
        assert controller.ctl("rollback", "--", nothing, check=False).returncode == 64, nothing


def test_a_user_whose_time_is_over_is_declared_with_a_warning(controller):
    users = [{"name": "u0", "tier": "free", "expires": "2020-01-01T00:00:00Z"},
             {"name": "u1", "tier": "free", "expires": "2099-01-01T00:00:00Z"}]
    reply = controller.apply({**fleet_file(), "users": users}, dry_run=1)
    assert reply["warnings"] == [
        'user "u0": expires is in the past, so it gets no pass']
    assert controller.apply(fleet_file())["warnings"] == []


def test_an_unknown_region_is_refused_with_those_that_there_are(controller):
    nodes = [{"name": "n0", "region": "xxxx",
              "carriers": [{"kind": "tcp", "address": "192.0.2.1:7000"}]}]
    with pytest.raises(ApiError) as e:
        controller.apply({**fleet_file(), "nodes": nodes})
    assert 'no region "xxxx"; declare it in regions, where there is eu' in e.value.detail


def test_leases_have_a_cap_in_each_region_and_end_by_themselves(controller):
    controller.ctl("drain", "n0", "--for", "1s", "--reason", "disk")
    r = controller.ctl("drain", "n1", check=False)
    assert r.returncode == 2 and "region eu" in r.stderr
    assert controller.ctl("cordon", "nobody", check=False).returncode == 66
    wait_until(lambda: controller.get("leases")["leases"] == [], 5 * SLOW, "the lease ends")
    ended = controller.get("events?kind=lease-ended&limit=1")["events"][0]
    assert ended["about"] == "n0" and ended["sequence"] > 0
    controller.ctl("drain", "n1")
    controller.ctl("undrain", "n1")
    assert controller.ctl("undrain", "n1", check=False).returncode == 66


def test_a_token_is_shown_once_and_kept_hashed(controller):
    token = controller.ctl("token", "make", "u0", "--valid", "1h").stdout.strip()
    assert token.startswith("spt_") and len(token) == 47
    assert token not in str(controller.get("state")) and token not in controller.log
    controller.stop()  # and not on the disk
    assert token.encode() not in (controller.dir / "state" / "journal").read_bytes()
    controller.start().synced()
    assert controller.ctl("token", "make", "nobody", check=False).returncode == 66
    tokens = controller.get("tokens?user=u0")["tokens"]
    for t in tokens:
        controller.ctl("token", "drop", t["id"])
    assert tokens and controller.get("tokens?user=u0")["tokens"] == []


def test_revoking_a_user_takes_the_tokens_too(controller):
    controller.ask("POST", "/v1/tokens", {"user": "u1"})
    controller.ctl("revoke", "--user", "u1")
    assert controller.get("tokens?user=u1")["tokens"] == []
    keys = [e["key"] for e in controller.get("state?prefix=revoked/")["entries"]]
    assert "revoked/user/u1" in keys
    assert refused(controller, "POST", "/v1/revoke", {"user": "nobody"}).status == 404
    assert refused(controller, "POST", "/v1/revoke", {"device": "x"}).status == 400
    assert refused(controller, "POST", "/v1/revoke", {"user": "u1", "serial": "00"}).status == 400


def test_a_fleet_of_thousands_is_applied_in_parts(controller):
    before = controller.get("status")["position"]["sequence"]
    big = fleet_file(nodes=2, users=12000)
    assert controller.apply(big)["changed"]
    s = controller.get("status")
    assert s["users"] == 12000 and s["position"]["sequence"] > before + 1
    controller.apply(fleet_file(nodes=2, users=2))
    assert controller.get("status")["users"] == 2


def test_lists_are_tables_for_people_and_json_for_programs(controller):
    lines = controller.ctl("get", "nodes").stdout.splitlines()
    assert lines[0].split()[:3] == ["NODE", "REGION", "WEIGHT"] and lines[1].split()[0] == "n0/0"
    for kind in ("nodes", "users", "revisions", "events", "leases", "tokens"):
        assert kind in json.loads(controller.ctl("get", kind, "--json").stdout)
    assert json.loads(controller.ctl("status", "--json").stdout)["fleet"] == "lab"


def test_metrics_are_clean_and_readiness_says_why_not(controller):
    status, text = http_get(controller.admin, "/metrics")
    assert status == 200
    lint_metrics(text)
    assert controller.metrics()["sallyport_controller_synced"] == 1
    assert http_get(controller.admin, "/readyz")[0] == 200


@pytest.mark.parametrize("raw", [
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/leases/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE /v1/leases/a%2f..%2fb HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/revisions?limit=99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /v1/leases/n0 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]",
    b"BREW / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"GET /v1/status HTTP/9.9\r\n\r\n",
])
def test_hostile_requests_are_refused_and_the_next_one_is_served(controller, raw):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5 * SLOW)
        s.connect(str(controller.socket))
        s.sendall(raw)
        s.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := s.recv(65536):
                answer += part
        except ConnectionError:
            pass
    assert not answer.startswith(b"HTTP/1.1 200"), answer[:200]
    assert controller.get("status")["fleet"] == "lab"


def test_whoever_leaves_before_the_answer_harms_nobody(lab):
    redis = Redis(lab)
    c = Controller(lab, redis=redis).synced()
    c.apply(fleet_file())
    redis.signal(signal.SIGSTOP)  # answers have to wait
    try:
        for _ in range(20):
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(c.socket))
            s.sendall(b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n"
                      b'{"user":"u0"}')
            time.sleep(0.002)
            s.close()
        t = refused(c, "POST", "/v1/tokens", {"user": "u0"})
        assert t.status == 503 and t.code in ("no-redis", "unknown-outcome")
    finally:
        redis.signal(signal.SIGCONT)
    c.synced()
    assert c.get("status")["fleet"] == "lab"


def test_without_redis_everything_but_changes_works(lab):
    redis = Redis(lab)
    c = Controller(lab, redis=redis).synced()
    c.apply(fleet_file())
    c.ask("POST", "/v1/tokens", {"user": "u0"})
    redis.kill()
    c.kill()
    c.start()  # from its disk alone
    assert len(c.get("nodes")["nodes"]) == 2
    assert http_get(c.admin, "/readyz")[0] == 200
    assert refused(c, "POST", "/v1/tokens", {"user": "u0"}).code == "no-redis"
    r = c.ctl("token", "make", "u0", check=False)
    assert r.returncode == 75 and "nothing was changed" in r.stderr
    epoch = c.get("status")["position"]["epoch"]
    redis.start()  # and empty
    c.synced()
    assert c.get("status")["position"]["epoch"] == epoch + 1
    c.ask("POST", "/v1/tokens", {"user": "u0"})


def test_a_second_controller_on_the_same_state_is_refused(lab):
    c = Controller(lab, redis=Redis(lab))
    second = Controller(lab, name="second", start=False, state_dir=str(c.dir / "state"))
    second.spawn()
    assert second.wait() == 78
    assert "another controller runs on it" in second.log
    assert c.alive()


def test_a_damaged_journal_is_refused_with_place_and_remedy(lab):
    c = Controller(lab, redis=Redis(lab)).synced()
    c.apply(fleet_file())
    c.ask("POST", "/v1/tokens", {"user": "u0"})
    c.stop()
    path = c.dir / "state" / "journal"
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    c.spawn()
    assert c.wait() == 78
    assert str(path) in c.log.splitlines()[-2] + c.log.splitlines()[-1]
    path.write_bytes(whole[:-5])  # torn: the last record was never whole
    c.start().synced()
    assert c.get("events?kind=journal-cut")["events"]
    assert len(c.get("tokens")["tokens"]) == 1  # Redis had it
